"""Measures on labelled speech how reliable the turn model is.

    python -m models.turn.bench_turns --manifest MANIFEST [--json]     (or: make bench-turns)

Speakers that the weights were fitted on are reported apart from the others, and real conversations
apart from synthetic streams.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edged import SAMPLE_RATE, STEP_S
from edged.engine.run_stats import percentile
from edged.errors import EdgedError
from edged.events import HORIZONS_S
from edged.models.loader import Models, load
from edged.options import Options
from edged.vad.inactivity import Inactivity, Weights
from edged.vad.silero import RATE, Silero
from edged.vad.smart_turn import SmartTurn
from models.turn import first_words
from models.turn.evidence import SessionTrace, rescore, run_session, speech_finder, word_finder
from models.turn.material import read_streams
from models.turn.scores import (
    SilenceBaseline,
    Steps,
    auc,
    brier,
    calibration_error,
    turn_ends,
)

Figures: TypeAlias = dict[str, Any]

NOTES = """\
The bars are for speakers not fitted on; all columns but one show those. real: recordings with
labelled speaker turns, unchanged. The rest is synthetic: recorded sentences joined with silences of
known length, some inside a sentence, filled with the clip's own background noise. A pause between
two sentences of a turn may be its end and is counted apart. In the last 2 s before another turn a
prediction that the turn is over counts as wrong, although nobody can foresee the next turn.
silence duration alone: the best prediction from it, fitted on the same steps as the model.
pauses known: the same, fitted on pauses alone, as if it knew when Silero still hears speech."""


def bench_turns(
    manifest: Path, models_dir: Path | None = None, model: str = "tiny-en", as_json: bool = False
) -> int:
    """Measures and prints a table, or JSON. Returns the exit code.

    Raises ConfigError for the manifest, InputError for a clip, ModelError without models.
    """
    models = load(models_dir, model)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("streams", total=None)
        groups = measure(
            models, manifest, lambda done, of: bar.update(task, completed=done, total=of)
        )
    onsets = first_words.measure(models, manifest)
    if as_json:
        print(json.dumps(_plain({"groups": groups, "first_words": asdict(onsets)}), indent=2))
    else:
        show(groups, Console())
        share = _of(onsets.whole, onsets.tried)
        print(f"first words complete (plosives, utterances 200 ms apart): {share}, bar 99 %;")
        print(f"  {onsets.lost} were lost, the others recognised as other words")
        print(NOTES)
    return 0


def measure(
    models: Models, manifest: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, Figures]:
    """Runs each stream through a session and returns the figures of each group of streams."""
    weights = models.inactivity
    streams = read_streams(manifest, speech_finder(models), word_finder(models))
    traces = []
    for number, stream in enumerate(streams, 1):
        traces.append(run_session(models, stream, Options()))
        progress(number, len(streams))
    seen = set(weights.fitted_on)
    groups: dict[str, list[SessionTrace]] = {}
    for one in traces:
        fitted = bool(seen & set(one.stream.speakers))
        whose = "speakers fitted on" if fitted else "other speakers"
        groups.setdefault(f"all, {whose}", []).append(one)
        if not fitted:
            kind = "read aloud" if one.stream.read else "commands and talk"
            groups.setdefault("real" if one.stream.real else kind, []).append(one)
    cost = Cost.measured(models, weights, traces)
    return {name: figures(groups[name], weights, cost) for name in sorted(groups)}


def figures(traces: Sequence[SessionTrace], weights: Weights, cost: Cost) -> Figures:
    """Computes all figures of a group; nan where it has no data for one."""
    steps = Steps.of(traces)
    known = np.isfinite(steps.y)
    paused = steps.pause & known[:, 2]
    p, y, silence = steps.p[paused, 2], steps.y[paused, 2], steps.silence_s[paused]
    sudden = steps.sudden[paused]
    timer = SilenceBaseline.of(weights.silence_only_2s)(silence)
    pause_timer = SilenceBaseline.of(weights.silence_only_told_2s)(silence)
    alone = Steps.of([rescore(one, weights, smart_turn=False) for one in traces]).p[paused, 2]
    ends = turn_ends(traces)
    return {
        "streams": len(traces),
        "audio_s": round(sum(one.stream.known_s for one in traces), 1),
        "pause_steps": len(y),
        "brier_2s": brier(p, y),
        "brier_2s_silence_only": brier(timer, y),
        "brier_2s_silence_only_told": brier(pause_timer, y),
        "brier_2s_without_smart_turn": brier(alone, y),
        "brier_gain": 1 - brier(p, y) / brier(timer, y) if len(y) else math.nan,
        "auc_2s": auc(p, y),
        "auc_2s_but_sudden": auc(p[~sudden], y[~sudden]),
        "auc_2s_silence_only": auc(timer, y),
        "auc_2s_without_smart_turn": auc(alone, y),
        "calibration_error": [
            calibration_error(steps.p[known[:, c], c], steps.y[known[:, c], c])
            for c in range(len(HORIZONS_S))
        ],
        "ends": len(ends.delays_s) + ends.missed,
        "ends_missed": ends.missed,
        "end_to_turn_s": [percentile(ends.delays_s, q) for q in (50, 90)],
        "inner_pauses": ends.inner,
        "inner_pauses_cut": ends.cut,
        "pauses_between": ends.between,
        "pauses_between_cut": ends.cut_between,
        "short_turns": len(ends.short_s),
        "short_turn_s": percentile(ends.short_s, 50),
        "questions_per_s": cost.questions_per_s(traces),
        "answer_cpu_s": cost.answer,
        "silero_cpu_s_per_audio_s": cost.silero,
        "cpu_s_per_audio_s": cost.of(traces),
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of each part.

    answer: one run of Smart Turn.
    step: one step's features and hazards.
    silero: Silero, per second of audio (the voice gate needs it without a turn model too).
    """

    answer: float
    step: float
    silero: float

    @classmethod
    def measured(cls, models: Models, weights: Weights, traces: Sequence[SessionTrace]) -> Cost:
        """Measures each part alone, on one of the streams."""
        one = traces[0]
        model = Inactivity(weights)
        step = _cpu(lambda: [model.push(e) for e in one.evidence]) / max(1, len(one.evidence))
        seconds = 10
        noise = np.random.default_rng(0).standard_normal(seconds * RATE).astype(np.float32)
        silero = _cpu(lambda: Silero(models.silero).push(noise * 0.01)) / seconds
        answer = 0.0
        if models.smart_turn is not None:
            smart_turn = SmartTurn(models.smart_turn)
            smart_turn.probability(noise)
            answer = _cpu(lambda: [smart_turn.probability(noise) for _ in range(3)]) / 3
        return cls(answer, step, silero)

    def of(self, traces: Sequence[SessionTrace]) -> float:
        """Returns the cost of all three per second of audio."""
        return self.questions_per_s(traces) * self.answer + self.step / STEP_S + self.silero

    @staticmethod
    def questions_per_s(traces: Sequence[SessionTrace]) -> float:
        """Returns how often Smart Turn ran per second of audio."""
        audio_s = sum(len(one.stream.audio) for one in traces) / SAMPLE_RATE
        return sum(one.asked for one in traces) / audio_s


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def show(groups: dict[str, Figures], console: Console) -> None:
    """Prints one column a group; the first column is the bar."""
    table = Table(title="Turn model: inactivity_prob and turn ends")
    table.add_column("")
    table.add_column("bar", justify="right")
    for name in groups:
        table.add_column(name, justify="right")
    for label, bar, cell in _ROWS:
        table.add_row(label, bar, *(cell(f) for f in groups.values()))
    console.print(table)


