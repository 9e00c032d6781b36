"""Audio to log-mel features, as it arrives.

Whisper clips log-mel values at 8 decades below the maximum of the whole window, which has not been
heard yet: the maximum so far is used. README.md in the folder above has the figures.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edged.audio.mel import HOP, MELS, N_FFT, log10_mel
from edged.stt.family import Floats
from edged.stt.whisper.dimensions import FRAME_SAMPLES, WINDOW_FRAMES

HALF = N_FFT // 2  # the first window is centred on the first sample
CONTEXT = 2  # mel frames that the convolutions need on either side of an encoder frame's own
DYNAMIC_RANGE = 8.0  # decades
TAIL = np.zeros(2 * N_FFT, np.float32)  # silence behind the last sample: enough for every window


class Frontend:
    """Log-mel features of one segment. Memory: those of the frames that may be asked for again."""

    def __init__(self, max_frames: int) -> None:
        """max_frames: the most encoder frames of the segment."""
        self._max_frames = min(max_frames, WINDOW_FRAMES)
        self._samples = np.empty(0, np.float32)  # those that further windows need
        self._total = 0  # samples so far
        self._mel = np.empty((0, MELS), np.float32)  # those that may be asked for again
        self._mel_first = 0  # index of the first of them
        self._peak = -np.inf

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any] at 16 kHz, -1..1."""
        self._samples = np.concatenate((self._samples, samples))
        if self._total <= HALF < self._total + len(samples):  # the beginning is mirrored
            self._samples = np.concatenate((self._samples[HALF:0:-1], self._samples))
        self._total += len(samples)

    @property
    def frames(self) -> int:
        """Encoder frames that the audio so far gives, with all that they need behind them."""
        mel = (self._total - HALF) // HOP + 1 if self._total > HALF else 0
        return min(self._max_frames, max(0, (mel - 1) // 2))

    @property
    def last_frames(self) -> int:
        """Encoder frames that the audio gives if it ends here."""
        return min(self._max_frames, self._total // FRAME_SAMPLES) if self._total > HALF else 0

    def mel(self, first: int, frames: int) -> Floats:
        """Returns float32[2 * (frames - first) + 3, 80]: what the encoder frames `first` .. need.

        Frames before `first` cannot be asked for again. In front of the segment it is 0.
        """
        self._transform()
        start, stop = 2 * first - CONTEXT, 2 * frames + 1
        mel = self._mel
        if (missing := stop - self._mel_first - len(mel)) > 0:  # the segment ends here
            behind = np.concatenate((self._samples, TAIL))
            windows = sliding_window_view(behind, N_FFT)[::HOP][:missing]
            mel = np.concatenate((mel, log10_mel(windows).T))
        wanted = mel[max(0, start) - self._mel_first : stop - self._mel_first]
        least = np.float32(self._peak - DYNAMIC_RANGE)
        wanted = (np.maximum(wanted, least) + np.float32(4)) / np.float32(4)
        keep = max(0, start - self._mel_first)
        self._mel, self._mel_first = self._mel[keep:], self._mel_first + keep
        return np.pad(wanted, ((max(0, -start), 0), (0, 0)))

    def _transform(self) -> None:
        """Computes the mel frames of all whole windows."""
        if self._total <= HALF or len(self._samples) < N_FFT:
            return
        windows = sliding_window_view(self._samples, N_FFT)[::HOP]
        mel = log10_mel(windows).T
        self._peak = max(self._peak, float(mel.max()))
        self._mel = np.concatenate((self._mel, mel))
        self._samples = self._samples[len(windows) * HOP :].copy()
