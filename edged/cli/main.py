"""The `edged` command: creates the Typer application and registers all commands.

Exit codes are described in edged/errors.py.
"""

from __future__ import annotations

from typing import Annotated

import typer

from edged.cli import bench_command, stdout
from edged.cli.config_commands import app as config
from edged.cli.devices_command import devices
from edged.cli.doctor_command import doctor
from edged.cli.exits import ErrorReportingGroup
from edged.cli.listen_command import listen
from edged.cli.models_commands import app as models
from edged.cli.run_command import run
from edged.cli.serve_command import serve
from edged.cli.transcribe_command import transcribe

app = typer.Typer(
    cls=ErrorReportingGroup,
    name="edged",
    help="Real-time speech recognition on this machine. No audio leaves it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def edged(
    version: Annotated[
        bool, typer.Option("--version", help="Print versions and installed models, and exit.")
    ] = False,
) -> None:
    if version:
        from edged.cli.version_report import version_report

        print(version_report())
        raise typer.Exit


app.command()(run)
app.command()(transcribe)
app.command()(listen)
app.command()(devices)
app.add_typer(models, name="models")
app.add_typer(config, name="config")
app.command()(doctor)
app.command()(serve)
app.command(context_settings=bench_command.SETTINGS)(bench_command.bench)


def main() -> None:
    """Runs the command line and exits."""
    stdout.install()
    app()
