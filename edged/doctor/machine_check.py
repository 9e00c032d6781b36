"""Is this machine fit: its architecture, memory, power, and what this user may touch."""

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

NEEDED_MB = 250  # resident while somebody speaks, with some room
_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_MEMINFO = Path("/proc/meminfo")
_SND = Path("/dev/snd")


def check_machine(meminfo: Path = _MEMINFO, throttled: Path = _THROTTLED) -> list[Finding]:
    findings = []
    about = f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    if sys.maxsize <= 2**32:
        remedy = "install a 64-bit system: there is no onnxruntime for 32-bit ones"
        findings.append(Finding("fail", "machine", f"{about}: this system is 32-bit", remedy))
    else:
        findings.append(Finding("ok", "machine", about))
    free = _available_mb(meminfo)
    if free is not None and free < NEEDED_MB:
        text = f"only {free:.0f} MB of memory are free, edged needs {NEEDED_MB}"
        findings.append(Finding("warn", "machine", text, "stop other programs, or add swap (zram)"))
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
    """A Pi's own record since it was switched on (raspberrypi.com, vcgencmd get_throttled)."""
    try:
        bits = int(throttled.read_text(), 16)
    except (OSError, ValueError):
        return []
    if bits & 0x10001:
        text = "the board's supply voltage is, or was, too low"
        return [Finding("warn", "power", text, "use the board maker's own power supply")]
    if bits & 0xE000E:
        text = "the processor is, or was, slowed down because it was hot"
        return [Finding("warn", "power", text, "give the board a heat sink or a fan")]
    return [Finding("ok", "power", "enough voltage, and never too hot")]


def check_permissions(settings: Settings) -> list[Finding]:
    findings = _sound(settings)
    for what, folder in (("state folder", settings.state_dir), ("spool", settings.spool_path)):
        findings.append(_writable(what, folder))
    for name in ("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file"):
        path: Path | None = getattr(settings, name)
        if path is not None and not os.access(path, os.R_OK):
            text = f"{path} (EDGED_{name.upper()}) cannot be read by {_user()}"
            remedy = (
                f"see that it exists, then: sudo chgrp {_group()} {path}; sudo chmod g+r {path}"
            )
            findings.append(Finding("fail", "certificates", text, remedy))
    return findings


def _sound(settings: Settings) -> list[Finding]:
    if is_file_device(settings.alsa_device) or not _SND.is_dir():
        return []
    closed = [p for p in _SND.glob("pcm*c") if not os.access(p, os.R_OK | os.W_OK)]
    if not closed:
        return [Finding("ok", "permissions", f"{_user()} may use the sound devices")]
    text = f"{_user()} may not open {closed[0]}"
    remedy = f"sudo usermod -aG audio {_user()}, then log in again"
    return [Finding("fail", "permissions", text, remedy)]


def _writable(what: str, folder: Path) -> Finding:
    """The folder need not exist: then its nearest parent must let us make it."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("ok", "permissions", f"{_user()} may write to the {what} {folder}")
    text = f"{_user()} may not write to the {what} {folder}"
    return Finding("fail", "permissions", text, f"sudo chown -R {_user()} {place}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return str(os.getuid())


def _group() -> str:
    try:
        return grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        return str(os.getgid())
