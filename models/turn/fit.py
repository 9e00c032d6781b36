"""Fits the weights of the turn model (models/inactivity.json) and draws its calibration curves.

    python -m models.turn.fit MANIFEST [--cache FILE] [--picture models/turn/calibration.png]

MANIFEST lists labelled speech; material.py says which fields are used. Every stream goes through a
session once, which takes about a sixth of its duration on one core; the evidence is kept in the
cache file. Two thirds of the speakers are fitted on; `python -m models.turn.bench_turns` prints the
figures of both parts. This program prints a cross-validation: every speaker is scored with weights
that were fitted without it. --picture needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged import resources
from edged.engine.run_stats import percentile
from edged.events import HORIZONS_S
from edged.models.loader import Models, load
from edged.options import Options
from edged.vad.endpoint import Endpoint
from edged.vad.inactivity import (
    FEATURES,
    HORIZONS,
    WARM_UP_S,
    FeatureExtractor,
    Weights,
)
from edged.vad.text_evidence import Evidence
from models.turn.evidence import (
    SessionTrace,
    close_turns,
    in_pause,
    inactivity_labels,
    rescore,
    run_session,
    silence_s,
    speech_finder,
    word_finder,
)
from models.turn.material import LabelledStream, over_telephone, read_streams
from models.turn.scores import (
    SilenceBaseline,
    Steps,
    auc,
    brier,
    calibration,
    calibration_error,
    turn_ends,
)

Floats = NDArray[np.float64]

# While evidence is collected, silence alone ends a turn, after 1.4 to 1.8 s. That is later than
# almost all pauses inside a turn, so the model does not learn from its own decisions.
COLLECTING = Options(turn_threshold=1.0, turn_silence_ms=800)
TIMER_RIDGE = 20.0  # ridge penalty of the first stage, in steps of audio
RIDGE = 300.0  # of the second stage: pulls to the weights of the first one
LEAST_SPREAD = 0.2  # least standard deviation: rare features are penalised more
REAL_SHARE = 0.5  # share of real conversations in the weight of all steps
FOLDS = 4  # of the synthetic streams' speakers; each real source is a fold of its own
TIMER = tuple(
    i
    for i, name in enumerate(FEATURES)
    if name == "bias" or name.startswith("silence_") or name in ("speaking", "nobody_yet")
)
# Features that can only raise or only lower the probability; another sign would be noise.
SIGNS = {"turn": 1, "text_final": 1, "text_end": 1, "text_dangling": -1}
_models: Models

# A stream, and two baselines fitted without it: on all steps, and on pauses alone.
Scored: TypeAlias = tuple[SessionTrace, SilenceBaseline, SilenceBaseline]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, nargs="+")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--cache", type=Path, help="file that keeps the evidence between runs")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes that run sessions")
    parser.add_argument("--out", type=Path, default=resources.models_data() / "inactivity.json")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    traces = collect(arguments.manifest, arguments.models_dir, arguments.cache, arguments.jobs)
    prepared = [prepare(one) for one in traces]
    scored = cross_validate(prepared)
    report(scored)
    write(arguments.out, fit(prepared), prepared)
    if arguments.picture:
        draw(arguments.picture, scored)
    print(f"{len(traces)} streams fitted: {arguments.out}")


def collect(
    manifests: Sequence[Path], models_dir: Path | None, cache: Path | None, jobs: int
) -> list[SessionTrace]:
    """Returns the trace of every stream, from the cache if that exists."""
    if cache and cache.exists():
        return list(pickle.loads(cache.read_bytes()))
    models = load(models_dir)
    find_speech, find_words = speech_finder(models), word_finder(models)
    streams = [s for path in manifests for s in read_streams(path, find_speech, find_words)]
    streams += [over_telephone(s) for s in [s for s in streams if not s.real][::3]]
    traces = []
    with ProcessPoolExecutor(jobs, initializer=_load, initargs=(models_dir,)) as pool:
        for number, one in enumerate(pool.map(_hear, streams), 1):
            traces.append(one)
            print(f"\r{number} of {len(streams)} streams", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if cache:
        cache.write_bytes(pickle.dumps(traces))
    return traces


def _load(models_dir: Path | None) -> None:
    global _models  # one copy in each process: models cannot be pickled
    _models = load(models_dir)


def _hear(stream: LabelledStream) -> SessionTrace:
    return run_session(_models, stream, COLLECTING)


def folds(traces: Sequence[PreparedTrace]) -> list[list[PreparedTrace]]:
    """Returns what the cross-validation leaves out together.

    Each source of real recordings is a fold; the speakers of the synthetic streams share FOLDS.
    """
    sources: dict[str, list[PreparedTrace]] = {}
    for one in traces:
        sources.setdefault(one.trace.stream.source, []).append(one)
    real = [group for group in sources.values() if group[0].trace.stream.real]
    synthetic = [group for group in sources.values() if not group[0].trace.stream.real]
    dealt = [[one for group in synthetic[n::FOLDS] for one in group] for n in range(FOLDS)]
    return [group for group in (*real, *dealt) if group]


@dataclass(frozen=True, eq=False)
class PreparedTrace:
    """A trace with everything that the fit needs of it, computed once.

    features: float64[steps, features], with and without Smart Turn and text evidence.
    labels: float64[steps, 3]. used: bool[steps], the model gives a probability and the next 0.5 s
    are known. silence_s: float64[steps]. pause: bool[steps].
    """

    trace: SessionTrace
    features: tuple[Floats, ...]
    labels: Floats
    used: NDArray[np.bool_]
    silence_s: Floats
    pause: NDArray[np.bool_]


def prepare(one: SessionTrace) -> PreparedTrace:
    features = []
    for turn in (True, False):
        for text in (True, False):
            extractor = FeatureExtractor()
            evidence = (_without(e, turn, text) for e in one.evidence)
            features.append(np.array([extractor.push(e) for e in evidence]))
    labels = inactivity_labels(one.stream, len(one.evidence))
    late = np.array([e.heard_s >= WARM_UP_S for e in one.evidence])
    return PreparedTrace(
        one,
        tuple(features),
        labels,
        late & np.isfinite(labels[:, 0]),
        silence_s(one),
        in_pause(one.stream, len(one.evidence)),
    )


def _without(e: Evidence, turn: bool, text: bool) -> Evidence:
    return replace(e, p_complete=e.p_complete if turn else None, text=e.text if text else None)


def step_weights(traces: Sequence[PreparedTrace]) -> Floats:
    """Returns the weights of the used steps, 1 on average: REAL_SHARE of all for real streams."""
    steps = {
        real: sum(int(one.used.sum()) for one in traces if one.trace.stream.real == real)
        for real in (True, False)
    }
    share = {True: REAL_SHARE, False: 1 - REAL_SHARE}
    weight = np.concatenate(
        [
            np.full(int(one.used.sum()), share[real] / steps[real])
            for one in traces
            for real in (one.trace.stream.real,)
        ]
    )
    return np.asarray(weight / weight.mean(), np.float64)


def fit(traces: Sequence[PreparedTrace]) -> Floats:
    """Returns the fitted weights, float64[3, features].

    The data are used four times, with and without Smart Turn and text evidence, so that the model
    is calibrated without them too.
    """
    variants = range(len(traces[0].features))
    x = np.concatenate([one.features[v][one.used] for v in variants for one in traces])
    y = np.tile(np.concatenate([one.labels[one.used] for one in traces]), (len(variants), 1))
    weight = np.tile(step_weights(traces), len(variants))
    hazards = []
    survived = np.ones(len(x), bool)
    for column in range(HORIZONS):
        known = survived & np.isfinite(y[:, column])
        hazards.append(_two_stages(x[known], y[known, column], weight[known]))
        survived = known & (y[:, column] == 1)
    return np.array(hazards)


def _two_stages(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Fits the silence timer, then all features with a pull to it, without those of wrong sign."""
    timer = np.zeros(len(FEATURES))
    timer[list(TIMER)] = logistic(x[:, TIMER], y, weight, TIMER_RIDGE, np.zeros(len(TIMER)))
    used = list(range(len(FEATURES)))
    while True:
        w = np.zeros(len(FEATURES))
        w[used] = logistic(x[:, used], y, weight, RIDGE, timer[used])
        wrong = [i for i, name in enumerate(FEATURES) if w[i] * SIGNS.get(name, 0) < 0]
        if not wrong:
            return w
        used = [i for i in used if i not in wrong]


