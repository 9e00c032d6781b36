"""Scores inactivity probabilities and turn ends. Pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edged import STEP_S
from edged.vad.inactivity import WARM_UP_S
from models.turn.evidence import SessionTrace, in_pause, inactivity_labels, next_speech_s, silence_s
from models.turn.material import LabelledStream, Span

Floats = NDArray[np.float64]

_EDGES_S = (0.001, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0)
SHORT_S = 1.0  # a turn with less speech than this has a word or two
EARLY_S = 0.3  # labelled speech ends are up to this late


def brier(p: Floats, y: Floats) -> float:
    """Returns the mean squared error of probabilities `p` against outcomes `y` (0 or 1)."""
    return float(np.mean((p - y) ** 2)) if len(y) else math.nan


def calibration(p: Floats, y: Floats, bins: int = 10) -> list[tuple[float, float, int]]:
    """Returns (mean probability, observed share, count) of each bin that is not empty."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    return [
        (float(p[place == b].mean()), float(y[place == b].mean()), int((place == b).sum()))
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_error(p: Floats, y: Floats) -> float:
    """Returns the expected calibration error over ten equal bins (Naeini et al., 2015)."""
    curve = calibration(p, y)
    return (
        sum(n * abs(predicted - seen) for predicted, seen, n in curve) / len(y)
        if len(y)
        else math.nan
    )


def auc(p: Floats, y: Floats) -> float:
    """Returns the area under the ROC curve: how often a 1 gets more than a 0. Ties count half."""
    positives = int((y == 1).sum())
    negatives = len(y) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    rank_sum = float(ranks[y == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


class SilenceBaseline:
    """A baseline: P(nobody speaks for 2 s) from the duration of the silence alone.

    It gives the observed share in each bin of silence duration. No other function of the duration
    does better on the data it was fitted on, up to the width of the bins.
    """

    def __init__(self, silence_s: Floats, y: Floats, weight: Floats) -> None:
        place = self._place(silence_s)
        bins = range(len(_EDGES_S) + 1)
        overall = float(np.average(y, weights=weight))
        self._shares = np.array(
            [
                float(np.average(y[place == b], weights=weight[place == b]))
                if (place == b).any()
                else overall
                for b in bins
            ]
        )

    @classmethod
    def of(cls, shares: Sequence[float]) -> SilenceBaseline:
        """Makes a baseline from shares that were fitted before."""
        hazard = cls.__new__(cls)
        hazard._shares = np.array(shares)
        return hazard

    @property
    def shares(self) -> list[float]:
        return [round(float(share), 4) for share in self._shares]

    def __call__(self, silence_s: Floats) -> Floats:
        return np.asarray(self._shares[self._place(silence_s)], np.float64)

    @staticmethod
    def _place(silence_s: Floats) -> NDArray[np.intp]:
        return np.searchsorted(_EDGES_S, silence_s, side="right")


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of several streams, as arrays.

    p, y: float64[n, 3], probabilities and labels of the three horizons.
    silence_s: float64[n], duration of the silence so far.
    pause: bool[n], in a pause.
    over: bool[n], the turn is over.
    sudden: bool[n], the turn is over and the next one begins within 2 s, which nobody can foresee.
    """

    p: Floats
    y: Floats
    silence_s: Floats
    pause: Floats
    over: Floats
    sudden: Floats

    @classmethod
    def of(cls, traces: Sequence[SessionTrace]) -> Steps:
        """Takes the steps that have a probability and a known label, of 0.5 s at least."""
        p = np.concatenate([one.inactivity for one in traces])
        y = np.concatenate([inactivity_labels(one.stream, len(one.evidence)) for one in traces])
        pause = np.concatenate([in_pause(one.stream, len(one.evidence)) for one in traces])
        silence = np.concatenate([silence_s(one) for one in traces])
        over = np.concatenate([_is_over(one.stream, len(one.evidence)) for one in traces])
        opinion = [
            e.silence_s is not None or e.heard_s >= WARM_UP_S
            for one in traces
            for e in one.evidence
        ]
        kept = np.isfinite(y[:, 0]) & np.array(opinion)
        sudden = over & (y[:, 2] == 0)
        return cls(p[kept], y[kept], silence[kept], pause[kept], over[kept], sudden[kept])


def _is_over(stream: LabelledStream, steps: int) -> NDArray[np.bool_]:
    """bool[steps]: the step ends in the silence after a turn."""
    times = (np.arange(steps) + 1) * STEP_S
    over = np.zeros(steps, bool)
    for end in stream.ends:
        over |= (times > end) & (times <= next_speech_s(stream.speech, end + 0.001))
    return over


@dataclass(frozen=True, slots=True)
class TurnEnds:
    """How labelled turn ends and pauses were treated.

    delays_s: seconds from a turn's end to its `turn`.
    missed: turn ends without a `turn` before the next speech.
    cut, inner: pauses inside a turn in which a `turn` was given, and all such pauses.
    short_s: the delays of turns with a word or two.
    cut_between, between: as cut and inner, for pauses between two sentences of a turn.
    """

    delays_s: tuple[float, ...]
    missed: int
    cut: int
    inner: int
    short_s: tuple[float, ...] = ()
    cut_between: int = 0
    between: int = 0


def turn_ends(traces: Sequence[SessionTrace]) -> TurnEnds:
    """Compares the given turns with the labelled turn ends and pauses."""
    delays: list[float] = []
    short: list[float] = []
    missed = 0
    for one in traces:
        stream = one.stream
        for before, end in pairwise((-math.inf, *stream.ends)):
            following = min(next_speech_s(stream.speech, end + 0.001), stream.known_s)
            given = [c for c in one.closed_s if end - EARLY_S <= c < following]
            delays += [max(0.0, given[0] - end)] if given else []
            missed += not given
            if sum(b - a for a, b in stream.speech if before < a < end) < SHORT_S:
                short += delays[-1:] if given else []
    inner = [_is_cut(one, pause) for one in traces for pause in one.stream.inner]
    between = [_is_cut(one, pause) for one in traces for pause in one.stream.between]
    return TurnEnds(
        tuple(delays), missed, sum(inner), len(inner), tuple(short), sum(between), len(between)
    )


def _is_cut(one: SessionTrace, pause: Span) -> bool:
    return any(pause[0] <= closed <= pause[1] for closed in one.closed_s)
