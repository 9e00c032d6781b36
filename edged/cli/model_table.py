"""Prints the list of models for `edged models list`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edged.models import build
from edged.models.catalogue import Catalogue, Entry, shipped
from edged.models.store import FileState, ModelStore, default_models_dir


@dataclass(frozen=True)
class ModelRow:
    """One model of the catalogue and its state on this machine."""

    name: str
    kind: str
    title: str
    language: str
    licence: str
    licence_note: str
    non_commercial: bool
    size: int  # bytes
    state: str  # a value of FileState, or "not built"
    default: bool
    tried: bool


def rows(models_dir: Path | None = None, catalogue: Catalogue | None = None) -> list[ModelRow]:
    """Returns one row for each model. Checks sizes and stamps only; `verify` reads every byte."""
    catalogue = catalogue or shipped()
    store = ModelStore(models_dir or default_models_dir())
    return [_row(store, catalogue, entry) for entry in catalogue.entries]


def _row(store: ModelStore, catalogue: Catalogue, entry: Entry) -> ModelRow:
    return ModelRow(
        name=entry.name,
        kind=entry.kind,
        title=entry.title,
        language=entry.language,
        licence=entry.licence,
        licence_note=entry.licence_note,
        non_commercial=entry.non_commercial,
        size=entry.size,
        state=_state(store, catalogue, entry),
        default=entry.default,
        tried=entry.tried,
    )


def _state(store: ModelStore, catalogue: Catalogue, entry: Entry) -> str:
    states = [store.quick_check(entry, file) for file in entry.files]
    for state in (FileState.DAMAGED, FileState.MISSING):
        if state in states:
            return str(state.value)
    if entry.kind == "recogniser" and build.quick_check(store, catalogue, entry):
        return "not built" if not store.graphs(entry).is_dir() else FileState.DAMAGED.value
    return FileState.READY.value


def show_list(models_dir: Path | None = None, as_json: bool = False) -> None:
    """Prints the list as a table, or as JSON."""
    listed = rows(models_dir)
    if as_json:
        print(json.dumps([asdict(row) for row in listed], indent=1))
    else:
        Console().print(table(listed))


def table(listed: list[ModelRow]) -> Table:
    """Returns the list as a table for a terminal."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("model", no_wrap=True)
    shown.add_column("what", min_width=14)
    shown.add_column("lang", no_wrap=True)
    shown.add_column("licence", min_width=14)
    shown.add_column("size", justify="right", no_wrap=True)
    shown.add_column("state", no_wrap=True)
    colours = {"ready": "green", "damaged": "red"}
    for row in listed:
        colour = colours.get(row.state, "yellow" if row.default else "dim")
        shown.add_row(
            row.name,
            row.title if row.tried else f"{row.title}, untried",
            row.language,
            _licence(row),
            f"{row.size / 1e6:.1f} MB",
            f"[{colour}]{row.state}[/]",
        )
    return shown


def _licence(row: ModelRow) -> str:
    name = row.licence
    if name.startswith("LicenseRef-"):  # SPDX's form for licences that are not in its list
        name = name.removeprefix("LicenseRef-").replace("-", " ")
    return f"{name}, non-commercial" if row.non_commercial else name
