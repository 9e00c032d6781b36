"""Output of `edged config show`, `edged config check FILE` and `edged config example`.

Settings are a table on a terminal, `NAME=value` lines in a pipe, and one object with `as_json`.
Secrets are masked.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from edged.config import envfile
from edged.config.settings import Settings, env_name, reload_scope, unit
from edged.config.sources import LoadedSettings, SettingsError, allowed_text, load
from edged.options import DELAYS

MASK = "********"


def shown(value: Any) -> Any:
    """A value for people and JSON: secrets masked, paths as text."""
    if isinstance(value, SecretStr):
        return MASK
    return str(value) if isinstance(value, Path) else value


def as_line(value: Any) -> str:
    """A value as it is written in an env file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return str(shown(value))


def effective(settings: Settings) -> dict[str, Any]:
    """All settings with secrets masked, for the `info` topic."""
    return {name: shown(getattr(settings, name)) for name in Settings.model_fields}


def show(loaded: LoadedSettings, console: Console, as_json: bool = False) -> None:
    """Prints every setting and where its value comes from."""
    if as_json:
        console.print_json(json.dumps(_show_json(loaded)))
        return
    if not console.is_terminal:
        for name in Settings.model_fields:
            origin = loaded.origins[name]
            value = as_line(getattr(loaded.settings, name))
            line = f"{env_name(name)}={value}  # {origin if origin.where else 'default'}"
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    else:
        console.print(_table(loaded))
        for note in loaded.notes:
            console.print(f"[yellow]note[/] {note}", highlight=False)


def _table(loaded: LoadedSettings) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "value", "from", "change"):
        table.add_column(title, overflow="fold")
    for name in Settings.model_fields:
        origin = loaded.origins[name]
        value = as_line(getattr(loaded.settings, name))
        table.add_row(
            env_name(name),
            (f"{value} {unit(name)}".strip() if value else "") or "[dim]none[/]",
            str(origin) or "[dim]default[/]",
            str(reload_scope(name)),
            style="" if origin.where else "dim",
        )
    return table


def _show_json(loaded: LoadedSettings) -> dict[str, Any]:
    return {
        "settings": {
            env_name(name): {
                "value": shown(getattr(loaded.settings, name)),
                "from": loaded.origins[name].kind,
                "where": str(loaded.origins[name]),
                "change": str(reload_scope(name)),
            }
            for name in Settings.model_fields
        },
        "files": [{"path": str(f.path), "sha256": f.sha256} for f in loaded.files],
        "notes": list(loaded.notes),
    }


def check(env_file: Path, console: Console, as_json: bool = False) -> int:
    """Prints every mistake of a file and of its `.d` folder. Returns the exit code: 0 if none.

    The environment of this machine is ignored: the file may be meant for another device. Raises
    ConfigError for a file that cannot be read.
    """
    envfile.read(env_file)
    notes: tuple[str, ...] = ()
    problems: list[str] = []
    try:
        notes = load(env_file, use_environment=False).notes
    except SettingsError as error:
        problems = [str(problem) for problem in error.problems]
    if as_json:
        found = {"ok": not problems, "problems": problems, "notes": list(notes)}
        console.print_json(json.dumps(found))
        return int(bool(problems))
    for text in [*problems, *(f"note: {note}" for note in notes)]:
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    verdict = f"{len(problems)} problem{'s' * (len(problems) != 1)}" if problems else "no problems"
    console.print(f"{env_file}: {verdict}", soft_wrap=True, markup=False, highlight=False)
    return int(bool(problems))


_HEAD = """\
# Settings of edged, written by `edged config example`. Remove the # before a setting to use it.
#
# Each line is KEY=value. Comments need lines of their own. A value with blanks, # or \\ needs
# single quotes. `edged config check FILE` reports every mistake. Files *.env in the folder
# `edged.env.d` beside this file are read after it, in the order of their names.
# edged applies a changed file by itself, on `systemctl reload edged` or a message to cmd/reload.
# If a file has a mistake, nothing changes. The brackets say what a change costs while edged runs.
"""


def example() -> str:
    """Returns the text of deploy/edged.env.example: every setting, its default and its bounds."""
    parts = [_HEAD]
    for name, info in Settings.model_fields.items():
        about = f"{info.description} {_bounds(name)}".strip() + f" [{reload_scope(name)}]"
        parts.append(textwrap.fill(about, 98, initial_indent="# ", subsequent_indent="# "))
        default = info.default if info.default_factory is None else None
        parts.append(f"#{env_name(name)}={as_line(default)}\n")
    return "\n".join(parts)


def _bounds(name: str) -> str:
    special = {
        "device": "Default: from the host name.",
        "state_dir": "Default: systemd's state directory, else ~/.local/state/edged.",
        "delay_in_frames": f"One of {', '.join(map(str, DELAYS))} (steps of 80 ms).",
        "language": "auto or a code such as en, de or fr.",
        "log_level": "One of debug, info, warning, error.",
    }
    if name in special:
        return special[name]
    allowed = allowed_text(name)
    if allowed.startswith(("a number", "a whole", "on or")):
        return f"{allowed[0].upper()}{allowed[1:]} {unit(name)}".rstrip() + "."
    return ""
