"""Declares `edged listen`."""

from __future__ import annotations

from typing import Annotated

import typer

from edged.cli.shared_options import BrokerUrl, EnvFile, Json


def listen(
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE", help="Name of one device. Default: all devices.", show_default=False
        ),
    ] = "+",
    env_file: EnvFile = None,
    mqtt_url: BrokerUrl = None,
    as_json: Json = False,
) -> None:
    """Show live what the devices of a broker recognise.

    In a terminal words appear as they are recognised; in a pipe there is one line for each turn.

    Example: edged listen --mqtt-url mqtt://hub.local kitchen
    """
    from rich.console import Console

    from edged.cli.listen import listen as show_messages
    from edged.config.sources import load
    from edged.mqtt.embedded_broker import EmbeddedBroker

    settings = load(env_file, {"mqtt_url": mqtt_url}).settings
    show_messages(settings.broker(EmbeddedBroker().address), Console(), device, as_json)
