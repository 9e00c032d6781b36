"""Which model recognises which language: the meaning of EDGED_MODEL and EDGED_LANGUAGE."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.errors import ModelError
from edged.languages import AUTO, DEFAULT_LANGUAGE, described
from edged.models import build
from edged.models.catalogue import Catalogue, Entry, shipped
from edged.models.store import FileState, ModelStore, default_models_dir, fetch_hint

OFF = "off"  # no second opinion
SECOND_OPINION = "whisper-base"  # the model that was measured for it
# By the beginning of `architecture`: which of two models of a language is preferred.
_PREFERENCE = ("moonshine-streaming", "whisper", "")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A recogniser and what it is to recognise: the code of a language, or AUTO."""

    entry: Entry
    language: str


def choose(
    catalogue: Catalogue, installed: Collection[str], model: str, language: str
) -> ModelChoice:
    """Chooses a recogniser.

    installed: names of the recognisers that can be loaded. model: a name, or AUTO for the best
    installed model of the language. language: a code, or AUTO.

    A model that is named is chosen whether it is installed or not; so is the default model of a
    language that has one. DEFAULT_LANGUAGE, which stands where nobody has chosen one, means the
    language of a named model that has only one. Raises ModelError, which names what would have to
    be fetched.
    """
    if model != AUTO:
        entry = catalogue.recogniser(model)
        return ModelChoice(entry, _language_of(entry, language, catalogue))
    candidates = list(_ranked(catalogue, language))
    for entry in candidates:
        if entry.name in installed or (entry.default and language in entry.languages):
            return ModelChoice(entry, language)
    raise _nothing_installed(catalogue, installed, candidates, language)


def choose_for_stream(
    catalogue: Catalogue, installed: Collection[str], model: str, language: str
) -> ModelChoice:
    """Chooses a recogniser for a stream that may ask for another language than the settings.

    model: what the settings say. A named model without the language is replaced by the best
    installed one that has it. Raises ModelError.
    """
    if model == AUTO:
        return choose(catalogue, installed, AUTO, language)
    languages = catalogue.recogniser(model).languages
    if language in languages or (language == AUTO and len(languages) > 1):
        return choose(catalogue, installed, model, language)
    try:
        return choose(catalogue, installed, AUTO, language)
    except ModelError:
        if language != AUTO:
            raise
        return choose(catalogue, installed, model, AUTO)


def languages_of(catalogue: Catalogue, installed: Collection[str], model: str) -> tuple[str, ...]:
    """The languages that `choose` accepts for `model` without fetching anything; AUTO is the last
    of them if it is one."""
    if model != AUTO:
        return _with_auto(catalogue.recogniser(model).languages)
    entries = [e for e in catalogue.entries if e.kind == "recogniser" and e.name in installed]
    found = {code: None for entry in entries for code in entry.languages}
    finds_language = any(len(entry.languages) > 1 for entry in entries)
    return (*sorted(found), AUTO) if finds_language else tuple(sorted(found))


def to_fetch(catalogue: Catalogue, language: str) -> Entry | None:
    """The model that somebody who speaks `language` should fetch; None if there is none.

    The best one that is free, whose files can be verified, and that somebody has run in edged; else
    the best one.
    """
    candidates = list(_ranked(catalogue, language))
    recommended = (e for e in candidates if e.tried and not e.non_commercial and e.is_verifiable)
    return next(recommended, candidates[0] if candidates else None)


def names_to_fetch(catalogue: Catalogue, installed: Collection[str], language: str) -> list[str]:
    """The default models, and one for `language` unless a model for it is installed.

    Raises ModelError if there is no model for the language.
    """
    names = [entry.name for entry in catalogue.choose([])]
    candidates = list(_ranked(catalogue, language))
    if any(entry.default or entry.name in installed for entry in candidates):
        return names
    entry = to_fetch(catalogue, language)
    if entry is None:
        raise _nothing_installed(catalogue, installed, candidates, language)
    return [*names, entry.name]


