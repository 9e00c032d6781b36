"""Where messages wait while the broker is away, and how many."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where messages wait while the broker is away, and how many.

    Attributes:
        dir: the spool's folder on disk. It is made when the first message has to wait.
        max_mb: the largest size of the spool. Beyond it the oldest messages are dropped.
        max_age_s: older messages are dropped. What an earlier run left is kept for a day whatever
            its age, because it may have been stored while the clock was wrong.
        journal_dir: a folder on a memory file system for what a healthy broker has not
            acknowledged yet. None: a killed daemon may lose the last second.
    """

    dir: Path
    max_mb: float = 16
    max_age_s: float = 30 * 86400
    journal_dir: Path | None = None


def default_journal_dir() -> Path | None:
    """Returns a private folder on a memory file system: systemd's, the login session's or root's.

    The unit needs RuntimeDirectoryPreserve=restart, or systemd empties the folder at a restart.
    """
    systemd = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if systemd:
        return Path(systemd)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session:
        return Path(session) / "edged"
    return Path("/run/edged") if os.geteuid() == 0 else None
