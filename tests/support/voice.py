"""Voice detectors for sessions under test, in place of Silero alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edged.vad.gate import WINDOW_S
from edged.vad.silero import WINDOW, VoiceDetector


class ScaledVoice:
    """A voice detector whose probabilities are multiplied by `factor`, which may change."""

    def __init__(self, detector: VoiceDetector, factor: float) -> None:
        self.detector = detector
        self.factor = factor

    def push(self, x: NDArray[np.float32]) -> list[float]:
        return [self.factor * p for p in self.detector.push(x)]


class ScriptedVoice:
    """A voice detector that takes its probabilities from a function of the stream's time."""

    def __init__(self, probability: Callable[[float], float]) -> None:
        """probability: of speech in the window that begins at that second."""
        self.probability = probability
        self._samples = self._windows = 0

    def push(self, x: NDArray[np.float32]) -> list[float]:
        self._samples += len(x)
        first, self._windows = self._windows, self._samples // WINDOW
        return [self.probability(n * WINDOW_S) for n in range(first, self._windows)]
