"""The models directory: where it is, what is in it, how a file gets into it whole or not at all.

DIR/<model>/<file>          fetched files, verified before they get their name
DIR/<model>/fetched.json    SHA-256 of files that the catalogue knows no SHA-256 of
DIR/<model>/graphs/         built graphs and their stamp (built.py)
DIR/downloads/*.part        what a broken download left, to go on from
DIR/.lock                   held by the one edged that is writing here
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

MEND = "`edged models fetch` mends it"
SYSTEM_DIR = Path("/var/lib/edged/models")
_CHUNK = 1 << 20


class DiskError(ModelError):
    """The models directory cannot be written: no other source would help."""


class State(Enum):
    READY = "ready"
    MISSING = "not fetched"
    DAMAGED = "damaged"


def default_models_dir() -> Path:
    """EDGED_MODELS_DIR, else a checkout's models/built, else the system's, else the user's."""
    if chosen := os.environ.get("EDGED_MODELS_DIR"):
        return Path(chosen).expanduser()
    if checkout := resources.checkout():
        return checkout / "models" / "built"
    if os.path.isdir(SYSTEM_DIR):  # no, where this user may not look: the service's own models
        return SYSTEM_DIR
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "edged" / "models"


@dataclass(frozen=True)
class Store:
    """One models directory. Making one touches nothing."""

    root: Path

    def path(self, entry: Entry, file: File) -> Path:
        """Where a file is, or will be; shipped files stay where they were installed."""
        return (
            resources.models_data() / file.local
            if file.local
            else self.root / entry.name / file.name
        )

    def graphs(self, entry: Entry) -> Path:
        return self.root / entry.name / "graphs"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    def expected_sha256(self, entry: Entry, file: File) -> str | None:
        """From the catalogue, else as it was when first fetched; None before that."""
        return file.sha256 or self._recorded(entry).get(file.name)

    def glance(self, entry: Entry, file: File) -> State:
        """By existence and size only: cheap enough for every start."""
        path = self.path(entry, file)
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError:
            return State.DAMAGED
        if size is None:
            return State.MISSING
        known = self.expected_sha256(entry, file) is not None
        right = file.size is None or size == file.size
        return State.READY if known and right else State.DAMAGED

    def check(self, entry: Entry, file: File) -> State:
        """By its every byte."""
        state = self.glance(entry, file)
        if state is not State.READY:
            return state
        path = self.path(entry, file)
        try:
            same = sha256(path) == self.expected_sha256(entry, file)
        except OSError:
            return State.DAMAGED
        return State.READY if same else State.DAMAGED

    def record(self, entry: Entry, file: File, digest: str) -> None:
        """Keeps the SHA-256 of a file that came without one, to hold it to that from now on."""
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
        with plainly(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomicfile.replacing(path) as part:
                yield part

    @contextmanager
    def lock(self, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """One writer at a time; `waiting` is told once if another must end first."""
        with plainly(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(f"another edged is fetching into {self.root}: waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Removes what a killed run left half-written (never a `.part`: it is gone on from)."""
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
    """Hex digest, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32c(path: Path) -> str:
    """CRC-32C (Castagnoli, RFC 3720), base64 of its big-endian bytes."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


def is_it(path: Path, file: File, expected_sha256: str | None) -> bool:
    """Whether the bytes at `path` are this file: by SHA-256, else size and CRC, else size."""
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if expected_sha256:
        return sha256(path) == expected_sha256
    return file.crc32c is None or crc32c(path) == file.crc32c


@contextmanager
def plainly(path: Path) -> Iterator[None]:
    """An OSError inside becomes one sentence about `path`."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> DiskError:
    """What went wrong with `path`, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            f"the disk is full: {path} could not be written; free some space"
            " (the default set needs about 200 MB while it is fetched) and run it again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(
            f"{path} may not be written by this user: run it as the owner of the models"
            " directory, or choose another with --models-dir or EDGED_MODELS_DIR"
        )
    return DiskError(f"{path} could not be written: {error.strerror or error}")
