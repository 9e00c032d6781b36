"""The `edged` command: declares what can be typed; the work is done in the modules it calls.

Everything heavy is imported inside its command, so that `--help` is quick and a missing optional
package hurts only the commands that need it. Exit codes: edged/cli/exits.py, edged/errors.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from edged.cli import daemon_commands, stdout
from edged.cli import model_commands as models
from edged.cli.exits import Guarded
from edged.cli.writers import Format, TextFrom
from edged.errors import RequestError
from edged.options import Options, from_json_config

RawEncoding: TypeAlias = Literal["pcm", "s16", "s24", "s32", "u8", "f32", "ulaw", "alaw"]


app = typer.Typer(
    cls=Guarded,
    name="edged",
    help="Private, real-time speech transcription: nothing leaves this machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RECOGNISER = "Recogniser (also by EDGED_ variables)"
RAW = "Raw audio (no header)"

# Options that several commands share.
DelayOption = Annotated[
    int,
    typer.Option(
        "--delay",
        envvar="EDGED_DELAY_IN_FRAMES",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="STEPS",
        help="Steps of 80 ms between a word's end and its text: 7 8 10 12 14 16 20 24 32 36 48. "
        "More is more accurate.",
    ),
]
LanguageOption = Annotated[
    str,
    typer.Option(
        envvar="EDGED_LANGUAGE",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="CODE",
        help="What is spoken.",
    ),
]
TempOption = Annotated[
    float,
    typer.Option(
        envvar="EDGED_TEMP",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="0..1",
        help="0: the likeliest words; above, words are drawn.",
    ),
]
PaddingOption = Annotated[
    float,
    typer.Option(
        envvar="EDGED_PADDING_BONUS",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="-4..4",
        help="Below 0 commits words sooner, above 0 waits for more agreement.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=RECOGNISER,
        metavar="N",
        help="With --temp: the same seed gives the same text.",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        envvar="EDGED_MODEL",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="NAME",
        help="The model.",
    ),
]
ModelsDirOption = Annotated[
    Path | None,
    typer.Option(
        envvar="EDGED_MODELS_DIR",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="DIR",
        help="Where the models are.",
    ),
]
ThreadsOption = Annotated[
    int,
    typer.Option(
        envvar="EDGED_THREADS",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        min=1,
        metavar="N",
        max=8,
        help="Threads per computation.",
    ),
]


@app.callback(invoke_without_command=True)
def edged(
    version: Annotated[
        bool, typer.Option("--version", help="Print versions and models, and exit.")
    ] = False,
) -> None:
    if version:
        from edged.cli.version_report import about

        print(about())
        raise typer.Exit


@app.command()
def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Audio files, or - for raw PCM on standard input."),
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            metavar="text|srt|vtt|events",
            help="What to print. events: every message as one JSON line.",
        ),
    ] = "text",
    text_from: Annotated[
        TextFrom,
        typer.Option(
            metavar="turns|words",
            help="turns: each turn heard as a whole once it has ended, the better text. "
            "words: as they were committed.",
        ),
    ] = "turns",
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", metavar="DIR", help="One result file per input file."),
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Pace a file as a microphone would.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Step times, cost and dropped text, on stderr.")
    ] = False,
    delay: DelayOption = 10,
    language: LanguageOption = "en",
    temp: TempOption = 0.0,
    seed: SeedOption = 0,
    padding_bonus: PaddingOption = 0.0,
    model: ModelOption = "tiny-en",
    models_dir: ModelsDirOption = None,
    threads: ThreadsOption = 1,
    input_format: Annotated[
        RawEncoding | None,
        typer.Option(
            metavar="ENCODING",
            help="pcm (which is s16), s24, s32, u8, f32, ulaw or alaw.",
            rich_help_panel=RAW,
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="Default 24000.", rich_help_panel=RAW),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(metavar="N", help="Default 1.", rich_help_panel=RAW),
    ] = None,
) -> None:
    """Transcribe audio files to text, subtitles or events.

    Reads wav, flac, ogg, opus, mp3, aiff, au and more, at any rate and channel count; for -
    raw PCM from standard input, 24 kHz 16-bit mono unless said otherwise.

    edged transcribe talk.mp3

    edged transcribe --format srt talk.mp3 > talk.srt

    arecord -q -t raw -f S16_LE -r 24000 -c 1 | edged transcribe -
    """
    from edged.cli import transcribe as work

    job = work.Job(
        options=_options(delay, language, temp, padding_bonus, seed),
        form=form,
        text_from=text_from,
        output_dir=output_dir,
        raw=work.raw_format(files, input_format, rate, channels),
        realtime=realtime,
        stats=stats,
        models_dir=models_dir,
        model=model,
        threads=threads,
    )
    raise typer.Exit(work.transcribe(files, job))


@app.command()
def bench(
    what: Annotated[
        Literal["words", "turns"],
        typer.Argument(help="words: the recogniser. turns: the turn model, beside its bars."),
    ] = "words",
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            "-m",
            metavar="FILE",
            help="Clips as JSON lines: id, file, text, kind... Default: the sample speech.",
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only N of them, spread evenly.")
    ] = None,
    limit_minutes: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Stop after that much audio.")
    ] = None,
    delay: Annotated[
        str,
        typer.Option(metavar="STEPS", help="One or more delays to measure, such as 7,10,16."),
    ] = "10",
    peer: Annotated[
        Literal["moonshine-voice"] | None,
        typer.Option(help="Measure this library too, on the same clips (pip extra: peer)."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Also the same weights on whole clips: the ceiling."),
    ] = False,
    joined: Annotated[
        bool,
        typer.Option("--joined", help="All clips as one unbroken stream: does anything drift?"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    language: LanguageOption = "en",
    temp: TempOption = 0.0,
    seed: SeedOption = 0,
    padding_bonus: PaddingOption = 0.0,
    model: ModelOption = "tiny-en",
    models_dir: ModelsDirOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Measure this machine on real speech.

    Step times, cost, lag from a word's end to its text, flush, memory, and word errors.

    Each clip goes through a session of its own, frame by frame, as fast as it can.

    edged bench --manifest speech/manifest.jsonl --delay 7,10,16 --peer moonshine-voice
    """
    if what == "turns":
        raise RequestError(
            "the turn model is now measured from a source checkout: run"
            ' `make bench-turns ARGS="--manifest FILE"` there'
        )
    from edged.bench.bench import Plan
    from edged.bench.bench import bench as work

    base = _options(_steps(delay)[0], language, temp, padding_bonus, seed)
    plan = Plan(
        options=tuple(from_json_config({"delay_in_frames": d}, base) for d in _steps(delay)),
        manifest=manifest,
        clips=clips,
        limit_minutes=limit_minutes,
        joined=joined,
        offline=offline,
        peer=peer,
        as_json=as_json,
        models_dir=models_dir,
        model=model,
        threads=threads,
    )
    raise typer.Exit(work(plan))


def _steps(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--delay must be numbers such as 7,10,16, not {text!r}") from None


def _options(delay: int, language: str, temp: float, padding_bonus: float, seed: int) -> Options:
    """Raises RequestError naming what is allowed."""
    asked = {
        "delay_in_frames": delay,
        "language": language,
        "temp": temp,
        "padding_bonus": padding_bonus,
    }
    return from_json_config(asked, Options(seed=seed))


@app.command()
def devices(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the microphones, under names that survive a reboot."""
    from rich.console import Console

    from edged.cli.devices import show_devices
    from edged.config.sources import load

    show_devices(Console(), as_json, load().settings.alsa_device)


daemon_commands.add_to(app)
app.add_typer(models.app, name="models")


def main() -> None:
    """The console script."""
    stdout.install()
    app()