def installed_models(
    models_dir: Path | None = None, catalogue: Catalogue | None = None
) -> tuple[str, ...]:
    """The names of the recognisers that are fetched and built. Checks stamps and sizes only."""
    catalogue = catalogue or shipped()
    store = ModelStore(models_dir or default_models_dir())
    entries = (e for e in catalogue.entries if e.kind == "recogniser")
    return tuple(e.name for e in entries if _is_installed(store, catalogue, e))


def chosen_for_stream(models_dir: Path | None, model: str, language: str) -> ModelChoice:
    """`choose_for_stream` with the catalogue and the models directory of this installation."""
    return choose_for_stream(shipped(), installed_models(models_dir), model, language)


def chosen(models_dir: Path | None, model: str, language: str) -> ModelChoice:
    """`choose` with the catalogue and the models directory of this installation."""
    return choose(shipped(), installed_models(models_dir), model, language)


def second_opinion_for(models_dir: Path | None, name: str, wanted: str) -> str | None:
    """The model that is asked about the texts of turns of the recogniser `name`; None without one.

    wanted: `auto` or `off`, as EDGED_SECOND_OPINION. Only Moonshine tiny-en has one.
    """
    catalogue = shipped()
    if wanted != AUTO or not catalogue.recogniser(name).default:
        return None
    store, entry = (
        ModelStore(models_dir or default_models_dir()),
        catalogue.recogniser(SECOND_OPINION),
    )
    return SECOND_OPINION if _is_installed(store, catalogue, entry) else None


def _is_installed(store: ModelStore, catalogue: Catalogue, entry: Entry) -> bool:
    ready = all(store.quick_check(entry, file) is FileState.READY for file in entry.files)
    return ready and not build.quick_check(store, catalogue, entry)


def _language_of(entry: Entry, language: str, catalogue: Catalogue) -> str:
    """What a named model recognises. Raises ModelError if it does not have the language."""
    if len(entry.languages) == 1 and language in (AUTO, DEFAULT_LANGUAGE):
        return entry.languages[0]
    if language == AUTO or language in entry.languages:
        return language
    several = len(entry.languages) > 8
    only = f"{len(entry.languages)} other languages" if several else ", ".join(entry.languages)
    message = f"the model {entry.name} does not recognise {described(language)}, but {only}"
    better = to_fetch(catalogue, language)
    remedy = "Set EDGED_MODEL=auto"
    if better is not None:
        remedy += f" and run `edged models fetch {better.name}`"
    raise ModelError(message, f"{remedy}.")


def _ranked(catalogue: Catalogue, language: str) -> Iterator[Entry]:
    """All models for a language, the best first; for AUTO those that find the language."""

    def rank(entry: Entry) -> tuple[bool, bool, int, int]:
        architecture = entry.architecture or ""
        kind = next(n for n, begin in enumerate(_PREFERENCE) if architecture.startswith(begin))
        return not entry.default, entry.non_commercial, kind, -entry.size

    entries = [e for e in catalogue.entries if e.kind == "recogniser"]
    if language == AUTO:
        fitting = [e for e in entries if len(e.languages) > 1]
    else:
        fitting = [e for e in entries if language in e.languages]
    yield from sorted(fitting, key=rank)


def _with_auto(languages: tuple[str, ...]) -> tuple[str, ...]:
    return (*languages, AUTO) if len(languages) > 1 else languages


def _nothing_installed(
    catalogue: Catalogue, installed: Collection[str], candidates: list[Entry], language: str
) -> ModelError:
    what = "finds the language by itself" if language == AUTO else "recognises "
    what += "" if language == AUTO else described(language)
    entry = to_fetch(catalogue, language)
    if entry is None:
        return ModelError(f"there is no model that {what}")
    known = ", ".join(languages_of(catalogue, installed, AUTO)) or "none"
    message = f"no installed model {what}; installed languages: {known}"
    return ModelError(message, fetch_hint(entry))
