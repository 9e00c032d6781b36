"""`edged config show`, `config check FILE` and `config example`: settings in words.

On a terminal a table; in a pipe one `NAME=value` line each; with `as_json` one object. Secrets
are never shown, only whether they are set.
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
from edged.config.settings import Settings, env_name, live_class, unit
from edged.config.sources import Loaded, SettingsError, allowed_text, load
from edged.options import DELAYS, LANGUAGES

MASK = "********"


def shown(value: Any) -> Any:
    """A value as people and JSON see it: a secret as a mask, a path as text."""
    if isinstance(value, SecretStr):
        return MASK
    return str(value) if isinstance(value, Path) else value


def as_line(value: Any) -> str:
    """A value as it would stand in an env file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return str(shown(value))


def effective(settings: Settings) -> dict[str, Any]:
    """All settings without secrets, for the `info` topic."""
    return {name: shown(getattr(settings, name)) for name in Settings.model_fields}


def show(loaded: Loaded, console: Console, as_json: bool = False) -> None:
    """Every setting in force, and where its value comes from."""
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


def _table(loaded: Loaded) -> Table:
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
            str(live_class(name)),
            style="" if origin.where else "dim",
        )
    return table


def _show_json(loaded: Loaded) -> dict[str, Any]:
    return {
        "settings": {
            env_name(name): {
                "value": shown(getattr(loaded.settings, name)),
                "from": loaded.origins[name].kind,
                "where": str(loaded.origins[name]),
                "change": str(live_class(name)),
            }
            for name in Settings.model_fields
        },
        "files": [{"path": str(f.path), "sha256": f.sha256} for f in loaded.files],
        "notes": list(loaded.notes),
    }


def check(env_file: Path, console: Console, as_json: bool = False) -> int:
    """Every problem of a file (and of its `.d` folder) at once. Exit code: 0 right, 1 not.

    The environment of this machine is left out: the file may be meant for another box. Raises
    ConfigError for a file that cannot be read at all.
    """
    envfile.read(env_file)
    notes: tuple[str, ...] = ()
    problems: list[str] = []
    try:
        notes = load(env_file, surroundings=False).notes
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
# Settings of edged. Made by `edged config example`; a line without its first # counts.
#
# One KEY=value a line. Notes stand on lines of their own. A value with blanks, # or \\ goes into
# single quotes. `edged config check FILE` names every mistake. Files *.env in the folder
# `edged.env.d` beside this file are read after it, in the order of their names.
# `systemctl reload edged` (or a message to cmd/reload) applies a change; an invalid file changes
# nothing. In brackets: what a change costs while edged runs.
"""


def example() -> str:
    """The text of deploy/edged.env.example: every setting, its default and its bounds."""
    parts = [_HEAD]
    for name, info in Settings.model_fields.items():
        about = f"{info.description} {_bounds(name)}".strip() + f" [{live_class(name)}]"
        parts.append(textwrap.fill(about, 98, initial_indent="# ", subsequent_indent="# "))
        default = info.default if info.default_factory is None else None
        parts.append(f"#{env_name(name)}={as_line(default)}\n")
    return "\n".join(parts)


def _bounds(name: str) -> str:
    special = {
        "device": "Default: from the host name.",
        "state_dir": "Default: systemd's state directory, else ~/.local/state/edged.",
        "delay_in_frames": f"One of {', '.join(map(str, DELAYS))} (steps of 80 ms).",
        "language": f"One of {', '.join(LANGUAGES)}.",
        "log_level": "One of debug, info, warning, error.",
    }
    if name in special:
        return special[name]
    allowed = allowed_text(name)
    if allowed.startswith(("a number", "a whole", "on or")):
        return f"{allowed[0].upper()}{allowed[1:]} {unit(name)}".rstrip() + "."
    return ""
