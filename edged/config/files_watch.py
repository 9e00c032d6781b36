"""Notices that the settings files were replaced, so that a push needs no command on the device.

The daemon compares a handful of directory entries once a second. A path unit of systemd would not
do: it stops watching until the reload that it triggered has ended, so that it misses the second
file of a push; and a container has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from edged.config.sources import files_of
from edged.errors import ConfigError

_Signature: TypeAlias = tuple[tuple[str, int, int], ...]

_INTERVAL_S = 1.0


class FilesWatch:
    """Watches an env file and its folder, and the file of key terms. Used by the main thread
    only."""

    def __init__(
        self, env_file: Path | None, keyterms_file: Callable[[], Path | None] = lambda: None
    ) -> None:
        """keyterms_file: gives the one of the settings in force."""
        self._env_file = env_file
        self._keyterms_file = keyterms_file
        self._read = self._previous = self._signature()
        self._next = 0.0

    def mark_read(self) -> None:
        """To be called just before the files are read."""
        self._read = self._previous = self._signature()

    def changed(self, now: float) -> bool:
        """Whether the files differ from those that were read, and did not change for a second.

        The second keeps a push that is still going on from being taken half. `now` is a time of a
        monotonic clock.
        """
        if now < self._next:
            return False
        self._next = now + _INTERVAL_S
        found = self._signature()
        at_rest, self._previous = found == self._previous, found
        return at_rest and found != self._read

    def _signature(self) -> _Signature:
        found = []
        try:
            for path in files_of(self._env_file)[0]:
                info = path.stat()
                found.append((str(path), info.st_ino, info.st_ctime_ns))  # changed by chmod too
        except (OSError, ConfigError):
            found.append(("missing", 0, 0))  # the reload that follows reports it
        keyterms_file = self._keyterms_file()
        if keyterms_file is not None:
            try:
                info = keyterms_file.stat()
                found.append((str(keyterms_file), info.st_ino, info.st_ctime_ns))
            except OSError:
                found.append((str(keyterms_file), 0, 0))
        return tuple(found)
