"""Corrects the turn model's hazards for one stream, by what was heard after its predictions.

How often a pause goes on differs between streams far more than the turn model's features tell: in a
meeting nearly every silence is short, on one side of a telephone call nearly every silence is long.
The voice detector shows, two seconds later at most, whether somebody spoke again. So each hazard
has a bias that is learned while the stream runs, by online logistic regression.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edged import STEP_S
from edged.events import HORIZONS_S

LEARNING_RATE = 0.05  # change of the log odds for one step that was predicted entirely wrongly
MAX_BIAS = 2.0  # log odds
EARLY_S = 0.8  # silence up to which a pause is young; young and old pauses have their own biases
# Only steps with at most this much silence are learned from. Otherwise an hour in which nobody
# speaks would outweigh every pause of the conversation before.
MAX_SILENCE_S = 4.0

# The horizons in steps, and where the interval of each hazard begins.
_STOPS = tuple(int(horizon / STEP_S) for horizon in HORIZONS_S)
_STARTS = (0, *_STOPS[:-1])

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Prediction:
    """One past step. survival: float64[3], the predicted hazards' complements."""

    speaking: bool
    learnable: bool
    early: bool
    survival: Floats


class OnlineCalibration:
    """The biases of one stream. `push` takes the steps in order."""

    def __init__(self) -> None:
        self._biases = {True: np.zeros(len(HORIZONS_S)), False: np.zeros(len(HORIZONS_S))}
        self._past: deque[_Prediction] = deque(maxlen=_STOPS[-1] + 1)

    def push(self, log_odds: Floats, silence_s: float | None) -> Floats:
        """Corrects one step.

        log_odds: float64[3], of the turn model: that nobody speaks in the next 0.5 s, from there to
            1.0 s, and from there to 2.0 s, each given that nobody spoke before.
        silence_s: seconds since the last speech; 0 while somebody speaks, None before any speech.
        Returns float64[3], the corrected probabilities.
        """
        speaking = silence_s == 0.0
        early = silence_s is not None and silence_s < EARLY_S
        in_pause = silence_s is not None and not speaking
        corrected = log_odds + self._biases[early] if in_pause else log_odds
        survival = np.asarray(1 / (1 + np.exp(-np.clip(corrected, -30, 30))), np.float64)
        learnable = in_pause and silence_s is not None and silence_s <= MAX_SILENCE_S
        self._past.append(_Prediction(speaking, learnable, early, survival))
        for hazard in range(len(HORIZONS_S)):
            self._learn(hazard)
        return survival

    def _learn(self, hazard: int) -> None:
        """Learns from the step whose interval for this hazard has just ended."""
        start, stop = _STARTS[hazard], _STOPS[hazard]
        now = len(self._past) - 1
        if now < stop or not (step := self._past[now - stop]).learnable:
            return
        following = [self._past[n].speaking for n in range(now - stop + 1, now + 1)]
        if any(following[:start]):
            return  # somebody spoke earlier: this says nothing about this hazard
        outcome = 0.0 if any(following[start:]) else 1.0
        biases = self._biases[step.early]
        bias = biases[hazard] + LEARNING_RATE * (outcome - step.survival[hazard])
        biases[hazard] = min(max(bias, -MAX_BIAS), MAX_BIAS)
