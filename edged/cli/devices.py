"""Prints the microphones of this machine for `edged devices`.

A table in a terminal, one tab-separated line for each device in a pipe, an array with --json.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from edged.audio import alsa
from edged.audio.capture_devices import CaptureDevice, list_devices
from edged.errors import DeviceError


def show_devices(console: Console, as_json: bool = False, current: str | None = None) -> None:
    """Prints the list and marks `current`, the device of the settings.

    Raises DeviceError if there is no microphone.
    """
    devices = list_devices()
    if as_json:
        rows = [{**asdict(each), "current": _is_current(each, current)} for each in devices]
        console.print_json(json.dumps(rows))
    if not devices:
        raise DeviceError(alsa.no_microphone_message())
    if as_json:
        return
    if not console.is_terminal:
        for each in devices:
            notes = ", ".join(_notes(each, current))
            print(each.name, each.description, notes, sep="\t", file=console.file)
        return
    console.print(_table(devices, current))
    console.print("\nTo use one, set EDGED_ALSA_DEVICE to its name.", style="dim", highlight=False)


def _table(devices: list[CaptureDevice], current: str | None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "description", ""):
        table.add_column(title, overflow="fold")
    for each in devices:
        style = "dim" if each.in_use else ""
        notes = ", ".join(_notes(each, current))
        table.add_row(each.name, each.description, notes, style=style)
    return table


def _notes(device: CaptureDevice, current: str | None) -> list[str]:
    notes = []
    if _is_current(device, current):
        notes.append("chosen")
    if device.default and device.name != "default":
        notes.append("the default")
    if device.in_use:
        notes.append(f"in use by {device.in_use}")
    if device.usb:
        notes.append(f"also {device.usb}")
    return notes


def _is_current(device: CaptureDevice, current: str | None) -> bool:
    return current is not None and current.lower() in (device.name.lower(), device.usb)
