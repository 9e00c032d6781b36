"""Declares `edged serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from edged.cli.shared_options import EnvFile, LogLevel


def serve(
    env_file: EnvFile = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to listen on. Default: EDGED_LISTEN, else 127.0.0.1:8765.",
        ),
    ] = None,
    wyoming: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address for Wyoming, the protocol of Home Assistant's voice assistants.",
        ),
    ] = None,
    max_streams: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Most streams at the same time. Default: EDGED_MAX_STREAMS."
        ),
    ] = None,
    log_level: LogLevel = None,
) -> None:
    """Run only the API server, without a microphone and without MQTT, until stopped.

    Example: edged serve --listen 127.0.0.1:8765
    """
    from edged.cli.serve import serve as run_server

    flags = {
        "listen": listen,
        "wyoming": wyoming,
        "max_streams": max_streams,
        "log_level": log_level,
    }
    raise typer.Exit(run_server(env_file, flags))
