"""Voice detectors for sessions under test, in place of Silero alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edged.vad.silero import VoiceDetector


class ScaledVoice:
    """A voice detector whose probabilities are multiplied by `factor`, which may change."""

    def __init__(self, detector: VoiceDetector, factor: float) -> None:
        self.detector = detector
        self.factor = factor

    def push(self, x: NDArray[np.float32]) -> list[float]:
        return [self.factor * p for p in self.detector.push(x)]
