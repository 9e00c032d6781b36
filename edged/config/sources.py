"""Reads settings from all sources, decides which value counts, and reports every mistake at once.

The sources, in the order of precedence:
1. command line flags,
2. the environment (`EDGED_X`); neither a reload nor MQTT changes such a value,
3. systemd credentials (`$CREDENTIALS_DIRECTORY/edged_mqtt_password` and others),
4. changes made over MQTT, until the line for that setting in the files changes (`RuntimeOverride`),
5. files `*.env` in the folder `<env file>.d`; the last one by name comes first,
6. the env file,
7. the default.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SecretsSettingsSource

from edged.config import envfile
from edged.config.rules import ConflictError
from edged.config.settings import (
    PREFIX,
    Settings,
    env_name,
    is_secret,
    mqtt_may_change,
)
from edged.errors import ConfigError
from edged.keyterm_list import read_terms, split_terms

CREDENTIALS = ("mqtt_username", "mqtt_password", "api_key")
NOT_SETTINGS = ("EDGED_DEBUG", "EDGED_ENV_FILE", "EDGED_SLOWDOWN")  # read elsewhere


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        kind: flag, environment, credential, mqtt, file or default; for scripts.
        where: the same for people, for example the path of a file.
        line: of that file, from 1; 0 if there is none.
    """

    kind: str
    where: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where} line {self.line}" if self.line else self.where


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """One mistake: `EDGED_X (edged.env line 3): must be ...`.

    `key` is the variable; empty when no single setting is to blame.
    """

    key: str
    origin: Origin | None
    message: str

    def __str__(self) -> str:
        where = f"({self.origin})" if self.key and self.origin else str(self.origin or "")
        subject = f"{self.key} {where}".strip()
        return f"{subject}: {self.message}" if subject else self.message


class SettingsError(ConfigError):
    """Settings that cannot be used.

    Attributes:
        problems: every mistake, in the order of the lines.
        files: the files that were read.
    """

    def __init__(
        self, problems: list[SettingProblem], files: tuple[SettingsFile, ...] = ()
    ) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
        self.files = files


@dataclass(frozen=True, slots=True)
class RuntimeOverride:
    """A change made over MQTT, which outlasts restarts.

    It counts as long as the files give `file_value` (None: no value) for the setting. So the most
    recent of the two counts, whether a slider was moved or a file was pushed.
    """

    value: Any
    file_value: str | None


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file that was read, with the SHA-256 of its bytes as `sha256sum` prints it."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class LoadedSettings:
    """Valid settings and where they come from.

    Attributes:
        settings: the values.
        origins: field -> where its value comes from.
        files: the files that were read.
        file_values: field -> the text of its value in the files, for those that have one.
        overrides: field -> the change made over MQTT that is in force.
        notes: sentences about what has no effect or is overridden.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    files: tuple[SettingsFile, ...] = ()
    file_values: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, RuntimeOverride] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def pinned(self, name: str) -> bool:
        """Whether neither MQTT nor a file can change this field while the daemon runs."""
        return self.origins[name].kind in ("flag", "environment", "credential")


@dataclass
class _Layers:
    """Raw values by field. Sources are added in ascending order of precedence."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[SettingProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any, origin: Origin) -> None:
        self.values[name] = value
        self.origins[name] = origin

    def drop(self, name: str) -> None:
        self.values.pop(name, None)
        self.origins.pop(name, None)


def load(
    env_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Mapping[str, RuntimeOverride] | None = None,
    use_environment: bool = True,
) -> LoadedSettings:
    """Reads all sources. Raises SettingsError with every mistake.

    Args:
        env_file: must exist if given.
        flags: field -> value; None where the flag was not given.
        overrides: changes made over MQTT before.
        use_environment: False leaves out environment and credentials, to check a file that is meant
            for another device.
    """
    layers = _Layers()
    files = _put_files(layers, env_file)
    file_values = dict(layers.values)
    kept = _put_overrides(layers, overrides or {}, file_values)
    if use_environment:
        _put_environment(layers)
    for name, value in (flags or {}).items():
        if value is not None:
            layers.put(name, value, Origin("flag", "the command line"))
    try:
        settings = _validated(layers)
    except SettingsError as error:
        error.files = files
        raise
    if settings.keyterms_file is not None and use_environment:
        settings = _with_keyterms_file(settings, settings.keyterms_file, layers)
    return LoadedSettings(settings, _origins(layers), files, file_values, kept, tuple(layers.notes))


