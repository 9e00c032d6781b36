"""`edged config history` and `edged config rollback`: back to settings files that worked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edged.config import envfile
from edged.config.settings_history import (
    History,
    Kept,
    check_kept,
    find_state_dir,
    restore,
    same_as_now,
)
from edged.errors import ConfigError

DEFAULT_ENV_FILE = Path("/etc/edged/edged.env")


def _store(env_file: Path) -> History:
    """Raises ConfigError where this user may not look, which is not the same as nothing kept."""
    store = History(find_state_dir(env_file))
    try:
        os.scandir(store.folder).close()
    except PermissionError:
        raise ConfigError(
            f"{store.folder}, where the settings that worked are kept, may not be read by this"
            " user: put `sudo` before the command"
        ) from None
    except OSError:  # not there yet, as a rule
        pass
    return store


def history(env_file: Path, console: Console, as_json: bool = False) -> None:
    """What can be gone back to, newest first, and how each set differs from the one before it.

    Raises ConfigError for a history that may not be read.
    """
    kept = _store(env_file).all()
    rows: list[dict[str, Any]] = [
        {
            "name": this.name,
            "taken": this.taken,
            "in_force": same_as_now(this, env_file),
            "changed": _changed(this, before),
        }
        for this, before in zip(kept, [*kept, None][1:], strict=True)
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "taken", "", "changed"):
        table.add_column(title, overflow="fold")
    for row in rows:
        now = "as it is now" if row["in_force"] else ""
        table.add_row(row["name"], row["taken"], now, ", ".join(row["changed"]))
    console.print(table if rows else "no settings have been taken yet", highlight=False)


def rollback(name: str | None, env_file: Path, console: Console) -> None:
    """Puts a kept set of files back; without a name the newest that differs from the files now.

    The running daemon notices by itself. Raises ConfigError: for an unknown name, a set that this
    version would refuse, or files that may not be written.
    """
    store = _store(env_file)
    kept = store.get(name) if name else _newest_other(store, env_file)
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        check_kept(kept, Path(folder))
    changed = restore(kept, env_file)
    for path in changed:
        console.print(f"{path}: as it was in {kept.name}", soft_wrap=True, highlight=False)
    if not changed:
        console.print(f"nothing to do: the files are those of {kept.name}", highlight=False)


def _newest_other(store: History, env_file: Path) -> Kept:
    for kept in store.all():
        if not same_as_now(kept, env_file):
            return kept
    raise ConfigError(f"there are no other settings in {store.folder} to go back to")


def _changed(this: Kept, before: Kept | None) -> list[str]:
    """Names of settings, never their values: some are secret."""
    old = _settings(before) if before else {}
    new = _settings(this)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _settings(kept: Kept) -> dict[str, str]:
    """In the order in which the files are read: the env file, then its folder by name."""
    found: dict[str, str] = {}
    for name in sorted(kept.files):
        found |= {a.key: a.value for a in envfile.parse(kept.files[name]).assignments}
    return found
