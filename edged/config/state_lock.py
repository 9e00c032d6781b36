"""Ensures that one daemon at a time uses a state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from edged.errors import ConfigError


def lock_state_dir(folder: Path) -> IO[bytes] | None:
    """Locks a state directory until the returned file is closed or the process ends.

    Two daemons in one directory would send and delete each other's stored messages, and each would
    undo the other's settings. Returns None if the directory cannot be written, where nothing can be
    stored either. Raises ConfigError if another process holds the lock.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    file = os.fdopen(descriptor, "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"another edged already uses the state directory {folder}: stop it, or give this one a"
            " directory of its own in EDGED_STATE_DIR"
        ) from None
    return file
