"""The built models of one directory, loaded once and shared by all sessions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime as ort

from edged import resources
from edged.errors import ModelError
from edged.models import build
from edged.models.catalogue import Entry, shipped
from edged.models.store import MEND, State, Store, default_models_dir
from edged.ortsession import limit_malloc_growth, open_session, release_memory
from edged.stt.moonshine.graphs import Graphs
from edged.stt.moonshine.vocabulary import Vocabulary
from edged.vad.inactivity import Weights
from edged.vad.smart_turn import MAX_RUN_S, SmartTurn

_SHORT_MODELS_THREADS = 1  # Silero and Smart Turn: too small to gain from a second thread


@dataclass(frozen=True)
class Models:
    """All that a session needs; nothing in it holds a stream's state.

    `hash` (12 hex digits) names these very files, weights and graphs. `smart_turn` is None where
    it was not fetched, and then its name is in `missing`, or where this machine is too slow for it,
    and then it is in `too_slow`.
    """

    name: str
    language: str
    licence: str
    hash: str
    graphs: Graphs
    vocabulary: Vocabulary
    silero: ort.InferenceSession
    smart_turn: ort.InferenceSession | None
    missing: tuple[str, ...]
    inactivity: Weights
    too_slow: tuple[str, ...] = ()


def load(models_dir: Path | None = None, model: str = "tiny-en", threads: int = 1) -> Models:
    """Looks at stamps and sizes (`edged models verify` reads every byte) and opens all graphs.

    `threads` (1 or 2) are the recogniser's. Raises ModelError naming the file and the mending
    command.
    """
    catalogue = shipped()
    store = Store(models_dir or default_models_dir())
    entry = catalogue.recogniser(model)
    glance(models_dir, model)
    turn = catalogue.of_kind("turn")
    turn_path = _turn(store, turn)
    limit_malloc_growth()
    models = Models(
        name=entry.name,
        language=entry.language,
        licence=entry.licence,
        hash=build.inputs_hash(store, catalogue, entry),
        graphs=Graphs.load(store.graphs(entry), threads),
        vocabulary=Vocabulary.load(store.root / entry.name / "tokenizer.bin"),
        silero=open_session(_only_file(store, catalogue.of_kind("vad")), _SHORT_MODELS_THREADS),
        smart_turn=(
            open_session(turn_path, _SHORT_MODELS_THREADS, arena=True) if turn_path else None
        ),
        missing=() if turn_path else (turn.name,),
        inactivity=Weights.load(resources.models_data() / "inactivity.json"),
    )
    release_memory()  # the weights as they were in the files: packed copies have replaced them
    return models


def for_this_machine(models: Models) -> Models:
    """Measures Smart Turn (twice its run time) and does without it where its answers would come
    too late."""
    if models.smart_turn is None or SmartTurn(models.smart_turn).run_time_s() <= MAX_RUN_S:
        return models
    return replace(models, smart_turn=None, too_slow=(shipped().of_kind("turn").name,))


def glance(models_dir: Path | None = None, model: str = "tiny-en") -> None:
    """Raises ModelError where `load` would for want of a file. Opens none of them."""
    catalogue = shipped()
    store = Store(models_dir or default_models_dir())
    entry = catalogue.recogniser(model)
    _look(store, entry)
    if problem := build.glance(store, catalogue, entry):
        raise ModelError(f"{problem}: {_mend(entry)}")


def _only_file(store: Store, entry: Entry) -> Path:
    _look(store, entry)
    return store.path(entry, entry.files[0])


def _turn(store: Store, entry: Entry) -> Path | None:
    """Not fetched is allowed, damaged is not."""
    if store.glance(entry, entry.files[0]) is State.MISSING:
        return None
    return _only_file(store, entry)


def _look(store: Store, entry: Entry) -> None:
    for file in entry.files:
        state, path = store.glance(entry, file), store.path(entry, file)
        if state is State.MISSING:
            raise ModelError(f"{path} is missing: {_mend(entry)}")
        if state is State.DAMAGED:
            raise ModelError(f"{path} is damaged: {_mend(entry)}")


def _mend(entry: Entry) -> str:
    return MEND if entry.default else f"`edged models fetch {entry.name}` mends it"
