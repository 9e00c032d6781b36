"""Silero VAD: the probability of speech, one for every 32 ms of audio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime as ort

RATE = 16_000
WINDOW = 512  # samples that one probability stands for: 32 ms
CONTEXT = 64  # samples before a window that the network needs in front of it
_MAX_WINDOWS = 16  # judged in one run, so that a long push needs no more memory than a short one


class VoiceDetector(Protocol):
    """A stream's voice activity detector, as a Session uses it."""

    def push(self, x: NDArray[np.float32]) -> list[float]:
        """float32[n], 16 kHz, -1..1 -> P(speech) of each window of 32 ms that is now complete."""


class Silero:
    """One stream's state for Silero's network, which has none and is shared by all streams.

    A step of 80 ms is 2.5 windows, so steps give two and three probabilities in turn. The half
    window that is left over waits for the next step.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.reset()

    def reset(self) -> None:
        """Forgets the stream: the next sample is the first one."""
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._pending = np.zeros(CONTEXT, np.float32)  # the context, then incomplete windows

    def push(self, x: NDArray[np.float32]) -> list[float]:
        """float32[n], 16 kHz, -1..1 -> P(speech) of each window of 32 ms that is now complete."""
        self._pending = np.concatenate((self._pending, x))
        probabilities: list[float] = []
        while (complete := (len(self._pending) - CONTEXT) // WINDOW) > 0:
            probabilities += self._judge(min(complete, _MAX_WINDOWS))
        return probabilities

    def _judge(self, count: int) -> list[float]:
        starts = range(0, count * WINDOW, WINDOW)
        windows = np.stack([self._pending[start : start + CONTEXT + WINDOW] for start in starts])
        feeds = {"input": windows, "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, feeds)
        self._pending = self._pending[count * WINDOW :]
        return [float(p) for p in probabilities]
