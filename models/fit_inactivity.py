"""Fits the weights of the turn model (models/inactivity.json) and draws its calibration curve.

    python models/fit_inactivity.py MANIFEST [--cache FILE] [--picture models/inactivity.png]

MANIFEST lists labelled speech (edged/bench/turn_material.py says which fields count). Every
stream goes through a real session, which takes about a sixth of its duration on one core, once:
the evidence is kept in the cache file. Two thirds of the speakers are fitted on; `edged bench
turns --manifest MANIFEST` prints the figures of both parts. What is printed here is a
cross-validation: every speaker is judged by weights that were fitted without it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged.bench.turn_evidence import (
    Heard,
    close,
    hear,
    in_pause,
    judge,
    listener,
    reader,
    silence_s,
    truth,
)
from edged.bench.turn_material import Stream, read_streams
from edged.bench.turn_scores import (
    SilenceHazard,
    Steps,
    auc,
    brier,
    calibration,
    calibration_error,
    turn_ends,
)
from edged.engine.run_stats import percentile
from edged.events import HORIZONS_S
from edged.models.loader import Models, load
from edged.options import Options
from edged.vad.endpoint import Endpoint
from edged.vad.inactivity import FEATURES, HORIZONS, WARM_UP_S, Features, Weights, probabilities
from edged.vad.text_evidence import Evidence

Floats = NDArray[np.float64]

# While evidence is collected, silence alone ends a turn, after 1.4 to 1.8 s: later than almost all
# pauses inside one, and about as late as the model's own decisions, which it must not learn from.
COLLECTING = Options(turn_threshold=1.0, turn_silence_ms=800)
RIDGE = 100.0  # pull of the weights to zero, in steps of audio
RARE = 0.2  # least spread that a feature counts as having: what is seldom seen is pulled harder
REAL_SHARE = 0.2  # of the weight of all steps, that real conversations have together
FOLDS = 5
# What can only speak for an end, or only against it: another sign is the noise of few examples.
SIGNS = {"turn": 1, "text_final": 1, "text_end": 1, "text_dangling": -1}
_models: Models

# A stream, and what the two baselines that were fitted without it say: the timer, and the timer
# that is told what is a pause.
Judged: TypeAlias = tuple[Heard, SilenceHazard, SilenceHazard]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--cache", type=Path, help="where the evidence of the sessions is kept")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run sessions")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("inactivity.json"))
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    heard = collect(arguments.manifest, arguments.models_dir, arguments.cache, arguments.jobs)
    fitted, unseen = split(heard)
    cross_validate(heard)
    hazards = fit(fitted)
    write(arguments.out, hazards, fitted)
    if arguments.picture:
        draw(arguments.picture, hazards, fitted, unseen)
    print(f"{len(fitted)} streams fitted, {len(unseen)} left to test: {arguments.out}")


def collect(manifest: Path, models_dir: Path | None, cache: Path | None, jobs: int) -> list[Heard]:
    """The evidence of every stream, from the cache where that exists."""
    if cache and cache.exists():
        return list(pickle.loads(cache.read_bytes()))
    models = load(models_dir)
    streams = read_streams(manifest, listener(models), reader(models))
    heard = []
    with ProcessPoolExecutor(jobs, initializer=_load, initargs=(models_dir,)) as pool:
        for number, one in enumerate(pool.map(_hear, streams), 1):
            heard.append(one)
            print(f"\r{number} of {len(streams)} streams", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if cache:
        cache.write_bytes(pickle.dumps(heard))
    return heard


def _load(models_dir: Path | None) -> None:
    global _models  # of this process: they cannot be sent to it
    _models = load(models_dir)


def _hear(stream: Stream) -> Heard:
    return hear(_models, stream, COLLECTING)


def split(heard: Sequence[Heard]) -> tuple[list[Heard], list[Heard]]:
    """Two parts that share no speaker: to fit on, and every third group to test on.

    A group is who speaks together. Those with the most real pauses, then those with the most
    audio, are dealt out first, so that both parts have some of each.
    """
    groups = speaker_groups(heard)
    fitted = [one for i, group in enumerate(groups) if i % 3 != 2 for one in group]
    return fitted, [one for group in groups[2::3] for one in group]


def speaker_groups(heard: Sequence[Heard]) -> list[list[Heard]]:
    groups: list[tuple[set[str], list[Heard]]] = []
    for one in heard:
        mine, streams = set(one.stream.speakers), [one]
        apart = []
        for speakers, others in groups:
            if mine & speakers:
                mine, streams = mine | speakers, others + streams
            else:
                apart.append((speakers, others))
        groups = [*apart, (mine, streams)]
    groups.sort(
        key=lambda group: (
            -_real_pauses(group[1]),
            -sum(one.stream.known_s for one in group[1]),
            min(group[0]),
        )
    )
    return [streams for _, streams in groups]


def _real_pauses(heard: Sequence[Heard]) -> int:
    real = [one for one in heard if one.stream.real]
    return sum(int(in_pause(one.stream, len(one.evidence)).sum()) for one in real)


def rows(
    heard: Sequence[Heard], turn: bool = True, text: bool = True
) -> tuple[Floats, Floats, Floats]:
    """Features [n, f], labels [n, 3] and weights [n] of all steps with a known future.

    turn, text: with what Smart Turn and the recogniser say, or as on a board without.
    """
    xs, ys, ws = [], [], []
    steps = {
        real: sum(len(h.evidence) for h in heard if h.stream.real == real) for real in (True, False)
    }
    for one in heard:
        features = Features()
        x = np.array([features.push(_less(e, turn, text)) for e in one.evidence])
        used = _used(one)
        xs.append(x[used])
        ys.append(truth(one.stream, len(x))[used])
        share = REAL_SHARE if one.stream.real else 1 - REAL_SHARE
        ws.append(np.full(int(used.sum()), share / steps[one.stream.real]))
    weight = np.concatenate(ws)
    return np.concatenate(xs), np.concatenate(ys), weight / weight.mean()


def _used(one: Heard) -> NDArray[np.bool_]:
    """bool[steps]: where the model has an opinion and the next 0.5 s are known."""
    late = np.array([e.heard_s >= WARM_UP_S for e in one.evidence])
    return late & np.isfinite(truth(one.stream, len(late))[:, 0])


def _less(e: Evidence, turn: bool, text: bool) -> Evidence:
    return replace(e, complete=e.complete if turn else None, belief=e.belief if text else None)


def fit(heard: Sequence[Heard]) -> Floats:
    """float64[3, features]. The data come four times: with all evidence and without some, so
    that the model is calibrated, too, where Smart Turn or the recogniser is silent."""
    parts = [rows(heard, turn, text) for turn in (True, False) for text in (True, False)]
    x, y, weight = (np.concatenate([part[i] for part in parts]) for i in range(3))
    hazards = []
    survived = np.ones(len(x), bool)
    for column in range(HORIZONS):
        known = survived & np.isfinite(y[:, column])
        hazards.append(_signed(x[known], y[known, column], weight[known]))
        survived = known & (y[:, column] == 1)
    return np.array(hazards)


def _signed(x: Floats, y: Floats, weight: Floats) -> Floats:
    """A logistic fit without the features whose weight has a sign that makes no sense."""
    used = list(range(len(FEATURES)))
    while True:
        w = np.zeros(len(FEATURES))
        w[used] = logistic(x[:, used], y, weight)
        wrong = [i for i, name in enumerate(FEATURES) if w[i] * SIGNS.get(name, 0) < 0]
        if not wrong:
            return w
        used = [i for i in used if i not in wrong]


def logistic(x: Floats, y: Floats, weight: Floats, rounds: int = 30) -> Floats:
    """Ridge logistic regression by Newton's method; the bias is not pulled."""
    scale = np.maximum(x.std(0), RARE)
    z = x / scale
    pull = RIDGE * np.eye(x.shape[1])
    pull[0, 0] = 1e-6
    w = np.zeros(x.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-z @ w))
        gradient = z.T @ (weight * (p - y)) + pull @ w
        curvature = (z * (weight * p * (1 - p))[:, None]).T @ z + pull
        w -= np.linalg.solve(curvature, gradient)
    return np.asarray(w / scale)


