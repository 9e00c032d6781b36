"""Notices that the settings files were replaced, so that pushing them is all that a push takes.

The daemon looks itself, once a second, at a handful of directory entries. A path unit of systemd
would start a reload too, but is blind while that reload runs (systemd.path stops watching until
the service that it triggered has ended), which loses the second file of a push; and there is none
in a container.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from edged.config.sources import files_of
from edged.errors import ConfigError

_Signature: TypeAlias = tuple[tuple[str, int, int], ...]


_EVERY_S = 1.0


class FilesWatch:
    """Owned by the main thread."""

    def __init__(self, env_file: Path | None) -> None:
        self._env_file = env_file
        self._read = self._before = self._look()
        self._next = 0.0

    def note(self) -> None:
        """The files are about to be read, whatever for."""
        self._read = self._before = self._look()

    def changed(self, now: float) -> bool:
        """Whether the files differ from those that were read, and have rested for a second, so
        that no half-finished push is taken. `now`: seconds of a clock that does not jump."""
        if now < self._next:
            return False
        self._next = now + _EVERY_S
        found = self._look()
        rested, self._before = found == self._before, found
        return rested and found != self._read

    def _look(self) -> _Signature:
        found = []
        try:
            for path in files_of(self._env_file)[0]:
                info = path.stat()
                found.append((str(path), info.st_ino, info.st_ctime_ns))  # a chmod counts too
        except (OSError, ConfigError):
            found.append(("missing", 0, 0))  # told by the reload that this causes, once
        return tuple(found)
