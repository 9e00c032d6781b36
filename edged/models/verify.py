"""`edged models verify`: every hash, the built graphs against upstream's own on real speech, and
whether a model transcribes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged.audio.files import read_samples
from edged.errors import ModelError
from edged.models import build
from edged.models.catalogue import Catalogue, Entry, shipped
from edged.models.sample_check import check_samples
from edged.models.samples import samples
from edged.models.store import FileState, ModelStore, default_models_dir, repair_hint, sha256
from edged.stt.families import family_of


@dataclass(frozen=True)
class Check:
    """One check of one model. ok: None if it was not made, because of an earlier problem or because
    it does not apply. message: the result in one sentence."""

    model: str
    what: str
    ok: bool | None
    message: str


def verify(
    names: list[str] | None = None,
    models_dir: Path | None = None,
    threads: int = 1,
    catalogue: Catalogue | None = None,
) -> Iterator[Check]:
    """Yields checks one by one, as they are made.

    names: models to check; none means the default set and every model in `models_dir`.
    """
    catalogue = catalogue or shipped()
    store = ModelStore(models_dir or default_models_dir())
    for entry in _selected(store, catalogue, names or []):
        files_right = True
        for file in entry.files:
            state = store.check(entry, file)
            files_right &= state is FileState.READY
            path = store.path(entry, file)
            message = (
                "SHA-256 is right"
                if state is FileState.READY
                else f"{path} is {state.value}. {repair_hint(entry)}"
            )
            yield Check(entry.name, file.name, state is FileState.READY, message)
        if entry.kind == "recogniser":
            yield from _recogniser(store, catalogue, entry, files_right, threads)


def _selected(store: ModelStore, catalogue: Catalogue, names: list[str]) -> list[Entry]:
    if names:
        return catalogue.choose(names)
    # Not Path.is_dir, which raises where this user may not look.
    there = [e.name for e in catalogue.entries if os.path.isdir(store.root / e.name)]
    default = [e.name for e in catalogue.choose([])]
    return catalogue.choose(list(dict.fromkeys([*default, *there])))


def _recogniser(
    store: ModelStore, catalogue: Catalogue, entry: Entry, files_right: bool, threads: int
) -> Iterator[Check]:
    problem = build.check(store, catalogue, entry)
    message = f"{problem}. {repair_hint(entry)}" if problem else "stamp and every SHA-256 are right"
    yield Check(entry.name, "graphs", not problem, message)
    if problem or not files_right:
        yield Check(entry.name, "speech", None, "not compared: repair the files first")
        return
    if entry.language in family_of(entry.architecture).check_languages:
        yield from _speech(store, entry, threads)
    else:
        yield Check(entry.name, "speech", None, "not compared: the sample speech is English")
    yield from _words(store, entry, threads)


def _words(store: ModelStore, entry: Entry, threads: int) -> Iterator[Check]:
    """Transcribes the sample speech in the model's language and compares it with its text."""
    try:
        model = family_of(entry.architecture).load(
            store.root / entry.name, store.graphs(entry), entry.language, threads
        )
    except ModelError as error:
        yield Check(entry.name, "words", False, str(error))
        return
    results = [result for code in model.languages if (result := check_samples(model, code))]
    for result in results:
        yield Check(entry.name, "words", result.ok, result.message)
    if not results:
        codes = ", ".join(model.languages)
        text = f"not checked: there is no sample speech in {codes}; say something and see"
        yield Check(entry.name, "words", None, text)


def _speech(store: ModelStore, entry: Entry, threads: int) -> Iterator[Check]:
    """Compares the built graphs with upstream's own model on each clip of the sample speech in the
    model's language; on English ones if there are none in it."""
    family = family_of(entry.architecture)
    for sample in samples(entry.language) or samples():
        if sha256(sample.path) != sample.sha256:
            raise ModelError(
                f"{sample.path}, which is a part of edged, is damaged. Install edged again."
            )
        audio: NDArray[np.float32] = read_samples(str(sample.path))[0][:, 0]
        result = family.check(store.root / entry.name, store.graphs(entry), audio, threads)
        yield Check(entry.name, sample.path.name, result.ok, result.message)
