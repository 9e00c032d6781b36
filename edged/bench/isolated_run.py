"""A run of the bench in a process of its own: time and memory are the recogniser's, and neither
the command line's nor an earlier run's.

What to do goes in by pickle, what was measured comes out as lines of JSON: `{"done_s": 1.2}` for
progress, at the end `{"figures": {...}}`, or `{"error": "...", "kind": "InputError"}`.
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
from edged.models.loader import load
from edged.options import Options

FLUSHES = 20
REPORT_EVERY_S = 5.0  # of audio


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over all clips at one setting."""

    clips: tuple[Clip, ...]
    options: Options
    joined: bool = False
    models_dir: Path | None = None
    model: str = "tiny-en"
    threads: int = 1


def run_apart(run: Run, progress: measure.Progress) -> dict[str, Any]:
    """-> the figures of `edged.bench.report`. Raises what the run raised, as here."""
    child = subprocess.Popen(
        # -P: the folder one is in may hold a json.py, or another checkout
        [sys.executable, "-P", "-m", "edged.bench.isolated_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError), child.stdin as to_child:
            pickle.dump(run, to_child)  # a child that has died is told below
        for line in child.stdout:
            said = json.loads(line)
            if "figures" in said:
                figures: dict[str, Any] = said["figures"]
                return figures
            if "error" in said:
                raise getattr(errors, said["kind"])(said["error"])
            progress(said["done_s"])
        raise errors.EdgedError(f"the measuring process ended early (exit code {child.wait()})")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def perform(run: Run, progress: measure.Progress) -> dict[str, Any]:
    """In this process. Raises InputError for a clip, ModelError without models."""
    models = load(run.models_dir, run.model, run.threads)
    measure.warm_up(models, run.clips[0], run.options)
    result = measure.measure(models, run.clips, run.options, progress, run.joined)
    result.flushes_s = measure.flush_times(models, run.clips, run.options, FLUSHES)
    return report.figures(result)


def _throttled(say: Callable[[float], None]) -> measure.Progress:
    waiting = 0.0

    def progress(seconds: float) -> None:
        nonlocal waiting
        waiting += seconds
        if waiting >= REPORT_EVERY_S:
            say(waiting)
            waiting = 0.0

    return progress


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: the parent tells what there is to tell

    def say(**words: Any) -> None:
        print(json.dumps(words), flush=True)

    try:
        run = pickle.load(sys.stdin.buffer)
        say(figures=perform(run, _throttled(lambda seconds: say(done_s=seconds))))
    except errors.EdgedError as error:
        say(error=str(error), kind=type(error).__name__)


if __name__ == "__main__":
    _main()
