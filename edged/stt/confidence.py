"""Whether a text is more likely invented than spoken, by the probabilities of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ConfidenceBounds:
    """The mean token probability below which a text is more likely invented than spoken.

    short_tokens, short_p: texts of up to so many tokens need this probability.
    long_tokens, long_p: texts of so many tokens and more need this one; linear in between.
    voice_weight: how much more is needed per unit of uncertainty that there is a voice at all.
    """

    short_tokens: int = 8
    short_p: float = 0.42
    long_tokens: int = 20
    long_p: float = 0.33
    voice_weight: float = 1.5

    def needed_p(self, tokens: int, voice_uncertainty: float = 0.0) -> float:
        """The mean probability that a text of `tokens` tokens needs."""
        by_length = np.interp(
            tokens, (self.short_tokens, self.long_tokens), (self.short_p, self.long_p)
        )
        return float(by_length) + self.voice_weight * voice_uncertainty


DEFAULT_CONFIDENCE = ConfidenceBounds()


def low_confidence(
    probabilities: Sequence[float],
    voice_uncertainty: float = 0.0,
    bounds: ConfidenceBounds = DEFAULT_CONFIDENCE,
) -> bool:
    """Whether text with these token probabilities is more likely invented than spoken.

    voice_uncertainty: of the voice gate (`edged.vad.gate.Gate.voice_uncertainty`).
    """
    needed = bounds.needed_p(len(probabilities), voice_uncertainty)
    return mean_probability(probabilities) < needed


def mean_probability(probabilities: Sequence[float]) -> float:
    """Geometric mean, 0..1; 1.0 for no tokens."""
    if not probabilities:
        return 1.0
    return math.exp(math.fsum(math.log(max(p, 1e-9)) for p in probabilities) / len(probabilities))
