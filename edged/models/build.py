"""Builds the streaming graphs of a recogniser, and checks built ones by their stamp.

A folder of graphs without a valid stamp is never loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edged import atomicfile
from edged.errors import ModelError
from edged.models.catalogue import Catalogue, Entry
from edged.models.store import ModelStore, disk_errors, sha256
from edged.stt.families import family_of
from edged.stt.family import Family

STAMP = "built.json"
_FORMAT = 1
_Stamp = dict[str, object]


def inputs(store: ModelStore, catalogue: Catalogue, entry: Entry) -> dict[str, str]:
    """SHA-256, by file name, of all files that the graphs of `entry` are made from."""
    parts = [(entry, file) for file in entry.files]
    if entry.streaming_encoder:
        weights = catalogue.get(entry.streaming_encoder)
        parts += [(weights, file) for file in weights.files]
    return {file.name: store.expected_sha256(owner, file) or "unknown" for owner, file in parts}


def inputs_hash(store: ModelStore, catalogue: Catalogue, entry: Entry) -> str:
    """12 hex digits that name this very model: its files, its weights and its build version."""
    version = family_of(entry.architecture).build_version
    known = {**inputs(store, catalogue, entry), "builder": str(version)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def quick_check(store: ModelStore, catalogue: Catalogue, entry: Entry) -> str | None:
    """What is wrong with the built graphs, by stamp and sizes; None if nothing is."""
    folder = store.graphs(entry)
    if not os.path.isdir(folder):  # Path.is_dir raises where this user may not look
        return f"the streaming graphs of {entry.name} are not built in {store.root}"
    family = family_of(entry.architecture)
    stamp = _read_stamp(folder, family)
    if stamp is None:
        return f"{folder} is half-built: it has no valid {STAMP}"
    same_version = stamp["builder"] == family.build_version
    if not same_version or stamp["inputs"] != inputs(store, catalogue, entry):
        return f"{folder} was built by another version of edged or from other weights"
    for name, size, _ in _outputs(stamp):
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} is damaged: {path.stat().st_size} bytes instead of {size}"
    return None


def check(store: ModelStore, catalogue: Catalogue, entry: Entry) -> str | None:
    """As `quick_check`, but reads every byte."""
    problem = quick_check(store, catalogue, entry)
    if problem:
        return problem
    folder = store.graphs(entry)
    stamp = _read_stamp(folder, family_of(entry.architecture))
    for name, _, digest in _outputs(stamp or {"outputs": {}}):
        if sha256(folder / name) != digest:
            return f"{folder / name} is damaged: its SHA-256 is not the one it was built with"
    return None


def build(store: ModelStore, catalogue: Catalogue, entry: Entry) -> None:
    """Builds the graphs beside the old ones and then replaces those, whole or not at all.

    Raises ModelError if the weights do not have a form that graphs can be built from.
    """
    family = family_of(entry.architecture)
    weights = catalogue.get(entry.streaming_encoder) if entry.streaming_encoder else None
    with _new_folder(store.graphs(entry)) as fresh:
        try:
            adapted = store.path(weights, weights.files[0]) if weights else None
            # Only here, because it imports onnx, which no run needs.
            exporter = importlib.import_module(f"edged.export.{family.name}")
            exporter.build(store.root / entry.name, fresh, adapted, entry.language)
        except (OSError, ModelError):  # a ModelError names the file
            raise
        except Exception as error:  # whatever a foreign file breaks in the exporter
            raise ModelError(
                f"no streaming graphs can be built from the files of {entry.name}"
                f" ({type(error).__name__}: {error}): they do not have the form of the"
                f" architecture {entry.architecture}"
            ) from error
        outputs = {
            name: {"size": (fresh / name).stat().st_size, "sha256": sha256(fresh / name)}
            for name in family.graph_files
        }
        stamp = {
            "format": _FORMAT,
            "builder": family.build_version,
            "inputs": inputs(store, catalogue, entry),
            "outputs": outputs,
        }
        (fresh / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A new directory that becomes `folder` when the block ends without an error.

    Its hidden name ends in .tmp, which `ModelStore.lock` removes after a crash.
    """
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.old.tmp")
    with disk_errors(folder):
        try:
            fresh.mkdir(parents=True)
            yield fresh
            for path in fresh.iterdir():
                atomicfile.flush(path)
            atomicfile.flush(fresh)
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            fresh.rename(folder)
            atomicfile.flush_folder(folder.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _read_stamp(folder: Path, family: Family) -> _Stamp | None:
    """The stamp; None if it is not whole or does not name every graph of the family."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        whole = stamp["format"] == _FORMAT and isinstance(stamp["inputs"], dict)
        named = {name for name, _, _ in _outputs(stamp)}
        complete = whole and "builder" in stamp and named == set(family.graph_files)
        return stamp if complete else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _outputs(stamp: _Stamp) -> list[tuple[str, int, str]]:
    """(file name, size, SHA-256) of each graph."""
    outputs = stamp["outputs"]
    assert isinstance(outputs, dict)
    return [(name, value["size"], value["sha256"]) for name, value in outputs.items()]
