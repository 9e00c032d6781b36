"""EDGED_MODEL and EDGED_LANGUAGE: which model recognises which language."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from edged.errors import ModelError
from edged.languages import AUTO, NAMES, RIGHT_TO_LEFT, WITHOUT_SPACES, described, from_tag
from edged.models.catalogue import Catalogue, Entry, File, shipped
from edged.models.choice import (
    choose,
    choose_for_stream,
    languages_of,
    names_to_fetch,
    to_fetch,
)
from edged.stt.language_id import spoken_language

TINY = replace(shipped().get("tiny-en"), streaming_encoder=None)
MANY = tuple(NAMES)


def recogniser(
    name: str,
    architecture: str,
    languages: tuple[str, ...],
    size: int,
    non_commercial: bool = False,
    tried: bool = True,
    verifiable: bool = True,
) -> Entry:
    file = File("weights", size, "0" * 64 if verifiable else None, None, None, "https://h/x", None)
    return replace(
        TINY,
        name=name,
        architecture=architecture,
        languages=languages,
        files=(file,),
        default=False,
        non_commercial=non_commercial,
        tried=tried,
    )


CATALOGUE = Catalogue(
    (
        TINY,
        recogniser("tiny-ja", "moonshine-tiny", ("ja",), 70, True, False, False),
        recogniser("whisper-tiny", "whisper-tiny", MANY, 75),
        recogniser("whisper-base", "whisper-base", MANY, 145),
        recogniser(
            "streaming-tiny-de", "moonshine-streaming-tiny", ("de",), 30, False, False, False
        ),
        recogniser("streaming-small-de", "moonshine-streaming-small", ("de",), 120, False, False),
        recogniser("streaming-small-en", "moonshine-streaming-small", ("en",), 120, False, False),
    )
)
ALL = [entry.name for entry in CATALOGUE.entries]


def name_of(installed: Collection[str], model: str, language: str) -> str:
    return choose(CATALOGUE, installed, model, language).entry.name


@pytest.mark.parametrize(
    ("language", "installed", "expected"),
    [
        ("en", ALL, "tiny-en"),
        ("en", [], "tiny-en"),  # whose absence is reported with the file that is missing
        ("de", ALL, "streaming-small-de"),
        ("de", ["tiny-en", "streaming-tiny-de", "whisper-base"], "streaming-tiny-de"),
        ("de", ["tiny-en", "whisper-tiny", "whisper-base"], "whisper-base"),
        ("fr", ["whisper-tiny"], "whisper-tiny"),
        ("ja", ["tiny-ja", "whisper-tiny"], "whisper-tiny"),  # free ones first
        ("ja", ["tiny-ja"], "tiny-ja"),
        (AUTO, ["tiny-en", "whisper-base", "streaming-tiny-de"], "whisper-base"),
    ],
)
def test_auto_takes_the_best_installed_model_of_the_language(
    language: str, installed: list[str], expected: str
) -> None:
    choice = choose(CATALOGUE, installed, AUTO, language)
    assert (choice.entry.name, choice.language) == (expected, language)


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("de", r"no installed model recognises German \(de\); installed languages: en\."),
        (AUTO, r"no installed model finds the language by itself"),
    ],
)
def test_what_is_not_installed_is_refused_with_the_command_that_fetches_it(
    language: str, message: str
) -> None:
    """Of German's models the streaming ones are preferred where they are installed, but nobody has
    run them yet: what is recommended is the one that has been."""
    with pytest.raises(ModelError, match=message) as caught:
        choose(CATALOGUE, ["tiny-en"], AUTO, language)
    assert caught.value.remedy == "Run `edged models fetch whisper-base`."


def test_a_language_that_no_model_has_is_refused() -> None:
    with pytest.raises(ModelError, match=r"there is no model that recognises Japanese \(ja\)"):
        choose(Catalogue((TINY,)), ["tiny-en"], AUTO, "ja")


def test_a_named_model_is_taken_and_must_have_the_language() -> None:
    assert name_of(["tiny-en"], "whisper-base", "de") == "whisper-base"
    with pytest.raises(ModelError, match=r"tiny-en does not recognise German \(de\), but en") as no:
        choose(CATALOGUE, ALL, "tiny-en", "de")
    assert no.value.remedy == "Set EDGED_MODEL=auto and run `edged models fetch whisper-base`."


@pytest.mark.parametrize("language", ["en", AUTO, "ja"])
def test_a_named_model_of_one_language_recognises_that_one(language: str) -> None:
    """EDGED_LANGUAGE had only `en`, which is its default, when tiny-ja could be chosen already. An
    English model that is asked to find the language says English."""
    assert choose(CATALOGUE, ALL, "tiny-ja", language).language == "ja"
    assert choose(CATALOGUE, ALL, "tiny-en", AUTO).language == "en"


def test_a_stream_gets_the_named_model_only_if_that_has_its_language() -> None:
    def chosen(model: str, language: str, installed: list[str] = ALL) -> str:
        return choose_for_stream(CATALOGUE, installed, model, language).entry.name

    assert chosen("whisper-tiny", "de") == "whisper-tiny"
    assert chosen("whisper-tiny", AUTO) == "whisper-tiny"
    assert chosen("tiny-en", "de") == "streaming-small-de"
    assert chosen("tiny-en", AUTO) == "whisper-base"
    assert chosen("tiny-en", AUTO, ["tiny-en"]) == "tiny-en"
    with pytest.raises(ModelError, match="whisper-base"):
        chosen("tiny-en", "de", ["tiny-en"])


def test_the_languages_that_can_be_chosen_are_those_of_what_is_installed() -> None:
    assert languages_of(CATALOGUE, ["tiny-en"], AUTO) == ("en",)
    assert languages_of(CATALOGUE, ["tiny-en", "streaming-tiny-de"], AUTO) == ("de", "en")
    assert languages_of(CATALOGUE, ["tiny-en", "whisper-base"], AUTO) == (*sorted(MANY), AUTO)
    assert languages_of(CATALOGUE, ALL, "tiny-en") == ("en",)
    assert languages_of(CATALOGUE, [], "whisper-base") == (*MANY, AUTO)


def test_what_is_recommended_can_be_verified_is_free_and_was_run() -> None:
    assert to_fetch(CATALOGUE, "en") == TINY
    assert to_fetch(CATALOGUE, "ja") == CATALOGUE.get("whisper-base")
    only_ja = Catalogue((TINY, CATALOGUE.get("tiny-ja")))
    assert to_fetch(only_ja, "ja") == only_ja.get("tiny-ja")


def test_fetching_for_a_language_adds_one_model_and_only_if_there_is_none() -> None:
    """`make run` stays as small as it is; `EDGED_LANGUAGE=de make run` brings what German needs."""

    def names(language: str, *installed: str) -> list[str]:
        return names_to_fetch(CATALOGUE, installed, language)

    default = ["tiny-en"]
    assert names("en") == default
    assert names("de") == [*default, "whisper-base"]
    assert names(AUTO, "tiny-en") == [*default, "whisper-base"]
    assert names("de", "streaming-tiny-de") == default
    with pytest.raises(ModelError, match="no model that recognises"):
        names_to_fetch(Catalogue((replace(TINY, streaming_encoder=None),)), [], "ja")


def test_the_table_of_languages_is_consistent() -> None:
    assert set(NAMES) >= RIGHT_TO_LEFT | WITHOUT_SPACES
    assert len(NAMES) == 100
    assert described("pt") == "Portuguese (pt)"
    assert [from_tag(tag) for tag in ("de-AT", "pt_BR", "EN", "haw")] == ["de", "pt", "en", "haw"]


@pytest.mark.parametrize(
    ("seconds", "expected", "found"),
    [
        (10.0, "de", "nl"),  # enough was heard
        (1.0, "de", "de"),
        (1.0, None, "nl"),
        (1.0, "fr", "nl"),  # which is not probable at all
    ],
)
def test_a_short_answer_is_taken_to_be_in_the_language_so_far(
    seconds: float, expected: str | None, found: str
) -> None:
    probabilities = {"nl": 0.6, "de": 0.3, "fr": 0.001}
    assert spoken_language(probabilities, seconds, expected) == found
