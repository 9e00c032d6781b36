"""The power of a segment's audio over time."""

from __future__ import annotations

import numpy as np

from edged.stt.family import RATE, Floats

WINDOW = 320  # samples of 16 kHz, 20 ms


class FramePower:
    """Mean power of each 20 ms of audio. Audio is pushed in pieces of any size."""

    def __init__(self, samples: Floats | None = None) -> None:
        """samples: the first audio, float32[any], 16 kHz."""
        self._rest = np.empty(0, np.float32)  # samples that do not fill a window yet
        self._powers: list[float] = []
        if samples is not None:
            self.push(samples)

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1."""
        samples = np.concatenate((self._rest, samples))
        whole = len(samples) // WINDOW * WINDOW
        windows = samples[:whole].reshape(-1, WINDOW)
        self._powers += np.square(windows).mean(1).tolist()
        self._rest = samples[whole:]

    def peak(self, start_s: float, stop_s: float) -> float:
        """The highest power of a window that begins between these times; 0 if there is none."""
        first, last = int(start_s * RATE / WINDOW), int(stop_s * RATE / WINDOW)
        return max(self._powers[max(0, first) : last + 1], default=0.0)