def _plain(value: Any) -> Any:
    """Replaces nan by None, because JSON has no nan."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _of(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part} of {whole})" if whole else "-"


_ROWS: tuple[tuple[str, str, Callable[[Figures], str]], ...] = (
    ("streams", "", lambda f: str(f["streams"])),
    ("audio, s", "", lambda f: f"{f['audio_s']:.0f}"),
    ("steps in pauses", "", lambda f: str(f["pause_steps"])),
    ("Brier score at 2 s, in pauses", "", lambda f: _number(f["brier_2s"])),
    ("  of silence duration alone", "", lambda f: _number(f["brier_2s_silence_only"])),
    ("    lower by, %", ">= 15", lambda f: _number(100 * f["brier_gain"], 1)),
    ("  the same, pauses known", "", lambda f: _number(f["brier_2s_silence_only_told"])),
    ("  without Smart Turn", "", lambda f: _number(f["brier_2s_without_smart_turn"])),
    ("area under the ROC curve at 2 s, in pauses", ">= 0.80", lambda f: _number(f["auc_2s"])),
    ("  without the last 2 s before a turn", "", lambda f: _number(f["auc_2s_but_sudden"])),
    ("  of silence duration alone", "", lambda f: _number(f["auc_2s_silence_only"])),
    ("  without Smart Turn", "", lambda f: _number(f["auc_2s_without_smart_turn"])),
    (
        "calibration error, 0.5 / 1 / 2 s",
        "<= 0.08",
        lambda f: " / ".join(_number(e) for e in f["calibration_error"]),
    ),
    (
        "turn end to `turn`, median / p90, s",
        "<= 0.7 / 1.5",
        lambda f: " / ".join(_number(q, 2) for q in f["end_to_turn_s"]),
    ),
    ("  no `turn` before the next speech", "", lambda f: _of(f["ends_missed"], f["ends"])),
    ("inner pauses cut", "<= 8 %", lambda f: _of(f["inner_pauses_cut"], f["inner_pauses"])),
    (
        "  between two sentences, cut",
        "",
        lambda f: _of(f["pauses_between_cut"], f["pauses_between"]),
    ),
    (
        "a word or two to `turn`, median, s",
        "",
        lambda f: f"{_number(f['short_turn_s'], 2)} (of {f['short_turns']})",
    ),
    ("CPU s per audio s", "<= 0.02", lambda f: _number(f["cpu_s_per_audio_s"], 4)),
    ("  of which Silero", "", lambda f: _number(f["silero_cpu_s_per_audio_s"], 4)),
    ("  runs of Smart Turn, 1/s", "", lambda f: _number(f["questions_per_s"])),
    ("  one run, CPU s", "", lambda f: _number(f["answer_cpu_s"])),
)


def main() -> None:
    """Command line. Errors are one line on stderr, with edged's exit codes (edged/errors.py)."""
    parser = argparse.ArgumentParser(
        prog="python -m models.turn.bench_turns",
        description=("Measure the turn model on labelled speech."),
    )
    parser.add_argument(
        "--manifest",
        "-m",
        type=Path,
        required=True,
        metavar="FILE",
        help="clips as JSON lines, with `turns` or `text`",
    )
    parser.add_argument("--models-dir", type=Path, metavar="DIR", help="where the models are")
    parser.add_argument("--model", default="tiny-en", metavar="NAME", help="the recogniser")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    try:
        code = bench_turns(
            arguments.manifest, arguments.models_dir, arguments.model, arguments.json
        )
    except EdgedError as error:
        print(f"bench_turns: error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
