"""Ensures that one daemon at a time uses a state directory, and a spool."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edged.config.settings import Settings
from edged.errors import ConfigError


@contextlib.contextmanager
def lock_directories(settings: Settings) -> Iterator[None]:
    """Locks the state directory and, if it is elsewhere, the spool's, for one daemon.

    Raises ConfigError if another daemon uses one of them.
    """
    with contextlib.ExitStack() as locks:
        locks.enter_context(lock_state_dir(settings.state_dir) or contextlib.nullcontext())
        spool = settings.spool_dir
        if spool is not None and spool.resolve() != settings.state_dir.resolve():
            lock = lock_state_dir(spool, "EDGED_SPOOL_DIR")
            locks.enter_context(lock or contextlib.nullcontext())
        yield


def lock_state_dir(folder: Path, setting: str = "EDGED_STATE_DIR") -> IO[bytes] | None:
    """Locks a directory, which `setting` names, until the file is closed or the process ends.

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
            f"another edged already uses the directory {folder}: stop it, or give this one a"
            f" directory of its own in {setting}"
        ) from None
    return file
