"""Built graphs and their stamp: a folder of graphs without a valid stamp is never loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edged import atomicfile
from edged.errors import ModelError
from edged.models.catalogue import Catalogue, Entry
from edged.models.store import Store, plainly, sha256
from edged.stt.moonshine.build_version import BUILDER_VERSION, GRAPH_FILES

STAMP = "built.json"
_FORMAT = 1
_Stamp = dict[str, object]


def inputs(store: Store, catalogue: Catalogue, entry: Entry) -> dict[str, str]:
    """{file: SHA-256} of all that the graphs of `entry` are made from."""
    parts = [(entry, file) for file in entry.files]
    if entry.streaming_encoder:
        weights = catalogue.get(entry.streaming_encoder)
        parts += [(weights, file) for file in weights.files]
    return {file.name: store.expected_sha256(owner, file) or "unknown" for owner, file in parts}


def inputs_hash(store: Store, catalogue: Catalogue, entry: Entry) -> str:
    """12 hex digits that name this very model: its files, its weights, its builder."""
    known = {**inputs(store, catalogue, entry), "builder": str(BUILDER_VERSION)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def glance(store: Store, catalogue: Catalogue, entry: Entry) -> str | None:
    """What is wrong with the built graphs, by stamp and sizes; None if nothing is."""
    folder = store.graphs(entry)
    if not os.path.isdir(folder):  # Path.is_dir raises where this user may not look
        return f"the streaming graphs of {entry.name} are not built in {store.root}"
    stamp = _read(folder)
    if stamp is None:
        return f"{folder} is half-built: it has no valid {STAMP}"
    if stamp["builder"] != BUILDER_VERSION or stamp["inputs"] != inputs(store, catalogue, entry):
        return f"{folder} was built by another version of edged or from other weights"
    for name, size, _ in _outputs(stamp):
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} is damaged: {path.stat().st_size} bytes instead of {size}"
    return None


def check(store: Store, catalogue: Catalogue, entry: Entry) -> str | None:
    """As `glance`, by every byte."""
    problem = glance(store, catalogue, entry)
    if problem:
        return problem
    folder = store.graphs(entry)
    for name, _, digest in _outputs(_read(folder) or {}):
        if sha256(folder / name) != digest:
            return f"{folder / name} is damaged: its SHA-256 is not the one it was built with"
    return None


def build(store: Store, catalogue: Catalogue, entry: Entry) -> None:
    """Builds beside the old graphs and then takes their place, whole or not at all.

    Raises ModelError if the weights are not of a form that graphs can be built from.
    """
    weights = catalogue.get(entry.streaming_encoder) if entry.streaming_encoder else None
    with _place(store.graphs(entry)) as fresh:
        try:
            adapted = store.path(weights, weights.files[0]) if weights else None
            from edged.export import moonshine  # here only: it imports onnx, which no run needs

            moonshine.build(store.root / entry.name, fresh, adapted, entry.language)
        except OSError:
            raise
        except Exception as error:  # whatever a foreign file breaks in the builder
            raise ModelError(
                f"no streaming graphs can be built from the files of {entry.name}"
                f" ({type(error).__name__}: {error}): this edged knows the form of"
                f" {entry.architecture or 'no architecture'} as in tiny-en only"
            ) from error
        outputs = {
            name: {"size": (fresh / name).stat().st_size, "sha256": sha256(fresh / name)}
            for name in GRAPH_FILES
        }
        stamp = {
            "format": _FORMAT,
            "builder": BUILDER_VERSION,
            "inputs": inputs(store, catalogue, entry),
            "outputs": outputs,
        }
        (fresh / STAMP).write_text(json.dumps(stamp, indent=1) + "\n")


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """A new directory that becomes `folder` when the block ends well. Hidden names ending in .tmp
    are what `Store.lock` sweeps away after a crash."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.old.tmp")
    with plainly(folder):
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


def _read(folder: Path) -> _Stamp | None:
    """The stamp, if it is whole and names every graph."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        whole = stamp["format"] == _FORMAT and isinstance(stamp["inputs"], dict)
        named = {name for name, _, _ in _outputs(stamp)}
        return stamp if whole and "builder" in stamp and named == set(GRAPH_FILES) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _outputs(stamp: _Stamp) -> list[tuple[str, int, str]]:
    outputs = stamp["outputs"]
    assert isinstance(outputs, dict)
    return [(name, value["size"], value["sha256"]) for name, value in outputs.items()]
