"""Declares `edged devices`."""

from __future__ import annotations

from edged.cli.shared_options import Json


def devices(as_json: Json = False) -> None:
    """List the microphones of this machine, by names that stay the same after a reboot."""
    from rich.console import Console

    from edged.cli.devices import show_devices
    from edged.config.sources import load

    show_devices(Console(), as_json, load().settings.alsa_device)
