"""Options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edged.errors import ConfigError
from edged.keyterm_list import read_terms

RECOGNISER = "Recognition (each option can also be set by its EDGED_ variable)"

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        envvar="EDGED_ENV_FILE",
        metavar="FILE",
        help="File with settings (EDGED_NAME=value lines). FILE.d/*.env are read after it.",
    ),
]
BrokerUrl = Annotated[
    str | None,
    typer.Option(
        "--mqtt-url",
        metavar="URL",
        help="The MQTT broker: mqtt://host, mqtts://host (TLS), or embedded (a broker inside"
        " `edged run`). Default: EDGED_MQTT_URL.",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Delay = Annotated[
    int,
    typer.Option(
        "--delay",
        envvar="EDGED_DELAY_IN_FRAMES",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="STEPS",
        help="How long to wait before a word is final, in steps of 80 ms: 7, 8, 10, 12, 14, 16,"
        " 20, 24, 32, 36 or 48. A longer delay is more accurate.",
    ),
]
Language = Annotated[
    str,
    typer.Option(
        envvar="EDGED_LANGUAGE",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="CODE",
        help="The language that is spoken, or auto to find it for each turn.",
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temp",
        envvar="EDGED_TEMP",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="0..1",
        help="Sampling temperature. 0 always takes the most probable words.",
    ),
]
Digits = Annotated[
    bool,
    typer.Option(
        "--digits/--no-digits",
        envvar="EDGED_DIGITS",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        help="Write spoken numbers as digits in the text of turns.",
    ),
]
PaddingBonus = Annotated[
    float,
    typer.Option(
        envvar="EDGED_PADDING_BONUS",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="-4..4",
        help="Negative values commit words sooner, positive values wait for more certainty.",
    ),
]
Keyterms = Annotated[
    Path | None,
    typer.Option(
        "--keyterms",
        metavar="FILE",
        rich_help_panel=RECOGNISER,
        help="Names and other words to expect, one a line; `Ecobee: echo bee` writes Ecobee where"
        " `echo bee` is recognised.",
    ),
]
KeytermBoost = Annotated[
    float,
    typer.Option(
        envvar="EDGED_KEYTERM_BOOST",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="0..6",
        help="How much those words are preferred to others that sound alike.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=RECOGNISER,
        metavar="N",
        help="Random seed for --temp: the same seed gives the same text.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        envvar="EDGED_MODEL",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        metavar="NAME",
        help="Speech model; auto takes the best installed one for the language. `edged models list`"
        " shows the names.",
    ),
]
SecondOpinion = Annotated[
    Literal["auto", "off"],
    typer.Option(
        envvar="EDGED_SECOND_OPINION",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        help="auto asks whisper-base about the text of English turns, where it is installed.",
    ),
]
ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        envvar="EDGED_MODELS_DIR",
        show_envvar=False,
        metavar="DIR",
        help="Directory of the models. Default: EDGED_MODELS_DIR, else the usual place.",
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        envvar="EDGED_THREADS",
        show_envvar=False,
        rich_help_panel=RECOGNISER,
        min=1,
        metavar="N",
        max=8,
        help="Number of threads for the speech model.",
    ),
]


def keyterm_lines(file: Path | None) -> list[str]:
    """The terms of a file given by `--keyterms`; none without one.

    Raises ConfigError if it cannot be read, or with one sentence for each line that is no term.
    """
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"the key terms {file} cannot be read: {problem}") from problem
    found = read_terms(lines)
    if found.problems:
        raise ConfigError(f"{file}: {'; '.join(found.problems)}")
    return list(found.lines)