def _with_keyterms_file(settings: Settings, path: Path, layers: _Layers) -> Settings:
    """Adds the terms of the file. What cannot be used is a note, not a mistake: a device whose list
    has a bad line must still start and listen."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        layers.notes.append(f"EDGED_KEYTERMS_FILE: {path} cannot be read: {why}")
        return settings
    found = read_terms(lines)
    layers.notes += [f"{path}: {problem}" for problem in found.problems]
    settings = settings.with_terms_in_file(found.lines)
    together = read_terms((*split_terms(settings.keyterms), *found.lines))
    layers.notes += [f"EDGED_KEYTERMS and {path}: {problem}" for problem in together.problems]
    return settings


def with_overrides(loaded: LoadedSettings, changes: Mapping[str, Any]) -> LoadedSettings:
    """Returns `loaded` with fields changed over MQTT. Raises SettingsError.

    A value of None removes an earlier change of that field.
    """
    layers = _Layers()
    for name, origin in loaded.origins.items():
        if origin.kind != "default":
            layers.put(name, getattr(loaded.settings, name), origin)
    kept = dict(loaded.overrides)
    for name, value in changes.items():
        layers.drop(name)
        kept.pop(name, None)
        if value is not None:
            layers.put(name, value, Origin("mqtt", "changed over MQTT"))
        elif name in loaded.file_values:
            layers.put(name, loaded.file_values[name], Origin("file", "the files"))
    settings = _validated(layers).with_terms_in_file(loaded.settings.terms_in_file)
    for name, value in changes.items():
        if value is not None:
            kept[name] = RuntimeOverride(getattr(settings, name), loaded.file_values.get(name))
    return replace(loaded, settings=settings, origins=_origins(layers), overrides=kept)


def _origins(layers: _Layers) -> dict[str, Origin]:
    return {name: layers.origins.get(name, Origin("default", "")) for name in Settings.model_fields}


def folder_of(env_file: Path) -> Path:
    """The folder whose `*.env` files are read after the env file itself."""
    return env_file.with_name(env_file.name + ".d")


def _put_files(layers: _Layers, env_file: Path | None) -> tuple[SettingsFile, ...]:
    read: list[SettingsFile] = []
    try:
        paths, notes = files_of(env_file)
    except ConfigError as problem:
        layers.problems.append(SettingProblem("", None, str(problem)))
        return ()
    layers.notes += notes
    for path in paths:
        try:
            text = envfile.read(path)
        except ConfigError as problem:
            layers.problems.append(SettingProblem("", None, str(problem)))
            continue
        read.append(SettingsFile(path, hashlib.sha256(text.encode()).hexdigest()))
        parsed = envfile.parse(text)
        for fault in parsed.problems:
            origin = Origin("file", str(path), fault.line)
            layers.problems.append(SettingProblem("", origin, fault.message))
        for item in parsed.assignments:
            _put_line(layers, item, Origin("file", str(path), item.line))
    for name in [name for name, value in layers.values.items() if value == ""]:
        layers.drop(name)  # `EDGED_X=` means the default
    return tuple(read)


def files_of(env_file: Path | None) -> tuple[list[Path], list[str]]:
    """Returns the files to read, in their order, and notes about other files in the folder.

    Raises ConfigError for a folder that cannot be listed.
    """
    if env_file is None:
        return [], []
    files = [env_file]
    notes: list[str] = []
    folder = folder_of(env_file)
    if not os.path.isdir(folder):  # or not permitted: reading the env file reports that
        return files, notes
    try:
        found = sorted(folder.iterdir())
    except OSError as problem:
        raise ConfigError(f"{folder} cannot be read: {problem.strerror}") from None
    for path in found:
        if path.name.startswith("."):
            continue  # the incomplete copies of rsync and editors have such names
        if path.suffix == ".env":
            files.append(path)
        else:
            notes.append(f"{path} is not read: its name does not end in .env")
    return files, notes


def _put_line(layers: _Layers, item: envfile.Assignment, origin: Origin) -> None:
    """Adds one line of a file. Keys without the prefix may belong to other programs."""
    if not item.key.upper().startswith(PREFIX):
        return
    name = item.key.removeprefix(PREFIX).lower()
    if item.key != env_name(name) or name not in Settings.model_fields:
        layers.problems.append(SettingProblem(item.key, origin, _unknown(item.key)))
    else:
        layers.put(name, item.value, origin)


def _unknown(key: str) -> str:
    name = key.upper().removeprefix(PREFIX).lower()
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.6)
    return "there is no such setting" + (f"; did you mean {env_name(near[0])}?" if near else "")


def _put_overrides(
    layers: _Layers, overrides: Mapping[str, RuntimeOverride], file_values: Mapping[str, str]
) -> dict[str, RuntimeOverride]:
    """Adds the changes made over MQTT and returns those that still count."""
    kept: dict[str, RuntimeOverride] = {}
    for name, item in overrides.items():
        if not _still_valid(name, item.value):
            layers.notes.append(f"{env_name(name)} as changed over MQTT is no longer valid")
            continue
        if item.file_value != file_values.get(name):
            layers.notes.append(
                f"{env_name(name)} was changed over MQTT, but its line in the files is newer"
            )
            continue
        kept[name] = item
        layers.put(name, item.value, Origin("mqtt", "changed over MQTT"))
    return kept


def _still_valid(name: str, value: Any) -> bool:
    """Whether this version of edged accepts the override; another one may have stored it."""
    if name not in Settings.model_fields or not mqtt_may_change(name):
        return False
    try:
        Settings(**{name: value})
    except ValidationError:
        return False
    return True


def _put_environment(layers: _Layers) -> None:
    """Adds credentials, then environment variables."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and Path(folder).is_dir():
        found = SecretsSettingsSource(Settings, secrets_dir=folder)()
        for name in CREDENTIALS:
            if name in found:
                if name in layers.values:
                    layers.notes.append(
                        f"{env_name(name)} is set in {layers.origins[name]} "
                        "and as a credential; the credential counts"
                    )
                layers.put(name, found[name], Origin("credential", f"credential edged_{name}"))
    for name, value in EnvSettingsSource(Settings)().items():
        if layers.origins.get(name, Origin("", "")).kind == "credential":
            layers.notes.append(
                f"{env_name(name)} is set in the environment and as a credential; "
                "the environment counts"
            )
        layers.put(name, value, Origin("environment", "the environment"))
    for key in sorted(os.environ):
        if key in NOT_SETTINGS:
            continue
        if key.startswith(PREFIX) and key.removeprefix(PREFIX).lower() not in Settings.model_fields:
            layers.notes.append(f"{key} in the environment is ignored: {_unknown(key)}")


