"""P(nobody speaks in the next 0.5, 1.0, 2.0 s): calibrated, from all evidence of a step.

The model is three logistic hazards over the same features: P(silent for 0.5 s), P(silent from 0.5
to 1.0 s, given that), P(silent from 1.0 to 2.0 s, given both). Their running product cannot rise
with the horizon. `models/turn/fit.py` fits the weights.
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
from edged.vad.online_calibration import OnlineCalibration
from edged.vad.text_evidence import Evidence

HORIZONS = 3
WARM_UP_S = 1.0  # silence at the start of a stream is no evidence before this much was heard
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
    "voice_clear",  # -log(1.05 - the same over a second of speech): a distant voice is less clear
    "log_speech",  # log(0.3 s + speech in this turn)
    "turn_known",  # 1 if Smart Turn has answered in this pause; if not, the next one is 0
    "turn",  # log odds of its answer
    "text_known",  # 1 if the recogniser decoded the words to their end; if not, the rest is 0
    "text_final",  # probability of a mark that ends the words like a sentence
    "text_dangling",  # 1 if their last word calls for another one
    "text_end",  # log odds of the decoder's end of text
)
# The words before a pause tell how it ends, but less and less while it lasts: fully until FULL_S
# of silence, and nothing after FADED_S.
FULL_S, FADED_S = 0.8, 2.0
_SILENCE_CAPS_S = (0.3, 0.6, 1.0, 2.0, 4.0)


class FeatureExtractor:
    """Computes the features of one stream: keeps the smoothed voice."""

    def __init__(self) -> None:
        self._voice_recent = 0.0
        self._voice_clear = 0.9

    def push(self, e: Evidence) -> NDArray[np.float64]:
        """Returns float64[len(FEATURES)] for one step."""
        voice = (
            sum(e.probabilities) / len(e.probabilities) if e.probabilities else self._voice_recent
        )
        self._voice_recent += 0.15 * (voice - self._voice_recent)
        if e.silence_s == 0.0:
            self._voice_clear += 0.1 * (voice - self._voice_clear)
        silence = e.heard_s if e.silence_s is None else e.silence_s
        early = min(max((FADED_S - silence) / (FADED_S - FULL_S), 0.0), 1.0)
        complete = 0.0 if e.p_complete is None else _log_odds(e.p_complete, 0.02)
        p_final = 0.0 if e.text is None else e.text.p_final
        p_end = 0.5 if e.text is None else e.text.p_end
        return np.array(
            [
                1.0,
                *(min(silence, cap) for cap in _SILENCE_CAPS_S),
                e.silence_s == 0.0,
                e.silence_s is None,
                _log_odds(voice, 0.01),
                self._voice_recent,
                -math.log(1.05 - self._voice_clear),
                math.log(0.3 + min(e.speech_s, 10.0)),
                early * (e.p_complete is not None),
                complete * early,
                early * (e.text is not None),
                p_final * early,
                early * (e.text is not None and e.text.dangling),
                early * _log_odds(p_end, 0.02),
            ]
        )


@dataclass(frozen=True)
class Weights:
    """The fitted model.

    hazards: float64[3, len(FEATURES)], one row for each hazard.

    Used by `make bench-turns` only (models/turn/scores.py):

    fitted_on: the speakers that the weights were fitted on.
    silence_only_2s: a baseline that knows the silence alone, fitted on the same steps.
    silence_only_told_2s: the same, fitted on the steps in pauses.
    """

    hazards: NDArray[np.float64]
    fitted_on: tuple[str, ...] = ()
    silence_only_2s: tuple[float, ...] = ()
    silence_only_told_2s: tuple[float, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Raises ModelError if the file is missing or is for other features."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                _rows(content["hazards"]),
                tuple(content["fitted_on"]),
                tuple(content.get("silence_only_2s", ())),
                tuple(content.get("silence_only_told_2s", ())),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"the turn model's weights {path} are unusable: {error!r}") from None


def _rows(hazards: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Weights in the order of FEATURES. Raises ValueError unless there is one for each of them."""
    if len(hazards) != HORIZONS or any(set(h) != set(FEATURES) for h in hazards):
        raise ValueError(f"expected {HORIZONS} hazards with the weights {', '.join(FEATURES)}")
    rows = np.array([[float(h[name]) for name in FEATURES] for h in hazards])
    if not np.isfinite(rows).all():
        raise ValueError("a weight is not a finite number")
    return rows


class Inactivity:
    """The probabilities of one stream."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights.hazards
        self._features = FeatureExtractor()
        self._calibration = OnlineCalibration()

    def push(self, evidence: Evidence) -> tuple[float, float, float]:
        """Returns P(nobody speaks in the next 0.5, 1.0, 2.0 s); 0.0 before there is evidence."""
        x = self._features.push(evidence)
        survival = self._calibration.push(self._weights @ x, evidence.silence_s)
        if evidence.silence_s is None and evidence.heard_s < WARM_UP_S:
            return (0.0, 0.0, 0.0)
        a, b, c = np.cumprod(survival)
        return (float(a), float(b), float(c))


def _log_odds(p: float, margin: float) -> float:
    """Log odds of p kept `margin` away from 0 and 1: no single certain answer outvotes the rest."""
    p = min(max(p, margin), 1 - margin)
    return math.log(p / (1 - p))
