"""Runs one measurement in a process of its own, so that time and memory are the recogniser's alone.

The process gets a pickled `Run` on standard input and prints JSON lines: `{"done_s": 1.2}` for
progress, and at the end `{"figures": {...}}` or `{"error": "...", "kind": "InputError"}`.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged import errors
from edged.bench import measure, report
from edged.bench.manifest import Clip
from edged.bench.term_lists import term_errors
from edged.models.loader import load
from edged.options import Options

FLUSHES = 20
REPORT_EVERY_S = 5.0  # seconds of audio between two reports of progress


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over all recordings with one model and one set of options.

    listed: words whose errors are reported apart (`edged.bench.term_lists`).
    second_opinion: name of the model that is asked about the texts of turns.
    """

    clips: tuple[Clip, ...]
    options: Options
    joined: bool = False
    models_dir: Path | None = None
    model: str = "tiny-en"
    threads: int = 1
    listed: frozenset[str] | None = None
    slow: float | None = None
    second_opinion: str | None = None


def run_isolated(run: Run, progress: measure.ReportAudio) -> dict[str, Any]:
    """Runs the measurement and returns the figures of `edged.bench.report`.

    progress: called with the seconds of audio done since the last call.
    Raises the EdgedError of the run.
    """
    child = subprocess.Popen(
        # -P: the current directory may contain a json.py or another checkout
        [sys.executable, "-P", "-m", "edged.bench.isolated_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError), child.stdin as to_child:
            pickle.dump(run, to_child)  # a child that has died is reported below
        for line in child.stdout:
            message = json.loads(line)
            if "figures" in message:
                figures: dict[str, Any] = message["figures"]
                return figures
            if "error" in message:
                raise getattr(errors, message["kind"])(message["error"])
            progress(message["done_s"])
        raise errors.EdgedError(f"the measuring process ended early (exit code {child.wait()})")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def perform(run: Run, progress: measure.ReportAudio) -> dict[str, Any]:
    """Runs the measurement in this process. Raises InputError, ModelError."""
    models = load(run.models_dir, run.model, run.threads, None, run.second_opinion)
    measure.warm_up(models, run.clips[0], run.options)
    result = measure.measure(models, run.clips, run.options, progress, run.joined, run.slow)
    result.flushes_s = measure.flush_times(models, run.clips, run.options, FLUSHES, run.slow)
    figures = report.figures(result)
    if run.listed is not None:
        clips = [one.clip for one in result.clips]
        figures["keyterms"] = len(run.options.keyterms)
        figures["term_errors"] = term_errors(clips, [c.text for c in result.clips], run.listed)
        texts = [c.turn_text for c in result.clips]
        figures["turn_term_errors"] = term_errors(clips, texts, run.listed)
    return figures


def _throttled(send: Callable[[float], None]) -> measure.ReportAudio:
    waiting = 0.0

    def progress(seconds: float) -> None:
        nonlocal waiting
        waiting += seconds
        if waiting >= REPORT_EVERY_S:
            send(waiting)
            waiting = 0.0

    return progress


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent handles Ctrl-C

    def send(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    try:
        run = pickle.load(sys.stdin.buffer)
        send(figures=perform(run, _throttled(lambda seconds: send(done_s=seconds))))
    except errors.EdgedError as error:
        send(error=str(error), kind=type(error).__name__)


if __name__ == "__main__":
    _main()
