"""Declares `edged transcribe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from edged.cli.shared_options import (
    Delay,
    Digits,
    KeytermBoost,
    Keyterms,
    Language,
    Model,
    ModelsDir,
    PaddingBonus,
    SecondOpinion,
    Seed,
    Temperature,
    Threads,
    keyterm_lines,
)
from edged.cli.writers import Format, TextFrom
from edged.languages import AUTO, DEFAULT_LANGUAGE
from edged.options import DEFAULT_BOOST, Options, from_json_config

RawEncoding: TypeAlias = Literal["pcm", "s16", "s24", "s32", "u8", "f32", "ulaw", "alaw"]
RAW = "Raw audio (without a header)"


def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Audio files, or - for standard input."),
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            metavar="text|srt|vtt|events",
            help="Output format: plain text, SubRip or WebVTT subtitles, or every message as one"
            " JSON line (events).",
        ),
    ] = "text",
    text_from: Annotated[
        TextFrom,
        typer.Option(
            metavar="turns|words",
            help="turns: the text of each turn, recognised again as a whole when it has ended;"
            " more accurate. words: the live words.",
        ),
    ] = "turns",
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir", "-o", metavar="DIR", help="Write one file for each FILE into DIR."
        ),
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Read no faster than a microphone would deliver.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print step times, CPU use and dropped text to stderr.")
    ] = False,
    delay: Delay = 10,
    language: Language = DEFAULT_LANGUAGE,
    temp: Temperature = 0.0,
    seed: Seed = 0,
    padding_bonus: PaddingBonus = 0.0,
    digits: Digits = False,
    keyterms: Keyterms = None,
    keyterm_boost: KeytermBoost = DEFAULT_BOOST,
    model: Model = AUTO,
    models_dir: ModelsDir = None,
    threads: Threads = 1,
    second_opinion: SecondOpinion = "off",
    input_format: Annotated[
        RawEncoding | None,
        typer.Option(
            metavar="ENCODING",
            help="Sample format: pcm (same as s16), s24, s32, u8, f32, ulaw or alaw.",
            rich_help_panel=RAW,
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="Sample rate. Default: 24000.", rich_help_panel=RAW),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of channels. Default: 1.", rich_help_panel=RAW),
    ] = None,
) -> None:
    """Transcribe audio files to text, subtitles or JSON events.

    Reads WAV, FLAC, MP3, Ogg, Opus, M4A, MP4, WebM, WMA and more, at any rate and channel count.

    Standard input (-) is a file with a header, or raw audio: 16-bit mono at 24 kHz by default.

    Examples:

    edged transcribe talk.mp3

    edged transcribe --format srt talk.mp3 > talk.srt

    arecord -q -t raw -f S16_LE -r 24000 -c 1 | edged transcribe -
    """
    from edged.cli.transcribe import TranscribeJob, raw_format
    from edged.cli.transcribe import transcribe as transcribe_files

    asked = {
        "delay_in_frames": delay,
        "language": language,
        "temp": temp,
        "padding_bonus": padding_bonus,
        "digits": digits,
        "keyterms": keyterm_lines(keyterms),
        "keyterm_boost": keyterm_boost,
    }
    job = TranscribeJob(
        options=from_json_config(asked, Options(seed=seed)),
        form=form,
        text_from=text_from,
        output_dir=output_dir,
        raw=raw_format(files, input_format, rate, channels),
        realtime=realtime,
        stats=stats,
        models_dir=models_dir,
        model=model,
        threads=threads,
        second_opinion=second_opinion,
    )
    raise typer.Exit(transcribe_files(files, job))
