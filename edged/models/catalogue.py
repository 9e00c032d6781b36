"""Reads the catalogue of models (models/catalogue.toml) into plain records."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edged import resources
from edged.errors import ModelError
from edged.languages import AUTO, NAMES

KINDS = ("recogniser", "vad", "turn", "weights")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Package:
    """A Python package that contains model files, and the platforms of its wheels."""

    name: str
    version: str
    platforms: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class File:
    """One file of a model: its checksum (`sha256`, else upstream's `crc32c`) and where it is.

    parts: files that are joined to this one, in order; they exist only while it is fetched.
    """

    name: str
    size: int | None  # bytes
    sha256: str | None  # hex
    crc32c: str | None  # base64 of the big-endian value
    member: str | None  # path in the package's wheel
    url: str | None
    local: str | None  # file name in `resources.models_data()`
    package: Package | None = None  # whose wheel has `member`
    parts: tuple[File, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One model. models/catalogue.toml describes the fields.

    languages: codes of all languages that a recogniser has; none for other kinds.
    streaming_encoder: name of the entry whose weights its graphs are built with.
    """

    name: str
    title: str
    kind: str
    default: bool
    language: str
    languages: tuple[str, ...]
    licence: str
    licence_note: str
    non_commercial: bool
    origin: str
    tried: bool
    architecture: str | None
    streaming_encoder: str | None
    package: Package | None
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Size in bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)

    @property
    def is_verifiable(self) -> bool:
        """Whether each file has a SHA-256 that its publisher gives."""
        return all(file.sha256 for file in self.files)


@dataclass(frozen=True)
class Catalogue:
    """All models that edged can use."""

    entries: tuple[Entry, ...]

    def get(self, name: str) -> Entry:
        """Returns the entry. Raises ModelError with the names of all entries."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self.entries)
        raise ModelError(f"there is no model {name!r}; the catalogue has {names}")

    def recogniser(self, name: str) -> Entry:
        """Returns a speech model. Raises ModelError if `name` is not one."""
        entry = next((e for e in self.entries if e.name == name and e.kind == "recogniser"), None)
        if entry is None:
            names = ", ".join(e.name for e in self.entries if e.kind == "recogniser")
            raise ModelError(f"{name!r} is not a speech model: choose one of {names}")
        return entry

    def of_kind(self, kind: str) -> Entry:
        """Returns the default entry of a kind."""
        return next(e for e in self.entries if e.kind == kind and e.default)

    def choose(self, names: list[str]) -> list[Entry]:
        """Returns the named entries (none: the default set) and the weights they are built with."""
        chosen = [self.get(name) for name in names] or [e for e in self.entries if e.default]
        needed = [self.get(e.streaming_encoder) for e in chosen if e.streaming_encoder]
        return list(dict.fromkeys(needed + chosen))


@cache
def shipped() -> Catalogue:
    """Returns the catalogue of this installation."""
    return read(resources.models_data() / "catalogue.toml")


def read(path: Path) -> Catalogue:
    """Reads a catalogue. Raises ModelError that names the wrong entry."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"the model catalogue {path} cannot be read: {error}") from error
    try:
        entries = tuple(_entry(table) for table in document.get("model", []))
        _check(entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"the model catalogue {path} is wrong: {reason}") from error
    return Catalogue(entries)


def _entry(table: dict[str, Any]) -> Entry:
    name = _safe(table["name"], "model")
    if name == AUTO:
        raise ValueError(f"no model may have the name {AUTO}, which chooses one")
    try:
        package = _package(table["package"]) if "package" in table else None
        entry = Entry(
            name=name,
            title=str(table["title"]),
            kind=str(table["kind"]),
            default=bool(table.get("default", False)),
            language=str(table["language"]),
            languages=_languages(table),
            licence=str(table["licence"]),
            licence_note=str(table["licence_note"]),
            non_commercial=bool(table["non_commercial"]),
            origin=str(table["origin"]),
            tried=bool(table.get("tried", True)),
            architecture=table.get("architecture"),
            streaming_encoder=table.get("streaming_encoder"),
            package=package,
            files=tuple(_file(file, package) for file in table["file"]),
        )
    except KeyError as error:
        raise ValueError(f"{name}: {error} is missing") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if entry.kind not in KINDS:
        raise ValueError(f"{name}: kind {entry.kind!r} is not one of {', '.join(KINDS)}")
    if not entry.files:
        raise ValueError(f"{name}: no files")
    return entry


def _languages(table: dict[str, Any]) -> tuple[str, ...]:
    if table["kind"] != "recogniser":
        return ()
    languages = tuple(table.get("languages", [table["language"]]))
    unknown = [code for code in languages if code not in NAMES]
    if unknown or not languages:
        raise ValueError(f"languages must be codes such as en, not {', '.join(unknown) or 'none'}")
    return languages


def _package(table: dict[str, Any]) -> Package:
    return Package(table["name"], table["version"], tuple(table["platforms"]))


def _file(table: dict[str, Any], package: Package | None) -> File:
    package = _package(table["package"]) if "package" in table else package
    parts = tuple(
        _file({"name": f"{table['name']}.part{number}", **part}, None)
        for number, part in enumerate(table.get("part", []), 1)
    )
    file = File(
        name=_safe(table["name"], "file"),
        size=table.get("size"),
        sha256=table.get("sha256"),
        crc32c=table.get("crc32c"),
        member=table.get("member"),
        url=table.get("url"),
        local=table.get("local"),
        package=package,
        parts=parts,
    )
    if file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"{file.name}: sha256 must be 64 lower-case hex digits")
    if not (file.member or file.url or file.local or file.parts):
        raise ValueError(f"{file.name}: a member, a url or a local file is required")
    if file.parts and file.sha256 is None:
        raise ValueError(f"{file.name}: what is joined from parts needs a sha256")
    if any(part.sha256 is None for part in file.parts):
        raise ValueError(f"{file.name}: each part needs a sha256")
    if file.member and package is None:
        raise ValueError(f"{file.name}: a member needs [model.package]")
    if file.url:
        _check_url(file.url)
    if file.local:
        _safe(file.local, "local file")
    return file


def _safe(name: str, what: str) -> str:
    """Refuses names that could lead out of the models directory when used as paths."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} name {name!r} may hold letters, digits and . _ - only")
    return name


def _check_url(url: str) -> None:
    """Refuses everything but https, and http on this machine (a mirror, a test)."""
    parts = urlsplit(url)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise ValueError(f"{url}: only https addresses are allowed")


def _check(entries: tuple[Entry, ...]) -> None:
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} occurs twice")
    for entry in entries:
        if entry.streaming_encoder and entry.streaming_encoder not in names:
            raise ValueError(f"{entry.name}: there is no {entry.streaming_encoder}")
        if entry.kind == "weights" and len(entry.files) != 1:
            raise ValueError(f"{entry.name}: weights are one file")
