"""Audio to features, as it arrives."""

from __future__ import annotations

import numpy as np

from edged.stt.family import Floats
from edged.stt.moonshine_streaming.graphs import Graphs
from edged.stt.moonshine_streaming.specification import FRAME_SAMPLES, PIECE_SAMPLES

_MOST_SAMPLES = 50 * PIECE_SAMPLES  # of one run, which bounds its memory


class Frontend:
    """Features of one segment, a frame of 20 ms for every 320 samples.

    They are those of the whole segment, whatever the pieces in which it arrives, because the graph
    is only given multiples of 640 samples: other lengths give wrong features without an error. Each
    feature is final.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._state = graphs.sizes.first_states()
        self._names = ["features", *(f"{name}_out" for name in self._state)]
        self._waiting: list[Floats] = []
        self._pushed = 0  # samples

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1."""
        self._waiting.append(samples)
        self._pushed += len(samples)

    @property
    def frames(self) -> int:
        """How many features the audio so far gives."""
        return self._pushed // PIECE_SAMPLES * (PIECE_SAMPLES // FRAME_SAMPLES)

    def features(self, last: bool = False) -> Floats:
        """Those that are new, float32[frames, encoder_dim].

        last: no more audio comes, so that the end is padded with zeros.
        """
        audio = np.concatenate([*self._waiting, np.empty(0, np.float32)])
        if last and len(audio) % PIECE_SAMPLES:
            audio = np.pad(audio, (0, -len(audio) % PIECE_SAMPLES))
        whole = len(audio) // PIECE_SAMPLES * PIECE_SAMPLES
        self._waiting = [audio[whole:].copy()]
        parts = [np.empty((0, self._graphs.sizes.encoder_dim), np.float32)]
        for start in range(0, whole, _MOST_SAMPLES):
            piece = audio[start : min(start + _MOST_SAMPLES, whole)]
            feed = {"audio_chunk": piece[None], **self._state, **self._graphs.frontend_weights}
            features, *states = self._graphs.frontend.run(self._names, feed)
            self._state = dict(zip(self._state, states, strict=True))
            parts.append(features[0])
        return np.concatenate(parts)
