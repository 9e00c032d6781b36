"""Runs and prints the checks of `edged models verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from edged.models.verify import verify

_MARK = {True: "[green]ok[/]   ", False: "[red]WRONG[/]", None: "[dim]-[/]    "}


def verify_and_show(
    names: list[str] | None, models_dir: Path | None, threads: int, as_json: bool
) -> bool:
    """Prints each check as it is done, as a line or as JSON. Returns whether none failed."""
    console, passed = Console(), True
    for check in verify(names, models_dir, threads):
        passed = passed and check.ok is not False
        if as_json:
            # `said` is the name that `message` had in version 0.1.
            print(json.dumps({**asdict(check), "said": check.message}))
            continue
        console.print(_MARK[check.ok], end=" ")
        line = f"{check.model}: {check.what}: {check.message}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return passed
