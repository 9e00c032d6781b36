"""`edged bench turns`: how far the turn model can be trusted, on labelled speech.

Speakers that the weights have seen are told from the others, and real conversations from
strings of clips with known silences.
"""

from __future__ import annotations

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
from edged.bench import onsets
from edged.bench.turn_evidence import Heard, hear, judge, listener, reader
from edged.bench.turn_material import read_streams
from edged.bench.turn_scores import (
    SilenceHazard,
    Steps,
    auc,
    brier,
    calibration_error,
    turn_ends,
)
from edged.engine.run_stats import percentile
from edged.events import HORIZONS_S
from edged.models.loader import Models, load
from edged.options import Options
from edged.vad.inactivity import Inactivity, Weights
from edged.vad.silero import RATE, Silero
from edged.vad.smart_turn import SmartTurn

Figures: TypeAlias = dict[str, Any]

NOTES = """\
The bars are for speakers not fitted on; all columns but one are of those. real: recordings with
labelled speaker turns, as they are. The rest is synthetic: recorded sentences strung together with
silences of known length, some inside a sentence, in their own room tone. A pause between two
sentences of a turn may well be its end, and is counted apart. The last 2 s before another turn
count as a mistake of whoever holds a turn for over, though nobody can foresee the next one.
silence duration alone: the best that can be told from it, fitted on the same steps as the model;
told what is a pause: fitted on the pauses alone, as if it knew when Silero still hears speech."""


def bench_turns(
    manifest: Path, models_dir: Path | None = None, model: str = "tiny-en", as_json: bool = False
) -> int:
    """Prints the table, or JSON. Returns the exit code.

    Raises ConfigError for the manifest, InputError for a clip, ModelError without models.
    """
    models = load(models_dir, model)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("streams", total=None)
        groups = measure(
            models, manifest, lambda done, of: bar.update(task, completed=done, total=of)
        )
    first_words = onsets.measure(models, manifest)
    if as_json:
        print(json.dumps(_plain({"groups": groups, "first_words": asdict(first_words)}), indent=2))
    else:
        show(groups, Console())
        share = _of(first_words.whole, first_words.tried)
        print(f"first words complete, plosives, utterances 200 ms apart: {share} (bar: 99 %),")
        print(f"  the others heard as other words, but for {first_words.lost} that were lost")
        print(NOTES)
    return 0


def measure(
    models: Models, manifest: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, Figures]:
    """Figures by group of streams, each stream through a real session."""
    weights = models.inactivity
    streams = read_streams(manifest, listener(models), reader(models))
    heard = []
    for number, stream in enumerate(streams, 1):
        heard.append(hear(models, stream, Options()))
        progress(number, len(streams))
    seen = set(weights.fitted_on)
    groups: dict[str, list[Heard]] = {}
    for one in heard:
        fitted = bool(seen & set(one.stream.speakers))
        whose = "speakers fitted on" if fitted else "other speakers"
        groups.setdefault(f"all, {whose}", []).append(one)
        if not fitted:
            kind = "read aloud" if one.stream.read else "commands and talk"
            groups.setdefault("real" if one.stream.real else kind, []).append(one)
    cost = Cost.measured(models, weights, heard)
    return {name: figures(groups[name], weights, cost) for name in sorted(groups)}


def figures(heard: Sequence[Heard], weights: Weights, cost: Cost) -> Figures:
    """Everything that is asked of the turn model. nan: nothing to measure it on."""
    steps = Steps.of(heard)
    known = np.isfinite(steps.y)
    paused = steps.pause & known[:, 2]
    p, y, silence = steps.p[paused, 2], steps.y[paused, 2], steps.silence_s[paused]
    sudden = steps.sudden[paused]
    timer = SilenceHazard.of(weights.silence_only_2s)(silence)
    told = SilenceHazard.of(weights.silence_only_told_2s)(silence)
    alone = Steps.of([judge(one, weights, smart_turn=False) for one in heard]).p[paused, 2]
    ends = turn_ends(heard)
    return {
        "streams": len(heard),
        "audio_s": round(sum(one.stream.known_s for one in heard), 1),
        "pause_steps": len(y),
        "brier_2s": brier(p, y),
        "brier_2s_silence_only": brier(timer, y),
        "brier_2s_silence_only_told": brier(told, y),
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
        "questions_per_s": cost.questions_per_s(heard),
        "answer_cpu_s": cost.answer,
        "silero_cpu_s_per_audio_s": cost.silero,
        "cpu_s_per_audio_s": cost.of(heard),
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds: of one answer of Smart Turn, of one step's features and hazards, and of
    Silero per second of audio (which the recogniser's gate would need without a turn model)."""

    answer: float
    step: float
    silero: float

    @classmethod
    def measured(cls, models: Models, weights: Weights, heard: Sequence[Heard]) -> Cost:
        """Each part alone, on one of the streams."""
        one = heard[0]
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

    def of(self, heard: Sequence[Heard]) -> float:
        """Of all three, per second of audio."""
        return self.questions_per_s(heard) * self.answer + self.step / STEP_S + self.silero

    @staticmethod
    def questions_per_s(heard: Sequence[Heard]) -> float:
        """How often Smart Turn was asked, per second of audio."""
        audio_s = sum(len(one.stream.audio) for one in heard) / SAMPLE_RATE
        return sum(one.asked for one in heard) / audio_s


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def show(groups: dict[str, Figures], console: Console) -> None:
    """One column a group, the bar in the first."""
    table = Table(title="turns: how far inactivity_prob and the end of a turn can be trusted")
    table.add_column("")
    table.add_column("bar", justify="right")
    for name in groups:
        table.add_column(name, justify="right")
    for label, bar, cell in _ROWS:
        table.add_row(label, bar, *(cell(f) for f in groups.values()))
    console.print(table)


def _plain(value: Any) -> Any:
    """JSON has no nan: what could not be measured is null."""
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
    ("  the same, told what is a pause", "", lambda f: _number(f["brier_2s_silence_only_told"])),
    ("  without Smart Turn", "", lambda f: _number(f["brier_2s_without_smart_turn"])),
    ("area under ROC at 2 s, in pauses", ">= 0.80", lambda f: _number(f["auc_2s"])),
    ("  but for the last 2 s before a turn", "", lambda f: _number(f["auc_2s_but_sudden"])),
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
    ("  questions to Smart Turn, 1/s", "", lambda f: _number(f["questions_per_s"])),
    ("  one answer, CPU s", "", lambda f: _number(f["answer_cpu_s"])),
)
