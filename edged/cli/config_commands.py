"""Declares `edged config show | check | example | history | rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edged.cli.shared_options import EnvFile, Json

app = typer.Typer(
    help="Show and check settings, print an example, go back to earlier ones.",
    no_args_is_help=True,
)


@app.command()
def show(env_file: EnvFile = None, as_json: Json = False) -> None:
    """Show every setting, its value and where the value comes from. Secrets are masked."""
    from rich.console import Console

    from edged.config.settings_report import show as show_settings
    from edged.config.sources import load
    from edged.config.state_file import StateFile

    overrides = StateFile(load(env_file).settings.state_dir).read()
    show_settings(load(env_file, None, overrides), Console(), as_json)


@app.command()
def check(
    env_file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The settings file. FILE.d/*.env are checked too."),
    ],
    as_json: Json = False,
) -> None:
    """Check a settings file and list all its problems. The exit code is 1 if there are any."""
    from rich.console import Console

    from edged.config.settings_report import check as check_settings

    raise typer.Exit(check_settings(env_file, Console(), as_json))


@app.command()
def example() -> None:
    """Print a settings file with every setting, its default and its allowed values."""
    from edged.config.settings_report import example as example_settings

    print(example_settings(), end="")


@app.command()
def history(env_file: EnvFile = None, as_json: Json = False) -> None:
    """List the settings files that were in use before, newest first."""
    from rich.console import Console

    from edged.cli.config_history import DEFAULT_ENV_FILE
    from edged.cli.config_history import history as show_history

    show_history(env_file or DEFAULT_ENV_FILE, Console(), as_json)


@app.command()
def rollback(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A name that `edged config history` shows. Default: the newest that differs from"
            " the files of now.",
        ),
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Restore settings files that were in use before. A running daemon loads them by itself."""
    from rich.console import Console

    from edged.cli.config_history import DEFAULT_ENV_FILE
    from edged.cli.config_history import rollback as restore_settings

    restore_settings(name, env_file or DEFAULT_ENV_FILE, Console())
