"""Replaces a file as a whole: readers, a crash and a power cut find the old content or the new one.

The new content is written to a temporary file in the same folder, flushed to the disk, renamed
over the old file, and the rename is flushed too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems answer that cannot flush a folder, and folders that may be written but not read.
_CANNOT_FLUSH = (errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def temporary(path: Path) -> Path:
    """The name that the new content of `path` has until it is complete.

    A killed process may leave it behind; the next replacement of `path` removes it. At most one
    process may replace a file at a time.
    """
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def replacing(path: Path, mode: int | None = None, like: Path | None = None) -> Iterator[Path]:
    """Gives an empty file to write to, which becomes `path` when the block ends without an error.

    If the block raises, `path` stays as it was and nothing is left beside it. Folders above `path`
    must exist. A symbolic link at the temporary name is never followed.

    Args:
        path: the file to replace or to create.
        mode: its permissions; by default those of any new file (0o666 less the umask).
        like: an existing file whose owner, group and permissions `path` gets, instead of `mode`.

    Raises:
        OSError: the file cannot be written or renamed; `filename` is `path`.
    """
    new = temporary(path)
    with _about(path):
        new.unlink(missing_ok=True)
        twin = None if like is None else like.stat()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        first_mode = 0o600 if twin else 0o666 if mode is None else mode
        descriptor = os.open(new, flags, first_mode)
        try:
            if twin is not None:
                os.fchown(descriptor, twin.st_uid, twin.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(twin.st_mode))
        finally:
            os.close(descriptor)
    try:
        yield new
        with _about(path):
            flush(new)
            new.replace(path)
            flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def write_text(path: Path, text: str, mode: int | None = None, like: Path | None = None) -> None:
    """Replaces `path` by `text` in UTF-8, line ends as they are. See `replacing`."""
    with replacing(path, mode, like) as new, _about(path):
        new.write_text(text, encoding="utf-8", newline="")


def flush(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """As `flush`, where the file system can do it for folders. Disk errors are raised."""
    try:
        flush(folder)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Names `path` in an OSError of the block, which may name the temporary file or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
