"""Silero VAD: the probability of speech, one for every 32 ms of audio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime as ort

RATE = 16_000
WINDOW = 512  # samples the model judges at once: 32 ms
CONTEXT = 64  # samples of the past in front of them: the network hears nothing when fed without
_MOST_WINDOWS = 16  # judged at once: a long push needs no more memory than a short one


class Silero:
    """One stream's state around the shared, stateless network.

    An 80 ms step is 2.5 windows, so every second step gives two probabilities and the others
    three; the half window left over waits for the next step.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next sample is the first."""
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._heard = np.zeros(CONTEXT, np.float32)  # the context, then what is not judged yet

    def push(self, x: NDArray[np.float32]) -> list[float]:
        """float32[n], 16 kHz, -1..1 (a step is 1280) -> P(speech) of each window completed."""
        self._heard = np.concatenate((self._heard, x))
        probabilities: list[float] = []
        while (new := (len(self._heard) - CONTEXT) // WINDOW) > 0:
            probabilities += self._judge(min(new, _MOST_WINDOWS))
        return probabilities

    def _judge(self, count: int) -> list[float]:
        starts = range(0, count * WINDOW, WINDOW)
        windows = np.stack([self._heard[start : start + CONTEXT + WINDOW] for start in starts])
        feeds = {"input": windows, "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, feeds)
        self._heard = self._heard[count * WINDOW :]
        return [float(p) for p in probabilities]