def write(path: Path, hazards: Floats, fitted: Sequence[Heard]) -> None:
    """The weights by name, whom they have seen, and the baseline fitted on the same steps."""
    content = {
        "made_by": "models/fit_inactivity.py",
        "horizons_s": HORIZONS_S,
        "hazards": [
            {name: round(float(w), 4) for name, w in zip(FEATURES, row, strict=True)}
            for row in hazards
        ],
        "silence_only_2s": baseline(fitted).shares,
        "silence_only_told_2s": baseline(fitted, told=True).shares,
        "fitted_on": sorted({who for one in fitted for who in one.stream.speakers}),
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def baseline(heard: Sequence[Heard], told: bool = False) -> SilenceHazard:
    """Fitted as the weights are: on the same steps, of the same weight.

    told: on the steps in pauses alone, as if it knew when somebody speaks.
    """
    silence = np.concatenate([silence_s(one)[_used(one)] for one in heard])
    paused = np.concatenate([in_pause(one.stream, len(one.evidence))[_used(one)] for one in heard])
    _, y, weight = rows(heard)
    known = np.isfinite(y[:, 2]) & (paused | (not told))
    return SilenceHazard(silence[known], y[known, 2], weight[known])


def cross_validate(heard: Sequence[Heard]) -> None:
    """Prints the figures of all speakers, each judged by weights that were fitted without it."""
    groups = speaker_groups(heard)
    judged: list[Judged] = []
    for fold in range(FOLDS):
        fitted = [one for i, group in enumerate(groups) if i % FOLDS != fold for one in group]
        hazards, timer, told = fit(fitted), baseline(fitted), baseline(fitted, told=True)
        left_out = [one for group in groups[fold::FOLDS] for one in group]
        judged += [(judge(one, Weights(hazards)), timer, told) for one in left_out]
    for name, chosen in (
        ("real", [one for one in judged if one[0].stream.real]),
        ("read aloud", [one for one in judged if one[0].stream.read]),
        (
            "commands and talk",
            [one for one in judged if not (one[0].stream.read or one[0].stream.real)],
        ),
        ("all", judged),
    ):
        print(f"{name}: {_summary(chosen)}; {_ends([one for one, _, _ in chosen])}")


def _ends(judged: Sequence[Heard]) -> str:
    ends = turn_ends([close(one, Endpoint()) for one in judged])
    median, late = (percentile(ends.delays_s, q) for q in (50, 90))
    return (
        f"turn end to `turn` {median:.2f} / {late:.2f} s in median / p90,"
        f" {ends.missed} of {len(ends.delays_s) + ends.missed} ends missed,"
        f" {ends.cut} of {ends.inner} inner pauses cut"
        f" and {ends.cut_between} of {ends.between} between sentences,"
        f" a word or two {percentile(ends.short_s, 50) or 0:.2f} s ({len(ends.short_s)})"
    )


def _summary(judged: Sequence[Judged]) -> str:
    steps = Steps.of([one for one, _, _ in judged])
    silence = [Steps.of([one]).silence_s for one, _, _ in judged]
    timer = np.concatenate([hazard(s) for (_, hazard, _), s in zip(judged, silence, strict=True)])
    told = np.concatenate([hazard(s) for (_, _, hazard), s in zip(judged, silence, strict=True)])
    paused = steps.pause & np.isfinite(steps.y[:, 2])
    p, y, sudden = steps.p[paused, 2], steps.y[paused, 2], steps.sudden[paused]
    # Of two silences behind a turn the younger one is farther from the next speech.
    told_end = steps.over[paused] - 1e-3 * steps.silence_s[paused]
    errors = [
        calibration_error(steps.p[known, column], steps.y[known, column])
        for column, known in enumerate(np.isfinite(steps.y).T)
    ]
    return (
        f"{len(y)} steps in pauses, Brier score at 2 s {brier(p, y):.3f}"
        f" (silence alone {brier(timer[paused], y):.3f},"
        f" told what is a pause {brier(told[paused], y):.3f}),"
        f" ROC area {auc(p, y):.3f} ({auc(timer[paused], y):.3f}; but for the last 2 s before a"
        f" turn {auc(p[~sudden], y[~sudden]):.3f}; of who is told at once which pause is an end"
        f" {auc(told_end, y):.3f}),"
        f" calibration errors {', '.join(f'{e:.3f}' for e in errors)}"
    )


def draw(path: Path, hazards: Floats, fitted: Sequence[Heard], unseen: Sequence[Heard]) -> None:
    """The calibration curves of the three horizons, for both halves of the speakers."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, HORIZONS, figsize=(11, 4), sharey=True)
    for column, (axis, horizon) in enumerate(zip(axes, HORIZONS_S, strict=True)):
        axis.plot([0, 1], [0, 1], color="0.8")
        for name, heard in (("speakers fitted on", fitted), ("other speakers", unseen)):
            x, y, _ = rows(heard)
            known = np.isfinite(y[:, column])
            p = probabilities(hazards, x[known])[:, column]
            curve = calibration(p, y[known, column])
            error = calibration_error(p, y[known, column])
            said, seen = [c[0] for c in curve], [c[1] for c in curve]
            axis.plot(said, seen, marker="o", label=f"{name}, ECE {error:.3f}")
        axis.set(title=f"next {horizon} s", xlabel="inactivity_prob")
        axis.legend(fontsize=8, loc="upper left")
    axes[0].set_ylabel("share of steps after which nobody spoke")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
