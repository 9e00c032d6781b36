"""`edged run --demo`: everything that edged does, on a machine that has nothing.

What somebody has set is kept. Otherwise the broker is one inside the daemon (or the one that
already runs here), and where there is no microphone the sample speech is played as if spoken.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edged.audio.capture_devices import list_devices
from edged.audio.file_capture import SAMPLE
from edged.config.sources import load
from edged.errors import DeviceError
from edged.mqtt.embedded_broker import PORT


def demo_flags(env_file: Path | None, flags: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """`flags` with what the demonstration needs. Says on `console` what it chose."""
    chosen = dict(flags)
    origins = load(env_file, flags).origins
    if origins["mqtt_url"].kind == "default":
        chosen["mqtt_url"] = "mqtt://localhost" if _taken(PORT) else "embedded"
    if origins["alsa_device"].kind == "default" and not _has_microphone():
        chosen["alsa_device"] = SAMPLE
        console.print("There is no microphone here: the sample speech is played instead.")
    what = "inside" if chosen.get("mqtt_url") == "embedded" else "as set"
    console.print(f"The broker is {what}: `edged listen --json` shows its messages. Ctrl-C ends.")
    return chosen


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _has_microphone() -> bool:
    try:
        return bool(list_devices())
    except DeviceError:
        return False
