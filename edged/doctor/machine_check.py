"""Checks whether this machine is suitable: architecture, memory, power supply and permissions."""

from __future__ import annotations

import getpass
import grp
import os
import platform
import sys
from pathlib import Path

from edged.audio.file_capture import is_file_device
from edged.config.settings import Settings
from edged.doctor.finding import Finding

NEEDED_MB = 250  # resident memory during speech, with a margin
_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_MEMINFO = Path("/proc/meminfo")
_SND = Path("/dev/snd")


def check_machine(meminfo: Path = _MEMINFO, throttled: Path = _THROTTLED) -> list[Finding]:
    """Checks architecture, free memory and power supply. The paths are seams for tests."""
    findings = []
    about = f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    if sys.maxsize <= 2**32:
        remedy = "Install a 64-bit system; onnxruntime does not exist for 32-bit systems."
        findings.append(Finding("fail", "machine", f"{about}: this system is 32-bit", remedy))
    else:
        findings.append(Finding("ok", "machine", about))
    free = _available_mb(meminfo)
    if free is not None and free < NEEDED_MB:
        text = f"only {free:.0f} MB of memory are free; edged needs {NEEDED_MB} MB"
        findings.append(
            Finding("warn", "machine", text, "Stop other programs, or add compressed swap (zram).")
        )
    findings += _power(throttled)
    return findings


def _available_mb(meminfo: Path) -> float | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1000
    except (OSError, ValueError):
        pass
    return None


def _power(throttled: Path) -> list[Finding]:
    """Reads what a Raspberry Pi recorded since it was switched on (vcgencmd get_throttled)."""
    try:
        bits = int(throttled.read_text(), 16)
    except (OSError, ValueError):
        return []
    if bits & 0x10001:
        text = "the supply voltage of the board is, or was, too low"
        return [
            Finding("warn", "power", text, "Use the power supply that the manufacturer recommends.")
        ]
    if bits & 0xE000E:
        text = "the processor is, or was, slowed down because it is too hot"
        return [Finding("warn", "power", text, "Add a heat sink or a fan to the board.")]
    return [
        Finding("ok", "power", "the supply voltage was sufficient and the processor never too hot")
    ]


def check_permissions(settings: Settings, sound_devices: Path = _SND) -> list[Finding]:
    """Checks what this user may open: sound devices, state and spool folders, certificates.

    sound_devices: the folder of ALSA's device files; a seam for tests.
    """
    findings = _sound(settings, sound_devices)
    for what, folder in (("state folder", settings.state_dir), ("spool", settings.spool_path)):
        findings.append(_writable(what, folder))
    for name in ("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file"):
        path: Path | None = getattr(settings, name)
        if path is not None and not os.access(path, os.R_OK):
            text = f"{path} (EDGED_{name.upper()}) cannot be read by {_user()}"
            remedy = (
                f"Make sure that it exists, then run: sudo chgrp {_group()} {path};"
                f" sudo chmod g+r {path}"
            )
            findings.append(Finding("fail", "certificates", text, remedy))
    return findings


def _sound(settings: Settings, devices: Path) -> list[Finding]:
    if is_file_device(settings.alsa_device) or not devices.is_dir():
        return []
    closed = [p for p in devices.glob("pcm*c") if not os.access(p, os.R_OK | os.W_OK)]
    if not closed:
        return [Finding("ok", "permissions", f"{_user()} may use the sound devices")]
    text = f"{_user()} may not open {closed[0]}"
    remedy = f"Run `sudo usermod -aG audio {_user()}`, then log in again."
    return [Finding("fail", "permissions", text, remedy)]


def _writable(what: str, folder: Path) -> Finding:
    """Checks that a folder can be written, or created if it does not exist."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("ok", "permissions", f"{_user()} may write to the {what} {folder}")
    text = f"{_user()} may not write to the {what} {folder}"
    return Finding("fail", "permissions", text, f"Run `sudo chown -R {_user()} {place}`.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return str(os.getuid())


def _group() -> str:
    try:
        return grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        return str(os.getgid())
