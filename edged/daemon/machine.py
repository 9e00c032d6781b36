"""What the operating system says about this device: board, temperature, memory."""

from __future__ import annotations

import platform
from pathlib import Path

_BOARD = Path("/proc/device-tree/model")
_THERMAL = Path("/sys/class/thermal")
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = 4096


def board() -> str:
    """The name of the board, or else the processor architecture."""
    try:
        return _BOARD.read_text().rstrip("\0\n")
    except OSError:
        return platform.machine()


def rss_mb(statm: Path = _STATM) -> float | None:
    """Resident memory of this process in MB (1e6 bytes); None if unknown."""
    try:
        return round(int(statm.read_text().split()[1]) * _PAGE_BYTES / 1e6, 1)
    except (OSError, ValueError, IndexError):
        return None


def cpu_temp_c(folder: Path = _THERMAL) -> float | None:
    """Temperature in degrees Celsius of the zone `cpu-thermal` (as on a Pi), else of the hottest.

    None if there is no readable zone.
    """
    found: dict[str, float] = {}
    for zone in sorted(folder.glob("thermal_zone*")):
        try:
            kind = (zone / "type").read_text().strip()
            found[kind] = int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
    if not found:
        return None
    return round(found.get("cpu-thermal", max(found.values())), 1)
