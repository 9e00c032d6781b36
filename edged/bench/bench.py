"""The work of `edged bench`: choose clips, measure, report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from edged.bench import report, table
from edged.bench.isolated_run import Run, run_apart
from edged.bench.manifest import (
    Clip,
    choose,
    clip_duration_s,
    read_manifest,
    sample_clips,
    within,
)
from edged.bench.offline import measure_offline
from edged.bench.peer import measure_peer, upstream_dir
from edged.models.loader import load, quick_check
from edged.options import Options


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `manifest` None: the sample speech that comes with edged."""

    options: tuple[Options, ...]  # one run each
    manifest: Path | None = None
    clips: int | None = None
    limit_minutes: float | None = None
    joined: bool = False
    offline: bool = False
    peer: str | None = None
    as_json: bool = False
    models_dir: Path | None = None
    model: str = "tiny-en"
    threads: int = 1


def bench(plan: Plan) -> int:
    """Prints a table, or JSON with `as_json`. Returns the exit code.

    Raises ConfigError for the manifest, InputError for a clip, ModelError without models.
    """
    clips = sample_clips() if plan.manifest is None else read_manifest(plan.manifest)
    clips = within(choose(clips, plan.clips), plan.limit_minutes)
    quick_check(plan.models_dir, plan.model)
    whole: report.Figures = {
        "machine": report.machine(),
        "model": plan.model,
        "threads": plan.threads,
        "runs": [_run(plan, clips, options) for options in plan.options],
        "offline": _offline(plan, clips) if plan.offline else None,
        "peer": _peer(clips, plan) if plan.peer else None,
    }
    if plan.as_json:
        print(json.dumps(whole, indent=2))
    else:
        table.show(whole, Console())
    return 0


def _run(plan: Plan, clips: Sequence[Clip], options: Options) -> report.Figures:
    run = Run(tuple(clips), options, plan.joined, plan.models_dir, plan.model, plan.threads)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        total = sum(map(clip_duration_s, clips))
        task = bar.add_task(f"delay {options.delay_in_frames}", total=total)
        return run_apart(run, lambda seconds: bar.advance(task, seconds))


def _offline(plan: Plan, clips: Sequence[Clip]) -> report.Figures:
    result = measure_offline(load(plan.models_dir, plan.model, plan.threads), clips)
    return report.other("offline", clips, result.texts, result.audio_s, result.cpu_s)


def _peer(clips: Sequence[Clip], plan: Plan) -> report.Figures:
    result = measure_peer(clips, upstream_dir(plan.models_dir, plan.model))
    figures = report.other(str(plan.peer), clips, result.texts, result.audio_s, result.cpu_s)
    return {**figures, "peak_rss_mb": report.megabytes(result.peak_rss)}
