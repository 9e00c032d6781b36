"""Settings files that worked, kept by name, so that a bad push can be undone on the box itself.

The daemon keeps every set of files that it took: `STATE_DIR/history/<number>-<hash>.json`, the
env file and all of its `.d` folder in one. `edged config rollback NAME` puts such a set back.
The daemon may not write below /etc, and that is right: rolling back is root's work, by SSH.

Root must not trust a folder that the service owns: a name is never followed through a symbolic
link, and no file is written but the env file and `*.env` beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edged.atomicfile import write_text
from edged.config import envfile
from edged.config.sources import SettingsFile, files_of, folder_of, load
from edged.errors import ConfigError
from edged.logs import log_event

KEPT = 10  # sets; older ones go
MAX_BYTES = 1_000_000  # of one set, which is far more than any real one
_NAME = re.compile(r"(\d{1,9})-([0-9a-f]{8})")
_FILE = re.compile(r"[^/\0.][^/\0]{0,250}\.env")
_MAIN = ""  # the key of the env file itself; those of its folder have their names

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """One set of files. `files`: name in the `.d` folder ("" for the env file) -> text."""

    name: str
    taken: str  # when, RFC 3339
    files: Mapping[str, str]


class History:
    """The folder `history` of one state directory. Making one touches nothing."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "history"
        self._failing = False

    def keep(self, env_file: Path, read: Iterable[SettingsFile]) -> None:
        """Keeps the files that were just taken, unless the newest set holds the same.

        A full disk is said once and costs nothing but the history.
        """
        try:
            files = _texts(env_file, read)
            newest = next(iter(self._names()), None)
            if files is None or (newest and newest.endswith(_hash(files))):
                return
            self._write(1 + (int(newest.split("-")[0]) if newest else 0), files)
            for old in self._names()[KEPT:]:
                (self.folder / f"{old}.json").unlink(missing_ok=True)
            self._failing = False
        except OSError as problem:
            if not self._failing:
                message = f"{self.folder} cannot be written: {problem.strerror}"
                log_event(_log, logging.WARNING, "history-unwritable", message)
            self._failing = True

    def all(self) -> list[Kept]:
        """Newest first. A set that cannot be read is left out."""
        found = []
        for name in self._names():
            try:
                found.append(self.get(name))
            except ConfigError:
                continue
        return found

    def get(self, name: str) -> Kept:
        """By name, or by any unambiguous beginning of it. Raises ConfigError."""
        matching = [n for n in self._names() if n == name] or [
            n for n in self._names() if name and n.startswith(name)
        ]
        if len(matching) != 1:
            known = ", ".join(self._names()) or "none"
            raise ConfigError(
                f"no settings are kept under the name {name[:40]!r}; there are {known}"
            )
        try:
            return _parsed(matching[0], _read(self.folder, f"{matching[0]}.json"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{self.folder}/{matching[0]}.json is damaged") from None

    def _names(self) -> list[str]:
        """Newest first."""
        try:
            entries = [entry.name.removesuffix(".json") for entry in os.scandir(self.folder)]
        except OSError:
            return []
        names = [name for name in entries if _NAME.fullmatch(name)]
        return sorted(names, key=lambda name: int(name.split("-")[0]), reverse=True)

    def _write(self, number: int, files: Mapping[str, str]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{number}-{_hash(files)}.json"
        taken = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        write_text(path, json.dumps({"taken": taken, "files": files}, indent=1) + "\n", 0o600)


def restore(kept: Kept, env_file: Path) -> list[Path]:
    """Puts a set back, each file whole or not at all, and says what changed.

    Files of the folder that the set does not have are renamed to `*.rolled-back`, which nobody
    reads. Owner and mode stay what they were; a file that is made anew is the env file's twin.
    Raises ConfigError; then nothing was written.
    """
    wanted = {_place(env_file, name): text for name, text in kept.files.items()}
    changed = []
    try:
        for path, text in wanted.items():
            if _current(path) != text:
                path.parent.mkdir(mode=0o755, exist_ok=True)
                twin = path if path.exists() else env_file
                write_text(path, text, 0o600, twin if twin.exists() else None)
                changed.append(path)
        for path in files_of(env_file)[0][1:]:
            if path not in wanted:
                path.rename(path.with_name(f"{path.name}.rolled-back"))
                changed.append(path)
    except OSError as problem:
        raise ConfigError(f"{problem.filename} cannot be written: {problem.strerror}") from None
    return changed


def unpack(kept: Kept, folder: Path) -> Path:
    """Writes a set below `folder`, to be loaded from there. Returns its env file."""
    env_file = folder / "edged.env"
    for name, text in kept.files.items():
        path = _place(env_file, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(path, text, 0o600)
    return env_file


def find_state_dir(env_file: Path) -> Path:
    """Where the daemon that reads `env_file` keeps its state, however wrong that file is."""
    from edged.config.settings import default_state_dir

    if given := os.environ.get("EDGED_STATE_DIR"):
        return Path(given)
    if os.environ.get("STATE_DIRECTORY"):
        return default_state_dir()
    try:
        files = files_of(env_file)[0]
    except ConfigError:
        files = [env_file]
    for path in reversed(files):
        try:
            lines = envfile.parse(envfile.read(path)).assignments
        except ConfigError:
            continue
        for line in reversed(lines):
            if line.key == "EDGED_STATE_DIR" and line.value:
                return Path(line.value)
    installed = Path("/var/lib/edged")
    return installed if env_file.parent == Path("/etc/edged") else default_state_dir()


def same_as_now(kept: Kept, env_file: Path) -> bool:
    """Whether the files on disk are this set."""
    now = {_key(env_file, path): _current(path) for path in files_of(env_file)[0]}
    return now == dict(kept.files)


def check_kept(kept: Kept, folder: Path) -> None:
    """Raises SettingsError if this version of edged would refuse the set."""
    load(unpack(kept, folder), surroundings=False)


def _texts(env_file: Path, read: Iterable[SettingsFile]) -> dict[str, str] | None:
    """The files as they were taken; None if one was replaced since (the next reload keeps it)."""
    texts = {}
    for file in read:
        text = _current(file.path)
        if text is None or hashlib.sha256(text.encode()).hexdigest() != file.sha256:
            return None
        texts[_key(env_file, file.path)] = text
    return texts or None


def _current(path: Path) -> str | None:
    try:
        return envfile.read(path)
    except ConfigError:
        return None


def _key(env_file: Path, path: Path) -> str:
    return _MAIN if path == env_file else path.name


def _place(env_file: Path, name: str) -> Path:
    return env_file if name == _MAIN else folder_of(env_file) / name


def _hash(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:8]


def _read(folder: Path, name: str) -> bytes:
    """A regular file's bytes, through no symbolic link. Raises OSError or ValueError."""
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    finally:
        os.close(parent)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError("too large")
    return content


def _parsed(name: str, content: bytes) -> Kept:
    stored: Any = json.loads(content)
    files = {str(key): str(text) for key, text in stored["files"].items()}
    if any(key != _MAIN and not _FILE.fullmatch(key) for key in files) or _MAIN not in files:
        raise ValueError("strange file names")
    if not name.endswith(_hash(files)):
        raise ValueError("its hash is wrong")
    return Kept(name, str(stored["taken"]), files)
