"""Opens the fetched and built models of one directory, once, for all sessions to share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edged import resources
from edged.errors import ModelError
from edged.languages import AUTO
from edged.models import build
from edged.models.catalogue import Catalogue, Entry, shipped
from edged.models.store import FileState, ModelStore, default_models_dir, repair_hint
from edged.ortsession import limit_malloc_growth, open_session, release_memory
from edged.stt.families import family_of
from edged.stt.family import SpeechModel
from edged.stt.second_opinion import SecondOpinion
from edged.vad.inactivity import Weights
from edged.vad.smart_turn import MAX_RUN_S, SmartTurn

_SHORT_MODELS_THREADS = 1  # Silero and Smart Turn: too small to gain from a second thread


@dataclass(frozen=True)
class Models:
    """All that a session needs. It holds no state of any stream.

    name, languages, licence: of the recogniser, as in the catalogue. hash: 12 hex digits that name
    these very files, weights and graphs. recogniser: the opened speech model. silero: the voice
    activity detector. smart_turn: the turn model; None if it was not fetched (then its name is in
    `missing`) or if this device is too slow for it (then it is in `too_slow`). inactivity: the
    weights of the turn detector. load_level: the level of `edged.engine.load_level` at which this
    device keeps up, if it was measured. second_opinion: the model that is asked about the texts of
    turns, if there is one.
    """

    name: str
    languages: tuple[str, ...]
    licence: str
    hash: str
    recogniser: SpeechModel
    silero: ort.InferenceSession
    smart_turn: ort.InferenceSession | None
    missing: tuple[str, ...]
    inactivity: Weights
    too_slow: tuple[str, ...] = ()
    load_level: int = 0
    second_opinion: SecondOpinion | None = None


def load(
    models_dir: Path | None = None,
    model: str = "tiny-en",
    threads: int = 1,
    loaded: Models | None = None,
    second_opinion: str | None = None,
) -> Models:
    """Opens a recogniser and the models that every session needs with it.

    Checks stamps and sizes only; `edged models verify` reads every byte. threads: 1 or 2, for the
    recogniser. loaded: models of the same directory that are loaded already; all of them but the
    recogniser are shared. second_opinion: name of the model that is asked about the texts of turns.
    Raises ModelError, which names the file and the command that repairs it.
    """
    catalogue = shipped()
    store = ModelStore(models_dir or default_models_dir())
    entry = catalogue.recogniser(model)
    quick_check(models_dir, model)
    limit_malloc_growth()

    def opened(name: str) -> SpeechModel:
        shared = None if loaded is None else _speech_model(loaded, name)
        return shared or _opened(store, catalogue.recogniser(name), threads)

    if second_opinion is not None:
        quick_check(models_dir, second_opinion)
    models = Models(
        name=entry.name,
        languages=entry.languages,
        licence=entry.licence,
        hash=build.inputs_hash(store, catalogue, entry),
        recogniser=opened(entry.name),
        second_opinion=(
            SecondOpinion(second_opinion, opened(second_opinion)) if second_opinion else None
        ),
        **(_shared_parts(loaded) if loaded else _opened_parts(store, catalogue)),
    )
    release_memory()  # ONNX Runtime has packed the weights and freed them as they were in the files
    return models


def _opened(store: ModelStore, entry: Entry, threads: int) -> SpeechModel:
    return family_of(entry.architecture).load(
        store.root / entry.name, store.graphs(entry), entry.language, threads
    )


def _speech_model(models: Models, name: str) -> SpeechModel | None:
    """The speech model `name` among loaded models, whatever it is used for there."""
    if models.name == name:
        return models.recogniser
    opinion = models.second_opinion
    return opinion.model if opinion is not None and opinion.name == name else None


def _opened_parts(store: ModelStore, catalogue: Catalogue) -> dict[str, Any]:
    """The fields of `Models` that do not depend on the recogniser."""
    turn = catalogue.of_kind("turn")
    turn_path = _turn_model(store, turn)
    return {
        "silero": open_session(_only_file(store, catalogue.of_kind("vad")), _SHORT_MODELS_THREADS),
        "smart_turn": (
            open_session(turn_path, _SHORT_MODELS_THREADS, arena=True) if turn_path else None
        ),
        "missing": () if turn_path else (turn.name,),
        "inactivity": Weights.load(resources.models_data() / "inactivity.json"),
    }


def _shared_parts(models: Models) -> dict[str, Any]:
    """The same fields of loaded models."""
    names = ("silero", "smart_turn", "missing", "inactivity", "too_slow")
    return {name: getattr(models, name) for name in names}


def has_language(models: Models, language: str) -> bool:
    """Whether a session with `language`, a code or AUTO, is right with these models."""
    return len(models.languages) > 1 if language == AUTO else language in models.languages


def for_this_machine(models: Models) -> Models:
    """Measures Smart Turn, which takes twice its run time, and returns the models without it if its
    answers would come too late on this device."""
    if models.smart_turn is None or SmartTurn(models.smart_turn).run_time_s() <= MAX_RUN_S:
        return models
    return replace(models, smart_turn=None, too_slow=(shipped().of_kind("turn").name,))


def quick_check(models_dir: Path | None = None, model: str = "tiny-en") -> None:
    """Raises ModelError if a file that `load` needs for the recogniser is missing or has a wrong
    size. Opens none of them."""
    catalogue = shipped()
    store = ModelStore(models_dir or default_models_dir())
    entry = catalogue.recogniser(model)
    _check_files(store, entry)
    if problem := build.quick_check(store, catalogue, entry):
        raise ModelError(problem, repair_hint(entry))


def _only_file(store: ModelStore, entry: Entry) -> Path:
    _check_files(store, entry)
    return store.path(entry, entry.files[0])


def _turn_model(store: ModelStore, entry: Entry) -> Path | None:
    """The turn model's file; None if it was not fetched. Raises ModelError if it is damaged."""
    if store.quick_check(entry, entry.files[0]) is FileState.MISSING:
        return None
    return _only_file(store, entry)


def _check_files(store: ModelStore, entry: Entry) -> None:
    for file in entry.files:
        state, path = store.quick_check(entry, file), store.path(entry, file)
        if state is FileState.MISSING:
            raise ModelError(f"{path} is missing", repair_hint(entry))
        if state is FileState.DAMAGED:
            raise ModelError(f"{path} is damaged", repair_hint(entry))
