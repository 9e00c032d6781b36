"""The settings in force: how a reload and a change over MQTT become new ones, or do not.

Both build a whole new Settings first. It is applied as a whole or, if anything in it is wrong or
cannot be had (a file that is missing, a model that does not load), not at all.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.config.files_watch import FilesWatch
from edged.config.settings import Live, Settings, changed_fields, live_class, mqtt_may_change
from edged.config.settings_history import History
from edged.config.sources import Loaded, allowed_text, changed_live, load
from edged.config.state_file import StateFile
from edged.errors import EdgedError, RequestError

ALIASES = {"temperature": "temp", "delay_in_tokens": "delay_in_frames"}

SAVE_EVERY_S = 10.0  # between attempts to store what the disk refused
SLOW_SAVE_S = 1.0  # an attempt that held the main thread up, which feeds the watchdog
SLOW_SAVE_EVERY_S = 300.0  # after it: a restart would undo the very mute that is to be stored

Apply = Callable[[Settings, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which fields took effect, and which wait for the next start."""

    changed: tuple[str, ...]
    pending: tuple[str, ...] = ()


class SettingsManager:
    """Owned by the main thread."""

    def __init__(
        self,
        loaded: Loaded,
        env_file: Path | None,
        flags: Mapping[str, Any],
        state: StateFile,
        refused: EdgedError | None = None,
    ) -> None:
        """`refused`: why the files as they are could not be taken, if `loaded` stands in."""
        self.loaded = loaded
        self.refused = refused
        self.files = FilesWatch(env_file)
        self.pending: tuple[str, ...] = ()
        self._env_file = env_file
        self._flags = flags
        self._state = state
        self._history = History(loaded.settings.state_dir)
        self._save_at = 0.0

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @property
    def unsaved(self) -> str:
        """Why live changes are in force but would not outlast a restart; empty if they would."""
        problem = self._state.problem
        return problem and f"a restart undoes mute and the like: {problem}"

    def save_again(self, now: float) -> None:
        """Tries once more, now and then. `now`: seconds of the monotonic clock."""
        if self.unsaved and now >= self._save_at:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        self._state.write(self.loaded.remembered)
        ended = time.monotonic()
        slow = ended - started > SLOW_SAVE_S
        self._save_at = ended + (SLOW_SAVE_EVERY_S if slow else SAVE_EVERY_S)

    def reload(self, apply: Apply) -> Outcome:
        """All sources again. Raises EdgedError; then nothing has changed."""
        self.files.note()
        outcome = self._take(load(self._env_file, self._flags, self.loaded.remembered), apply)
        self.keep_files()
        return outcome

    def keep_files(self) -> None:
        """The files in force are good: they can be gone back to by name."""
        if self._env_file is not None:
            self._history.keep(self._env_file, self.loaded.files)

    def change(self, changes: Mapping[str, Any], apply: Apply) -> Outcome:
        """Live settings by MQTT; None goes back to what the files say. Raises EdgedError with
        every reason; then nothing has changed."""
        changes = {ALIASES.get(name, name): value for name, value in changes.items()}
        problems = [p for name, value in changes.items() if (p := self._refusal(name, value))]
        if problems:
            raise RequestError("; ".join(problems))
        return self._take(changed_live(self.loaded, changes), apply)

    def _take(self, new: Loaded, apply: Apply) -> Outcome:
        old = self.settings
        changed = changed_fields(old, new.settings)
        pending = tuple(name for name in changed if live_class(name) is Live.RESTART)
        running = {name: getattr(old, name) for name in pending}
        in_force = new.settings.model_copy(update=running)
        changed = tuple(name for name in changed if name not in pending)
        apply(in_force, changed)
        remembered_before = self.loaded.remembered
        self.loaded = replace(new, settings=in_force)
        self.pending = pending
        if new.remembered != remembered_before or self.unsaved:
            self._save()
        return Outcome(changed, pending)

    def _refusal(self, name: str, value: Any) -> str | None:
        """Why MQTT may not change this setting to this value; None if it may try."""
        shown = name[:40]
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            return f"{shown!r} is no setting" + (f", did you mean {near[0]}?" if near else "")
        if not mqtt_may_change(name):
            return f"{shown} cannot be changed over MQTT"
        if self.loaded.pinned(name):
            return f"{shown} is pinned by {self.loaded.origins[name]}"
        now = getattr(self.settings, name)
        if isinstance(value, bool) and not isinstance(now, bool):
            return f"{shown} must be {allowed_text(name)}, not {str(value).lower()}"
        if name == "mute" and now and self.settings.mute_lock and value is not True:
            return "mute is locked on this box (EDGED_MUTE_LOCK): MQTT cannot undo it"
        return None
