"""Declares `edged run`."""

from __future__ import annotations

from typing import Annotated

import typer

from edged.cli.shared_options import BrokerUrl, EnvFile, LogLevel


def run(
    env_file: EnvFile = None,
    mqtt_url: BrokerUrl = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of this device in every topic. Default: host name."
        ),
    ] = None,
    alsa_device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Microphone (`edged devices` lists them), sample for the sample speech, or"
            " file:PATH.",
        ),
    ] = None,
    log_level: LogLevel = None,
    captions: Annotated[
        bool,
        typer.Option("--captions", help="Show the recognised words here, as `edged listen` does."),
    ] = False,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Try edged: starts a broker of its own, shows captions, and plays sample speech"
            " if there is no microphone.",
        ),
    ] = False,
) -> None:
    """Recognise speech from the microphone and publish it to MQTT, until stopped.

    SIGHUP reloads the settings. SIGTERM publishes what has been said so far and exits.
    """
    from edged.cli.run import run as run_daemon

    flags = {
        "mqtt_url": mqtt_url,
        "device": device,
        "alsa_device": alsa_device,
        "log_level": log_level,
    }
    if demo:
        from rich.console import Console

        from edged.cli.demo import demo_flags

        flags = demo_flags(env_file, flags, Console())
    raise typer.Exit(run_daemon(env_file, flags, captions=captions or demo))
