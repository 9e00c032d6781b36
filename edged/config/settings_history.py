"""Keeps the settings files that edged accepted, so that a bad push can be undone on the device.

A snapshot is `STATE_DIR/history/<number>-<hash>.json`: the env file and its whole `.d` folder. The
daemon records them. `edged config rollback NAME` restores one, as root, because the daemon may not
write below /etc.

The service owns the history, so root does not trust it: symbolic links in it are not followed, and
nothing is written but the env file and `*.env` in its folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import tempfile
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

MAX_SNAPSHOTS = 10
MAX_BYTES = 1_000_000  # of one snapshot; real ones have a few thousand
_NAME = re.compile(r"(\d{1,9})-([0-9a-f]{8})")
_FILE = re.compile(r"[^/\0.][^/\0]{0,250}\.env")
_MAIN = ""  # the key of the env file; files of the folder have their names as keys

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConfigSnapshot:
    """The settings files as they were accepted once.

    Attributes:
        name: `<number>-<hash>`.
        taken: when they were accepted, RFC 3339.
        files: name in the `.d` folder ("" for the env file) -> text.
    """

    name: str
    taken: str
    files: Mapping[str, str]


class SettingsHistory:
    """The folder `history` of a state directory. The constructor does not touch it."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "history"
        self._failing = False

    def record(self, env_file: Path, read: Iterable[SettingsFile]) -> None:
        """Stores the files that were just accepted, unless the newest snapshot is the same.

        Logs an error of the disk once, until a later call succeeds.
        """
        try:
            files = _texts(env_file, read)
            newest = next(iter(self._names()), None)
            if files is None or (newest and newest.endswith(_hash(files))):
                return
            self._write(1 + (int(newest.split("-")[0]) if newest else 0), files)
            for old in self._names()[MAX_SNAPSHOTS:]:
                (self.folder / f"{old}.json").unlink(missing_ok=True)
            self._failing = False
        except OSError as error:
            if not self._failing:
                message = (
                    f"{self.folder} cannot be written: {error.strerror}; `edged config rollback`"
                    " cannot restore these settings"
                )
                log_event(_log, logging.WARNING, "history-unwritable", message)
            self._failing = True

    def snapshots(self) -> list[ConfigSnapshot]:
        """All snapshots that can be read, newest first."""
        found = []
        for name in self._names():
            try:
                found.append(self.get(name))
            except ConfigError:
                continue
        return found

    def get(self, name: str) -> ConfigSnapshot:
        """Returns the snapshot with this name or unambiguous beginning. Raises ConfigError."""
        matching = [n for n in self._names() if n == name] or [
            n for n in self._names() if name and n.startswith(name)
        ]
        if len(matching) != 1:
            known = ", ".join(self._names()) or "none"
            raise ConfigError(
                f"there are no settings with the name {name[:40]!r}; the names are: {known}"
            )
        try:
            return _parsed(matching[0], _read(self.folder, f"{matching[0]}.json"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{self.folder}/{matching[0]}.json is damaged") from None

    def _names(self) -> list[str]:
        """The names of all snapshots, newest first."""
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


def restore(snapshot: ConfigSnapshot, env_file: Path) -> list[Path]:
    """Writes the files of a snapshot over the present ones and returns the paths that changed.

    Each file is replaced as a whole. Owner and permissions stay as they are; a new file gets those
    of the env file. Files that the snapshot does not have are renamed to `*.rolled-back`, which
    edged does not read. Raises ConfigError if a file cannot be written; the ones before it have
    been replaced by then.
    """
    wanted = {_place(env_file, name): text for name, text in snapshot.files.items()}
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
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from None
    return changed


def unpack(snapshot: ConfigSnapshot, folder: Path) -> Path:
    """Writes the files of a snapshot into `folder` and returns the path of the env file there."""
    env_file = folder / "edged.env"
    for name, text in snapshot.files.items():
        path = _place(env_file, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(path, text, 0o600)
    return env_file


def find_state_dir(env_file: Path) -> Path:
    """The state directory of the daemon that reads `env_file`, even if that file has mistakes."""
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


def matches_files(snapshot: ConfigSnapshot, env_file: Path) -> bool:
    """Whether the present files are the same as the snapshot."""
    now = {_key(env_file, path): _current(path) for path in files_of(env_file)[0]}
    return now == dict(snapshot.files)


def validate(snapshot: ConfigSnapshot) -> None:
    """Raises SettingsError if this version of edged would not accept the snapshot."""
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        load(unpack(snapshot, Path(folder)), use_environment=False)


def _texts(env_file: Path, read: Iterable[SettingsFile]) -> dict[str, str] | None:
    """The texts of the files that were read; None if one has been replaced since then."""
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
    """Reads a regular file without following links. Raises OSError or ValueError."""
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


def _parsed(name: str, content: bytes) -> ConfigSnapshot:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything but a snapshot."""
    stored: Any = json.loads(content)
    files = {str(key): str(text) for key, text in stored["files"].items()}
    if any(key != _MAIN and not _FILE.fullmatch(key) for key in files) or _MAIN not in files:
        raise ValueError("its file names are not those of settings")
    if not name.endswith(_hash(files)):
        raise ValueError("its hash is wrong")
    return ConfigSnapshot(name, str(stored["taken"]), files)
