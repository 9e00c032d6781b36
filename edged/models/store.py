"""The models directory: where it is, what it contains, and how files get into it.

DIR/<model>/<file>          downloaded files; they get this name after verification
DIR/<model>/fetched.json    SHA-256 of files for which the catalogue has none
DIR/<model>/graphs/         built graphs and their stamp (build.py)
DIR/downloads/*.part        incomplete downloads, which are resumed
DIR/.lock                   held by the one process that writes here
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from edged import atomicfile, resources
from edged.errors import ModelError
from edged.models.catalogue import Entry, File

REPAIR = "Run `edged models fetch` to repair it."
SYSTEM_DIR = Path("/var/lib/edged/models")
_CHUNK = 1 << 20


class DiskError(ModelError):
    """The models directory cannot be written. Another source of the files would not help."""


class FileState(Enum):
    """State of one model file; the values are for people."""

    READY = "ready"
    MISSING = "not fetched"
    DAMAGED = "damaged"


def repair_hint(entry: Entry) -> str:
    """Returns the sentence that names the command which repairs a model."""
    return REPAIR if entry.default else f"Run `edged models fetch {entry.name}` to repair it."


def fetch_hint(entry: Entry) -> str:
    """Returns the sentence that names the command which installs a model."""
    return f"Run `edged models fetch {'' if entry.default else entry.name}".rstrip() + "`."


def default_models_dir() -> Path:
    """Returns EDGED_MODELS_DIR, else the checkout's models/built, the system's or the user's."""
    if chosen := os.environ.get("EDGED_MODELS_DIR"):
        return Path(chosen).expanduser()
    if checkout := resources.checkout():
        return checkout / "models" / "built"
    if os.path.isdir(SYSTEM_DIR):  # False if this user may not look there
        return SYSTEM_DIR
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "edged" / "models"


@dataclass(frozen=True)
class ModelStore:
    """A models directory. Creating the object does not touch the disk."""

    root: Path

    def path(self, entry: Entry, file: File) -> Path:
        """Returns where a file is or will be; files that come with edged stay where they are."""
        return (
            resources.models_data() / file.local
            if file.local
            else self.root / entry.name / file.name
        )

    def graphs(self, entry: Entry) -> Path:
        """Returns the folder of the built graphs."""
        return self.root / entry.name / "graphs"

    @property
    def downloads(self) -> Path:
        """The folder of incomplete downloads."""
        return self.root / "downloads"

    def expected_sha256(self, entry: Entry, file: File) -> str | None:
        """Returns the catalogue's SHA-256, else that of the first download, else None."""
        return file.sha256 or self._recorded(entry).get(file.name)

    def quick_check(self, entry: Entry, file: File) -> FileState:
        """Checks existence and size only, which is fast enough for every start."""
        path = self.path(entry, file)
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError:
            return FileState.DAMAGED
        if size is None:
            return FileState.MISSING
        known = self.expected_sha256(entry, file) is not None
        right = file.size is None or size == file.size
        return FileState.READY if known and right else FileState.DAMAGED

    def check(self, entry: Entry, file: File) -> FileState:
        """Checks the SHA-256 too."""
        state = self.quick_check(entry, file)
        if state is not FileState.READY:
            return state
        path = self.path(entry, file)
        try:
            same = sha256(path) == self.expected_sha256(entry, file)
        except OSError:
            return FileState.DAMAGED
        return FileState.READY if same else FileState.DAMAGED

    def record(self, entry: Entry, file: File, digest: str) -> None:
        """Stores the SHA-256 of a file that has none in the catalogue. Later checks compare it."""
        known = {**self._recorded(entry), file.name: digest}
        with self.incoming(self.root / entry.name / "fetched.json") as part:
            part.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")

    def _recorded(self, entry: Entry) -> dict[str, str]:
        try:
            known = json.loads((self.root / entry.name / "fetched.json").read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    @contextmanager
    def incoming(self, path: Path) -> Iterator[Path]:
        """A temporary file beside `path`; it becomes `path` when the block ends without an error.

        Raises DiskError.
        """
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomicfile.replacing(path) as part:
                yield part

    @contextmanager
    def lock(self, report: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Holds the directory for one writer. Calls `report` once if it has to wait for another."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"Waiting for another edged that writes to {self.root}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Removes temporary files of killed processes and `.part` files older than a month."""
        for left in [*self.root.glob("*/.*.tmp"), *self.root.glob("downloads/*.tmp")]:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        a_month_ago = time.time() - 30 * 86_400
        for part in self.downloads.glob("*.part"):
            if part.stat().st_mtime < a_month_ago:
                part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Returns the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32c(path: Path) -> str:
    """Returns the CRC-32C (Castagnoli, RFC 3720) of a file, as base64 of its big-endian bytes."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


def has_bytes_of(path: Path, file: File, expected_sha256: str | None) -> bool:
    """Whether `path` has the content of `file`, judged by SHA-256, else by size and CRC-32C."""
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if expected_sha256:
        return sha256(path) == expected_sha256
    return file.crc32c is None or crc32c(path) == file.crc32c


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a DiskError about `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> DiskError:
    """Returns the error for a `path` that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            f"{path} cannot be written because the disk is full",
            "Free about 200 MB and run the command again.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(
            f"this user may not write {path}",
            "Run the command as the owner of the models directory, or choose another directory with"
            " --models-dir or EDGED_MODELS_DIR.",
        )
    return DiskError(f"{path} cannot be written: {error.strerror or error}")