def _validated(layers: _Layers) -> Settings:
    """Builds the settings. Raises SettingsError with every mistake, in the order of the lines."""
    problems = list(layers.problems)
    bad: set[str] = set()
    settings = None
    for _ in range(2):  # the second time without the wrong values, to find conflicts
        try:
            settings = Settings(**{n: v for n, v in layers.values.items() if n not in bad})
            break
        except ValidationError as error:
            for item in error.errors():
                conflict = item.get("ctx", {}).get("error")
                if isinstance(conflict, ConflictError):
                    problems += [
                        SettingProblem("", None, message)
                        for names, message in conflict.conflicts
                        if bad.isdisjoint(names)
                    ]
                else:
                    name = str(item["loc"][0])
                    bad.add(name)
                    problems.append(_wrong(name, item, layers.origins[name]))
            if not bad:
                break
    if problems or settings is None:
        problems.sort(key=_place)
        raise SettingsError(problems)
    return settings


def _place(problem: SettingProblem) -> tuple[bool, str, int]:
    """Sort key: file and line; problems without a place come last."""
    origin = problem.origin or Origin("", "")
    return (not origin.where, origin.where, origin.line)


def _wrong(name: str, item: Any, origin: Origin) -> SettingProblem:
    problem = item.get("ctx", {}).get("error")
    allowed = str(problem) if isinstance(problem, ValueError) else f"must be {allowed_text(name)}"
    # A URL may contain a password.
    shown = "" if is_secret(name) or name == "mqtt_url" else f", not {str(item['input'])[:80]!r}"
    return SettingProblem(env_name(name), origin, allowed + shown)


def allowed_text(name: str) -> str:
    """What a field accepts, in words: `a number from 0 to 1`."""
    info = Settings.model_fields[name]
    bounds = {k: getattr(m, k) for m in info.metadata for k in ("ge", "le") if hasattr(m, k)}
    kind = str(info.annotation)
    if "bool" in kind:
        return "on or off"
    if "int" in kind or "float" in kind:
        what = "a whole number" if "int" in kind else "a number"
        return what + (f" from {bounds['ge']:g} to {bounds['le']:g}" if bounds else "")
    if name == "model":
        return "a model's name (`edged models list`)"
    return "a path" if "Path" in kind else "a text of 1 to 256 characters"
