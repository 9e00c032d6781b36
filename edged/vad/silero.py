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


class Silero:
    """One stream's state around the shared, stateless network.

    An 80 ms step is 2.5 windows, so every second step gives two probabilities and the others
    three; the half window left over waits for the next step.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._rate = np.array(RATE, np.int64)
        self._input = np.zeros((1, CONTEXT + WINDOW), np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next sample is the first."""
        self._state = np.zeros((2, 1, 128), np.float32)
        self._input[:] = 0
        self._filled = 0  # samples of the current window that have arrived

    def push(self, x: NDArray[np.float32]) -> list[float]:
        """float32[n], 16 kHz, -1..1 (a step is 1280) -> P(speech) of each window completed."""
        probabilities: list[float] = []
        window = self._input[0, CONTEXT:]
        while len(x):
            take = min(WINDOW - self._filled, len(x))
            window[self._filled : self._filled + take] = x[:take]
            self._filled += take
            x = x[take:]
            if self._filled == WINDOW:
                probabilities.append(self._judge())
        return probabilities

    def _judge(self) -> float:
        feeds = {"input": self._input, "state": self._state, "sr": self._rate}
        probability, self._state = self._session.run(None, feeds)
        self._input[0, :CONTEXT] = self._input[0, -CONTEXT:]
        self._filled = 0
        return float(probability[0, 0])
