"""`edged config history` and `edged config rollback`: list and restore accepted settings files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edged.config import envfile
from edged.config.settings_history import (
    ConfigSnapshot,
    SettingsHistory,
    find_state_dir,
    matches_files,
    restore,
    validate,
)
from edged.errors import ConfigError

DEFAULT_ENV_FILE = Path("/etc/edged/edged.env")


def history(env_file: Path, console: Console, as_json: bool = False) -> None:
    """Prints the accepted settings, newest first, and what each changed from the one before.

    Raises ConfigError if this user may not read them.
    """
    snapshots = _history(env_file).snapshots()
    rows: list[dict[str, Any]] = [
        {
            "name": snapshot.name,
            "taken": snapshot.taken,
            "in_force": matches_files(snapshot, env_file),
            "changed": _changed(snapshot, before),
        }
        for snapshot, before in zip(snapshots, [*snapshots, None][1:], strict=True)
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "accepted", "", "changed"):
        table.add_column(title, overflow="fold")
    for row in rows:
        now = "as it is now" if row["in_force"] else ""
        table.add_row(row["name"], row["taken"], now, ", ".join(row["changed"]))
    console.print(table if rows else "edged has not accepted any settings yet", highlight=False)


def rollback(name: str | None, env_file: Path, console: Console) -> None:
    """Restores the named settings; without a name the newest that differ from the present files.

    The running daemon notices it. Raises ConfigError for an unknown name, settings that this
    version does not accept, or files that may not be written.
    """
    stored = _history(env_file)
    snapshot = stored.get(name) if name else _newest_other(stored, env_file)
    validate(snapshot)
    changed = restore(snapshot, env_file)
    for path in changed:
        console.print(f"{path}: as it was in {snapshot.name}", soft_wrap=True, highlight=False)
    if not changed:
        message = f"nothing to do: the files are those of {snapshot.name}"
        console.print(message, highlight=False)


def _history(env_file: Path) -> SettingsHistory:
    """Raises ConfigError if this user may not read it: it would look empty otherwise."""
    found = SettingsHistory(find_state_dir(env_file))
    try:
        os.scandir(found.folder).close()
    except PermissionError:
        raise ConfigError(
            f"this user may not read {found.folder}, where accepted settings are kept: put `sudo`"
            " before the command"
        ) from None
    except OSError:  # as a rule it does not exist yet
        pass
    return found


def _newest_other(stored: SettingsHistory, env_file: Path) -> ConfigSnapshot:
    for snapshot in stored.snapshots():
        if not matches_files(snapshot, env_file):
            return snapshot
    raise ConfigError(f"there are no other settings in {stored.folder} to restore")


def _changed(snapshot: ConfigSnapshot, before: ConfigSnapshot | None) -> list[str]:
    """Names of the settings that differ. Their values may be secret."""
    old = _values(before) if before else {}
    new = _values(snapshot)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _values(snapshot: ConfigSnapshot) -> dict[str, str]:
    """Key -> text. Files count in the order in which edged reads them."""
    found: dict[str, str] = {}
    for name in sorted(snapshot.files):
        found |= {a.key: a.value for a in envfile.parse(snapshot.files[name]).assignments}
    return found
