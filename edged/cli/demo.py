"""Chooses settings for `edged run --demo`, which needs neither a broker nor a microphone.

Settings that the user has made are kept. Otherwise the broker is the one that already runs here or
else one inside edged, and without a microphone the sample speech is played.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edged.audio.capture_devices import list_devices
from edged.audio.file_capture import SAMPLE
from edged.config.sources import load
from edged.errors import DeviceError
from edged.mqtt.embedded_broker import PORT


def demo_flags(
    env_file: Path | None,
    flags: Mapping[str, Any],
    console: Console,
    has_microphone: Callable[[], bool] | None = None,
    port_in_use: Callable[[int], bool] | None = None,
) -> dict[str, Any]:
    """Returns `flags` with what the demonstration needs, and prints what was chosen.

    has_microphone, port_in_use: look at this machine; tests give others.
    """
    chosen = dict(flags)
    origins = load(env_file, flags).origins
    if origins["mqtt_url"].kind == "default":
        chosen["mqtt_url"] = (
            "mqtt://localhost" if (port_in_use or _port_in_use)(PORT) else "embedded"
        )
    if origins["alsa_device"].kind == "default" and not (has_microphone or _has_microphone)():
        chosen["alsa_device"] = SAMPLE
        console.print("There is no microphone here. Playing the sample speech instead.")
    own = chosen.get("mqtt_url") == "embedded"
    broker = (
        "An MQTT broker runs inside edged." if own else "Using the MQTT broker of the settings."
    )
    console.print(f"{broker} In another terminal `edged listen --json` shows all messages.")
    console.print("Press Ctrl-C to stop.")
    return chosen


def _port_in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _has_microphone() -> bool:
    try:
        return bool(list_devices())
    except DeviceError:
        return False
