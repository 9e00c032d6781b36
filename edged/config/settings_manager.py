"""The life cycle of the settings while edged runs: plan, apply, commit.

    change = manager.plan_reload()      # or plan_overrides({"mute": True})
    ...                                 # the caller applies change.settings to its parts
    manager.commit(change)

A plan is a whole, valid set of settings. The caller applies all of it and commits, or raises an
error before it has changed anything; without a commit everything stays as it was.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.config.files_watch import FilesWatch
from edged.config.settings import (
    ReloadScope,
    Settings,
    changed_fields,
    mqtt_may_change,
    reload_scope,
)
from edged.config.settings_history import SettingsHistory
from edged.config.sources import LoadedSettings, allowed_text, load, with_overrides
from edged.config.startup import StartupSettings
from edged.errors import RequestError
from edged.keyterm_list import SEPARATOR, join_terms, read_terms, split_terms

ALIASES = {"temperature": "temp", "delay_in_tokens": "delay_in_frames"}

RETRY_SAVE_S = 10.0
SLOW_SAVE_S = 1.0
RETRY_SLOW_SAVE_S = 300.0  # the save blocks the main thread, which feeds the watchdog


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """Planned settings.

    Attributes:
        loaded: what the sources say, except for `pending` fields.
        changed: the fields that change now.
        pending: the fields whose new value counts from the next start.
        from_files: whether the settings files were read for it.
    """

    loaded: LoadedSettings
    changed: tuple[str, ...]
    pending: tuple[str, ...]
    from_files: bool

    @property
    def settings(self) -> Settings:
        """The settings that are in force after the change."""
        return self.loaded.settings

    @property
    def scopes(self) -> frozenset[ReloadScope]:
        """The parts of the daemon that the change concerns."""
        return frozenset(map(reload_scope, self.changed))


class SettingsManager:
    """Holds the settings in force. Used by the main thread only."""

    def __init__(
        self, startup: StartupSettings, env_file: Path | None, flags: Mapping[str, Any]
    ) -> None:
        self.loaded = startup.loaded
        self.rejected = startup.rejected
        """Why the files could not be used at startup; None if they could."""
        self._state = startup.state
        self._env_file = env_file
        self._flags = flags
        self._watch = FilesWatch(env_file, lambda: self.settings.keyterms_file)
        self._history = SettingsHistory(startup.loaded.settings.state_dir)
        self._retry_save_at = 0.0

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    @property
    def save_error(self) -> str:
        """Why changes made over MQTT are in force but not saved; empty if they are saved."""
        error = self._state.write_error
        return error and f"changes made over MQTT will be lost at the next restart: {error}"

    def files_changed(self, now: float) -> bool:
        """Whether the settings files were replaced since they were read. See `FilesWatch`."""
        return self._watch.changed(now)

    def plan_reload(self) -> SettingsChange:
        """Reads all sources again. Raises EdgedError."""
        self._watch.mark_read()
        new = load(self._env_file, self._flags, self.loaded.overrides)
        return self._plan(new, from_files=True)

    def plan_overrides(self, values: Mapping[str, Any]) -> SettingsChange:
        """Plans a change over MQTT.

        Args:
            values: field (or alias) -> new value; None restores what the files say.

        Raises:
            EdgedError: names every field that cannot be changed to its value.
        """
        values = {ALIASES.get(name, name): value for name, value in values.items()}
        errors = [e for name, value in values.items() if (e := self._refusal(name, value))]
        if errors:
            raise RequestError("; ".join(errors))
        return self._plan(with_overrides(self.loaded, values), from_files=False)

    def plan_keyterms(self, action: str, terms: Sequence[str]) -> SettingsChange:
        """Plans a change of the key terms over MQTT.

        Args:
            action: `set` replaces the terms of EDGED_KEYTERMS, `add` and `remove` change them.
            terms: lines of `edged.keyterm_list`; to remove a term its name is enough.

        Raises:
            EdgedError: says which term cannot be used, or that they cannot be changed over MQTT.
        """
        lines = split_terms(self.settings.keyterms)
        if action == "remove":
            names = {_name(term) for term in terms}
            in_file = [t for t in self.settings.terms_in_file if _name(t) in names]
            if in_file:
                raise RequestError(
                    f"{in_file[0][:80]!r} comes from EDGED_KEYTERMS_FILE: remove it there"
                )
            lines = [line for line in lines if _name(line) not in names]
        else:
            found = read_terms(terms)
            if found.problems:
                raise RequestError(f"cmd/keyterms: {'; '.join(found.problems)}")
            names = {_name(term) for term in found.lines}
            kept = [] if action == "set" else [line for line in lines if _name(line) not in names]
            lines = [*kept, *found.lines]
        active = read_terms((*lines, *self.settings.terms_in_file))
        if active.problems and action != "remove":
            raise RequestError(f"cmd/keyterms: {'; '.join(active.problems)}")
        return self.plan_overrides({"keyterms": join_terms(lines)})

    def commit(self, change: SettingsChange) -> None:
        """Makes applied settings the ones in force, and saves what must outlast a restart."""
        overrides_before = self.loaded.overrides
        self.loaded = change.loaded
        if self.loaded.overrides != overrides_before or self.save_error:
            self._save()
        if change.from_files:
            self.record_files()

    def record_files(self) -> None:
        """Keeps the files in force, so that `edged config rollback` can restore them."""
        if self._env_file is not None:
            self._history.record(self._env_file, self.loaded.files)

    def retry_save(self, now: float) -> None:
        """Saves again what the disk refused, if it is time. `now` is of the monotonic clock."""
        if self.save_error and now >= self._retry_save_at:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        self._state.write(self.loaded.overrides)
        ended = time.monotonic()
        slow = ended - started > SLOW_SAVE_S
        self._retry_save_at = ended + (RETRY_SLOW_SAVE_S if slow else RETRY_SAVE_S)

    def _plan(self, new: LoadedSettings, from_files: bool) -> SettingsChange:
        """`new`, but with the present value of fields that need a restart."""
        different = changed_fields(self.settings, new.settings)
        pending = tuple(f for f in different if reload_scope(f) is ReloadScope.RESTART)
        present = {field: getattr(self.settings, field) for field in pending}
        loaded = replace(new, settings=new.settings.model_copy(update=present))
        changed = tuple(field for field in different if field not in pending)
        return SettingsChange(loaded, changed, pending, from_files)

    def _refusal(self, name: str, value: Any) -> str | None:
        """Why MQTT may not change this field to this value; None if it may try."""
        shown = name[:40]
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            return f"{shown!r} is not a setting" + (f"; did you mean {near[0]}?" if near else "")
        if not mqtt_may_change(name):
            return f"{shown} cannot be changed over MQTT"
        if self.loaded.pinned(name):
            return f"{shown} is fixed by {self.loaded.origins[name]}"
        now = getattr(self.settings, name)
        if isinstance(value, bool) and not isinstance(now, bool):
            return f"{shown} must be {allowed_text(name)}, not {str(value).lower()}"
        if name == "mute" and now and self.settings.mute_lock and value is not True:
            return "mute is locked on this device (EDGED_MUTE_LOCK): MQTT cannot unmute it"
        return None


def _name(line: str) -> str:
    """What a term is known by: its spelling without capitals, and without how it sounds."""
    return line.partition(SEPARATOR)[0].strip().casefold()