def logistic(
    x: Floats, y: Floats, weight: Floats, ridge: float, pull_to: Floats, rounds: int = 30
) -> Floats:
    """Logistic regression by Newton's method with a ridge penalty; the bias has none.

    pull_to: the weights that the penalty pulls to, float64[features].
    """
    scale = np.maximum(x.std(0), LEAST_SPREAD)
    z = x / scale
    penalty = ridge * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    target = pull_to * scale
    w = target.copy()
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(z @ w, -30, 30)))
        gradient = z.T @ (weight * (p - y)) + penalty @ (w - target)
        curvature = (z * (weight * p * (1 - p))[:, None]).T @ z + penalty
        w -= np.linalg.solve(curvature, gradient)
    return np.asarray(w / scale)


def write(path: Path, hazards: Floats, fitted: Sequence[PreparedTrace]) -> None:
    """Writes the weights by name, the speakers fitted on, and the baselines on the same steps."""
    content = {
        "made_by": "models/turn/fit.py",
        "horizons_s": HORIZONS_S,
        "hazards": [
            {name: round(float(w), 4) for name, w in zip(FEATURES, row, strict=True)}
            for row in hazards
        ],
        "silence_only_2s": baseline(fitted).shares,
        "silence_only_told_2s": baseline(fitted, pauses_only=True).shares,
        "fitted_on": sorted({who for one in fitted for who in one.trace.stream.speakers}),
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def baseline(traces: Sequence[PreparedTrace], pauses_only: bool = False) -> SilenceBaseline:
    """Fits the silence baseline on the same steps, with the same weight, as the model.

    pauses_only: on steps in pauses alone, as if it knew when somebody speaks.
    """
    silence = np.concatenate([one.silence_s[one.used] for one in traces])
    paused = np.concatenate([one.pause[one.used] for one in traces])
    y = np.concatenate([one.labels[one.used] for one in traces])
    known = np.isfinite(y[:, 2]) & (paused | (not pauses_only))
    return SilenceBaseline(silence[known], y[known, 2], step_weights(traces)[known])


def cross_validate(traces: Sequence[PreparedTrace]) -> list[Scored]:
    """Scores each stream with weights and baselines that were fitted without its source."""
    scored: list[Scored] = []
    for left_out in folds(traces):
        out = {id(one) for one in left_out}
        fitted = [one for one in traces if id(one) not in out]
        weights = Weights(fit(fitted))
        timer, pause_timer = baseline(fitted), baseline(fitted, pauses_only=True)
        scored += [(rescore(one.trace, weights), timer, pause_timer) for one in left_out]
    return scored


def report(scored: Sequence[Scored]) -> None:
    """Prints the figures: of each kind of conversation, each real source, read speech and all."""
    groups: dict[str, list[Scored]] = {}
    for item in scored:
        stream = item[0].stream
        if stream.real:
            groups.setdefault("conversation", []).append(item)
            groups.setdefault(f"conversation, {stream.kind}", []).append(item)
            groups.setdefault(f"source {stream.source}", []).append(item)
        else:
            name = "read aloud" if stream.read else "commands and talk"
            groups.setdefault(f"synthetic, {name}", []).append(item)
        groups.setdefault("all", []).append(item)
    for name in sorted(groups):
        print(f"{name}: {_summary(groups[name])}; {_ends([one for one, _, _ in groups[name]])}")


def _ends(scored: Sequence[SessionTrace]) -> str:
    ends = turn_ends([close_turns(one, Endpoint()) for one in scored])
    median, late = (percentile(ends.delays_s, q) or math.nan for q in (50, 90))
    return (
        f"turn end to `turn` {median:.2f} / {late:.2f} s in median / p90,"
        f" {ends.missed} of {len(ends.delays_s) + ends.missed} ends missed,"
        f" {ends.cut} of {ends.inner} inner pauses cut"
        f" and {ends.cut_between} of {ends.between} between sentences,"
        f" a word or two {percentile(ends.short_s, 50) or math.nan:.2f} s ({len(ends.short_s)})"
    )


def _summary(scored: Sequence[Scored]) -> str:
    steps = Steps.of([one for one, _, _ in scored])
    silence = [Steps.of([one]).silence_s for one, _, _ in scored]
    timer = np.concatenate([hazard(s) for (_, hazard, _), s in zip(scored, silence, strict=True)])
    known_pauses = np.concatenate(
        [hazard(s) for (_, _, hazard), s in zip(scored, silence, strict=True)]
    )
    paused = steps.pause & np.isfinite(steps.y[:, 2])
    p, y, sudden = steps.p[paused, 2], steps.y[paused, 2], steps.sudden[paused]
    # An upper bound: a predictor that knows at once whether a pause is a turn's end. Of two
    # silences after a turn the younger one is farther from the next speech.
    ideal = steps.over[paused] - 1e-3 * steps.silence_s[paused]
    errors = [
        calibration_error(steps.p[known, column], steps.y[known, column])
        for column, known in enumerate(np.isfinite(steps.y).T)
    ]
    return (
        f"{len(y)} steps in pauses, Brier score at 2 s {brier(p, y):.3f}"
        f" (silence alone {brier(timer[paused], y):.3f},"
        f" pauses known {brier(known_pauses[paused], y):.3f}),"
        f" ROC area {auc(p, y):.3f} ({auc(timer[paused], y):.3f}; without the last 2 s before a"
        f" turn {auc(p[~sudden], y[~sudden]):.3f}; of an ideal predictor"
        f" {auc(ideal, y):.3f}),"
        f" calibration errors {', '.join(f'{e:.3f}' for e in errors)}"
    )


def draw(path: Path, scored: Sequence[Scored]) -> None:
    """Draws the cross-validated calibration curves of conversation and of synthetic streams."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, HORIZONS, figsize=(11, 4), sharey=True)
    parts = {
        name: Steps.of([one for one, _, _ in scored if one.stream.real == real])
        for name, real in (("conversation", True), ("synthetic", False))
    }
    for column, (axis, horizon) in enumerate(zip(axes, HORIZONS_S, strict=True)):
        axis.plot([0, 1], [0, 1], color="0.8")
        for name, steps in parts.items():
            known = np.isfinite(steps.y[:, column])
            p, y = steps.p[known, column], steps.y[known, column]
            curve = calibration(p, y)
            label = f"{name}, ECE {calibration_error(p, y):.3f}"
            axis.plot([c[0] for c in curve], [c[1] for c in curve], marker="o", label=label)
        axis.set(title=f"next {horizon} s", xlabel="inactivity_prob")
        axis.legend(fontsize=8, loc="upper left")
    axes[0].set_ylabel("share of steps after which nobody spoke")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
