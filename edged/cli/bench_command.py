"""Declares `edged bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edged.cli.shared_options import (
    RECOGNISER,
    Json,
    KeytermBoost,
    ModelsDir,
    PaddingBonus,
    SecondOpinion,
    Seed,
    Temperature,
    Threads,
    keyterm_lines,
)
from edged.errors import RequestError
from edged.languages import AUTO, DEFAULT_LANGUAGE
from edged.options import DEFAULT_BOOST, Options, from_json_config

# Extra arguments are allowed so that the former `edged bench turns` can name its successor.
SETTINGS = {"allow_extra_args": True}


def bench(
    context: typer.Context,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            "-m",
            metavar="FILE",
            help="Recordings as JSON lines with id, file, text and kind. Default: the sample"
            " speech.",
        ),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Use only N recordings, evenly spread over the list."
        ),
    ] = None,
    limit_minutes: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Use at most this much audio, from the first on."),
    ] = None,
    delay: Annotated[
        str,
        typer.Option(metavar="STEPS", help="One or more delays to measure, such as 7,10,16."),
    ] = "10",
    peer: Annotated[
        Literal["moonshine-voice"] | None,
        typer.Option(help="Measure this library too, on the same recordings (pip extra: peer)."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Also recognise whole recordings at once: the best a model can do."
        ),
    ] = False,
    joined: Annotated[
        bool,
        typer.Option("--joined", help="Join all recordings to one stream, to show any drift."),
    ] = False,
    slow: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="FACTOR",
            help="Show what a board so many times slower would do, such as 4 for a Raspberry Pi 4."
            " Steps, delays and load levels are then those of live speech.",
        ),
    ] = None,
    as_json: Json = False,
    language: Annotated[
        str | None,
        typer.Option(
            envvar="EDGED_LANGUAGE",
            show_envvar=False,
            rich_help_panel=RECOGNISER,
            metavar="CODE",
            help="Recognise everything in this language, or auto. Default: the language that the"
            " manifest gives for each recording, else English.",
        ),
    ] = None,
    temp: Temperature = 0.0,
    seed: Seed = 0,
    padding_bonus: PaddingBonus = 0.0,
    keyterms: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|rare",
            help="Measure key terms: those of FILE, one a line, or (rare) rare words of the"
            " recordings among names that nobody says.",
        ),
    ] = None,
    keyterm_boost: KeytermBoost = DEFAULT_BOOST,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            envvar="EDGED_MODEL",
            show_envvar=False,
            metavar="NAMES",
            help="One or more speech models to compare, separated by commas; auto takes the best"
            " installed one for each language.",
        ),
    ] = AUTO,
    models_dir: ModelsDir = None,
    threads: Threads = 1,
    second_opinion: SecondOpinion = "off",
) -> None:
    """Measure speed, memory, delay and word errors on recorded speech.

    Each recording goes through a session of its own, frame by frame, as fast as possible.

    Examples:

    edged bench --manifest speech/manifest.jsonl --delay 7,10,16

    edged bench --manifest speech/manifest.jsonl --peer moonshine-voice

    edged bench --slow 4
    """
    if context.args == ["turns"]:
        raise RequestError(
            "the turn model is now measured from a source checkout: run"
            ' `make bench-turns ARGS="--manifest FILE"` there'
        )
    if context.args not in ([], ["words"]):
        raise RequestError(f"`edged bench` takes options only, not {context.args[0]!r}")
    from edged.bench.bench import Plan
    from edged.bench.bench import bench as measure

    asked = {
        "language": language or DEFAULT_LANGUAGE,
        "temp": temp,
        "padding_bonus": padding_bonus,
        "keyterm_boost": keyterm_boost,
    }
    file = None if keyterms in (None, "rare") else Path(str(keyterms))
    base = from_json_config(asked, Options(seed=seed))
    plan = Plan(
        options=tuple(from_json_config({"delay_in_frames": d}, base) for d in _delays(delay)),
        manifest=manifest,
        clips=clips,
        limit_minutes=limit_minutes,
        joined=joined,
        offline=offline,
        peer=peer,
        as_json=as_json,
        models_dir=models_dir,
        models=tuple(name.strip() for name in model.split(",")),
        threads=threads,
        second_opinion=second_opinion,
        keyterms=keyterms,
        keyterm_lines=tuple(keyterm_lines(file)),
        own_languages=language is None,
        slow=slow,
    )
    raise typer.Exit(measure(plan))


def _delays(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--delay must be numbers such as 7,10,16, not {text!r}") from None
