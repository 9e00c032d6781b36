"""Declares `edged doctor`."""

from __future__ import annotations

import typer

from edged.cli.shared_options import BrokerUrl, EnvFile, Json


def doctor(env_file: EnvFile = None, mqtt_url: BrokerUrl = None, as_json: Json = False) -> None:
    """Check microphone, models, speed, broker, Home Assistant and permissions.

    Prints a remedy for each problem. The exit code is 1 if a check failed.
    """
    from rich.console import Console

    from edged.doctor.checkup import checkup

    raise typer.Exit(checkup(env_file, {"mqtt_url": mqtt_url}, Console(), as_json))
