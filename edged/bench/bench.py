"""Chooses recordings, measures each model and delay, and reports (`edged bench`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from edged.bench import report, table
from edged.bench.isolated_run import Run, run_isolated
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
from edged.bench.term_lists import file_runs, rare_runs
from edged.errors import ModelError
from edged.languages import AUTO
from edged.models.catalogue import shipped
from edged.models.choice import OFF, chosen, second_opinion_for
from edged.models.loader import load, quick_check
from edged.options import Options


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: one run for each combination of `models` and `options`.

    manifest: list of recordings; None for the sample speech.
    clips: use only this many recordings, evenly spread.
    limit_minutes: use at most this much audio.
    joined: join all recordings to one stream.
    offline: also recognise whole recordings at once.
    peer: name of another library to measure too.
    models: names; AUTO measures each recording with the best installed model of its language.
    keyterms: `rare` measures lists of rare words of the recordings; anything else the terms of
        `keyterm_lines`.
    own_languages: recognise each recording in the language that the manifest gives for it.
    slow: simulate a device that is so many times slower than this one.
    second_opinion: `auto` or `off`, as EDGED_SECOND_OPINION; whatever this device has time for.
    """

    options: tuple[Options, ...]
    manifest: Path | None = None
    clips: int | None = None
    limit_minutes: float | None = None
    joined: bool = False
    offline: bool = False
    peer: str | None = None
    as_json: bool = False
    models_dir: Path | None = None
    models: tuple[str, ...] = (AUTO,)
    threads: int = 1
    keyterms: str | None = None
    keyterm_lines: tuple[str, ...] = ()
    own_languages: bool = True
    slow: float | None = None
    second_opinion: str = OFF


def bench(plan: Plan) -> int:
    """Measures and prints a table or JSON. Returns the exit code.

    Raises ConfigError for the manifest, InputError for a recording, ModelError if a model is
    missing.
    """
    clips = sample_clips() if plan.manifest is None else read_manifest(plan.manifest)
    clips = within(choose(clips, plan.clips), plan.limit_minutes)
    default = plan.options[0].language
    if default != AUTO:
        clips = [replace(clip, text_language=clip.text_language or default) for clip in clips]
    if not plan.own_languages:
        clips = [replace(clip, language=None) for clip in clips]
    parts = _parts(plan, clips)
    for model, _ in parts:
        quick_check(plan.models_dir, model)
    whole: report.Figures = {
        "machine": report.machine(),
        "model": ", ".join(model for model, _ in parts),
        "threads": plan.threads,
        "slow": plan.slow,
        "runs": [
            run
            for model, spoken in parts
            for options in plan.options
            for run in _runs(plan, spoken, model, options)
        ],
        "offline": [_offline(plan, some, model) for model, some in parts] if plan.offline else [],
        "peer": _peer(parts[0][1], plan, parts[0][0]) if plan.peer else None,
    }
    if plan.as_json:
        print(json.dumps(whole, indent=2))
    else:
        table.show(whole, Console())
    return 0


def _parts(plan: Plan, clips: Sequence[Clip]) -> list[tuple[str, list[Clip]]]:
    """Each model with the clips that it is to recognise. Clips in a language that it does not have
    are left out, with a note. Raises ModelError if that leaves none."""
    default = plan.options[0].language
    parts: dict[str, list[Clip]] = {}
    for model in plan.models:
        left_out: set[str] = set()
        for clip in clips:
            language = clip.language or default
            if model == AUTO:
                name = chosen(plan.models_dir, AUTO, language).entry.name
            elif language in (AUTO, *shipped().recogniser(model).languages):
                name = model
            else:
                left_out.add(language)
                continue
            parts.setdefault(name, []).append(clip)
        if left_out:
            languages = ", ".join(sorted(left_out))
            note = f"{model}: left out the recordings in languages that it does not have: "
            Console(stderr=True).print(note + languages, highlight=False)
    if not parts:
        raise ModelError("no recording is in a language of these models")
    return list(parts.items())


def _runs(
    plan: Plan, clips: Sequence[Clip], model: str, options: Options
) -> Iterator[report.Figures]:
    if plan.keyterms is None:
        yield _run(plan, clips, model, options)
        return
    if plan.keyterms == "rare":
        vocabulary = load(plan.models_dir, model, plan.threads).recogniser.vocabulary
        runs = rare_runs(clips, options, vocabulary)
    else:
        runs = file_runs(plan.keyterm_lines, options)
    for run in runs:
        figures = _run(plan, clips, model, run.options, run.listed)
        yield {**figures, "terms": run.name}


def _run(
    plan: Plan,
    clips: Sequence[Clip],
    model: str,
    options: Options,
    listed: frozenset[str] | None = None,
) -> report.Figures:
    opinion = second_opinion_for(plan.models_dir, model, plan.second_opinion)
    run = Run(
        tuple(clips),
        options,
        plan.joined,
        plan.models_dir,
        model,
        plan.threads,
        listed,
        plan.slow,
        opinion,
    )
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        total = sum(map(clip_duration_s, clips))
        task = bar.add_task(f"{model}, delay {options.delay_in_frames}", total=total)
        figures = run_isolated(run, lambda seconds: bar.advance(task, seconds))
    return {"model": model, "second_opinion": opinion, **figures}


def _offline(plan: Plan, clips: Sequence[Clip], model: str) -> report.Figures:
    result = measure_offline(load(plan.models_dir, model, plan.threads), clips)
    name = "offline" if len(plan.models) == 1 else f"{model} offline"
    return report.other(name, clips, result.texts, result.audio_s, result.cpu_s)


def _peer(clips: Sequence[Clip], plan: Plan, model: str) -> report.Figures:
    result = measure_peer(clips, upstream_dir(plan.models_dir, model))
    figures = report.other(str(plan.peer), clips, result.texts, result.audio_s, result.cpu_s)
    return {**figures, "peak_rss_mb": report.megabytes(result.peak_rss)}
