"""How the daemon is: heartbeats of its threads, and what the board says about itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STALE_S = 10.0  # every loop of ours turns at least once a second

_THERMAL = Path("/sys/class/thermal")
_STATM = Path("/proc/self/statm")
_PAGE = 4096


class Heartbeats:
    """Says which threads have stopped turning.

    Each thread beats whether or not there is a microphone or a broker, so that an unplugged cable
    is never answered with a restart.
    """

    def __init__(self, stale_s: float = STALE_S) -> None:
        self._watched: dict[str, tuple[Callable[[], float], float]] = {}
        self._stale_s = stale_s

    def watch(self, name: str, age_s: Callable[[], float], stale_s: float | None = None) -> None:
        """`age_s` gives the seconds since the thread's last beat. `stale_s`: its own limit."""
        self._watched[name] = age_s, self._stale_s if stale_s is None else stale_s

    def stale(self) -> list[str]:
        """Names of the threads that have not beaten for `stale_s`."""
        watched = list(self._watched.items())
        return [name for name, (age_s, stale_s) in watched if age_s() > stale_s]


def rss_mb(statm: Path = _STATM) -> float | None:
    """Resident memory of this process in MB (1e6 bytes)."""
    try:
        return round(int(statm.read_text().split()[1]) * _PAGE / 1e6, 1)
    except (OSError, ValueError, IndexError):
        return None


def cpu_temp_c(folder: Path = _THERMAL) -> float | None:
    """The processor's temperature from sysfs (a Pi's `cpu-thermal`), the hottest zone elsewhere."""
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
