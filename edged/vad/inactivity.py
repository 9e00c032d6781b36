"""P(nobody speaks in the next 0.5, 1.0, 2.0 s): calibrated, from all evidence of a step.

Three logistic hazards over the same features: P(silent for 0.5 s), P(silent from 0.5 to 1.0 s,
given that), P(silent from 1.0 to 2.0 s, given both). Their running product cannot rise with the
horizon. The weights are fitted by `models/turn/fit.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged.errors import ModelError
from edged.vad.text_evidence import Evidence

HORIZONS = 3
WARM_UP_S = 1.0  # silence at the very start is no evidence before this much was heard
FEATURES = (
    "bias",
    "silence_0.3",  # seconds of silence, at most 0.3: the hazard bends at these durations
    "silence_0.6",
    "silence_1",
    "silence_2",
    "silence_4",
    "speaking",  # 1 while Silero hears speech
    "nobody_yet",  # 1 before the first speech of the stream
    "voice_now",  # log odds of the step's mean probability of speech
    "voice_recent",  # the probability of speech, averaged over about half a second
    "voice_clear",  # -log(1.05 - the same over a second of speech): distant voices get lost
    "log_speech",  # log(0.3 s + speech in this turn)
    "pace",  # how many of the stream's pauses so far were short: a meeting or a command a day
    "turn_known",  # 1 if Smart Turn has answered in this pause; the next two are 0 if not
    "turn",  # log odds of its answer
    "text_known",  # 1 if the recogniser has read the words to their end; the rest is 0 if not
    "text_final",  # how surely they end like a sentence
    "text_dangling",  # their last word calls for another
    "text_end",  # log odds of the decoder's end of text
)
# What was said before a pause tells how it ends; once it has lasted, it tells nothing more.
FULL_S, FADED_S = 0.8, 2.0
_BENDS_S = (0.3, 0.6, 1.0, 2.0, 4.0)
PAUSE_S, SHORT_S = 0.3, 2.0  # what is a pause, and which one is short
FORGET = 0.9  # a pause counts this much less with each one after it
EVEN = 2.0  # pauses, half of them short, that every stream begins with


class Features:
    """The state behind the features of one stream: smoothing, and how long its pauses were."""

    def __init__(self) -> None:
        self._recent = 0.0
        self._clear = 0.9
        self._silence_s = 0.0
        self._pauses = self._short = 0.0

    def push(self, e: Evidence) -> NDArray[np.float64]:
        """float64[len(FEATURES)] of one step."""
        voice = sum(e.probabilities) / len(e.probabilities) if e.probabilities else self._recent
        self._recent += 0.15 * (voice - self._recent)
        if e.silence_s == 0.0:
            self._clear += 0.1 * (voice - self._clear)
        self._count_pause(e.silence_s)
        silence = e.heard_s if e.silence_s is None else e.silence_s
        early = min(max((FADED_S - silence) / (FADED_S - FULL_S), 0.0), 1.0)
        complete = 0.0 if e.complete is None else _log_odds(e.complete, 0.02)
        belief = e.belief
        final = 0.0 if belief is None else belief.final
        p_end = 0.5 if belief is None else belief.p_end
        return np.array(
            [
                1.0,
                *(min(silence, bend) for bend in _BENDS_S),
                e.silence_s == 0.0,
                e.silence_s is None,
                _log_odds(voice, 0.01),
                self._recent,
                -math.log(1.05 - self._clear),
                math.log(0.3 + min(e.speech_s, 10.0)),
                (self._short + EVEN / 2) / (self._pauses + EVEN) - 0.5,
                early * (e.complete is not None),
                complete * early,
                early * (belief is not None),
                final * early,
                early * (belief is not None and belief.dangling),
                early * _log_odds(p_end, 0.02),
            ]
        )

    def _count_pause(self, silence_s: float | None) -> None:
        if silence_s == 0.0 and self._silence_s >= PAUSE_S:
            self._pauses = FORGET * self._pauses + 1
            self._short = FORGET * self._short + (self._silence_s < SHORT_S)
        self._silence_s = silence_s or 0.0


@dataclass(frozen=True)
class Weights:
    """hazards: float64[3, len(FEATURES)], one row a hazard.

    For the bench: fitted_on, the speakers the weights have seen; silence_only_2s, the baseline
    fitted on the same steps, and silence_only_told_2s, on those in pauses alone
    (models/turn/scores.py).
    """

    hazards: NDArray[np.float64]
    fitted_on: tuple[str, ...] = ()
    silence_only_2s: tuple[float, ...] = ()
    silence_only_told_2s: tuple[float, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Raises ModelError for a file that is missing or fits other features."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                _rows(content["hazards"]),
                tuple(content["fitted_on"]),
                tuple(content.get("silence_only_2s", ())),
                tuple(content.get("silence_only_told_2s", ())),
            )
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ModelError(f"the turn model's weights {path} are unusable: {problem!r}") from None


def _rows(hazards: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Weights by the names of the features, none missing and none besides."""
    if len(hazards) != HORIZONS or any(set(h) != set(FEATURES) for h in hazards):
        raise ValueError(f"{HORIZONS} hazards with the weights {', '.join(FEATURES)} are due")
    rows = np.array([[float(h[name]) for name in FEATURES] for h in hazards])
    if not np.isfinite(rows).all():
        raise ValueError("a weight is not a number")
    return rows


class Inactivity:
    """One stream's probabilities."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights.hazards
        self._features = Features()

    def push(self, evidence: Evidence) -> tuple[float, float, float]:
        """P(nobody speaks in the next 0.5, 1.0, 2.0 s); 0.0 before there is evidence."""
        x = self._features.push(evidence)
        if evidence.silence_s is None and evidence.heard_s < WARM_UP_S:
            return (0.0, 0.0, 0.0)
        a, b, c = probabilities(self._weights, x)
        return (float(a), float(b), float(c))


def probabilities(hazards: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x: float64[..., features] -> float64[..., 3], not increasing along the last axis."""
    survival = 1 / (1 + np.exp(-np.clip(x @ hazards.T, -30, 30)))
    return np.asarray(np.cumprod(survival, -1), np.float64)


def _log_odds(p: float, margin: float) -> float:
    """Of p kept `margin` away from 0 and 1, so that one certain answer cannot outvote all."""
    p = min(max(p, margin), 1 - margin)
    return math.log(p / (1 - p))
