"""Spoken numbers written as digits: in the turn's text, with the times of its words."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.engine.background_worker import InlineExecutor
from edged.engine.turn_assembler import TurnAssembler, TurnStyle
from edged.errors import RequestError
from edged.events import Turn, Word
from edged.options import Options, from_json_config
from edged.stt.digits import LANGUAGES, with_digits
from edged.stt.second_pass import Transcript
from edged.stt.words import SegmentWord


def words(text: str) -> list[Word]:
    """One word every 0.4 s, without pauses."""
    return [Word(word, 0.4 * n, 0.4 * n + 0.35) for n, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("language", "spoken", "written"),
    [
        ("en", "Turn it to twenty five.", "Turn it to 25."),
        ("en", "Twenty-three degrees, please", "23 degrees, please"),
        ("en", "Set a timer for ten minutes.", "Set a timer for 10 minutes."),
        ("en", "Seven, seven, four, two.", "7, 7, 4, 2."),
        ("en", "two thousand twenty six", "2026"),
        ("en", "on March third", "on March 3rd"),
        ("en", "It costs (ninety nine) dollars", "It costs (99) dollars"),
        ("de", "Stell den Timer auf fünfundzwanzig Minuten.", "Stell den Timer auf 25 Minuten."),
        ("fr", "Il y en a quatre-vingt-quinze.", "Il y en a 95."),
        ("es", "ochenta y uno", "81"),
        ("ja", "twenty", "twenty"),
    ],
)
def test_numbers_become_digits_and_keep_their_punctuation(
    language: str, spoken: str, written: str
) -> None:
    assert " ".join(word.text for word in with_digits(words(spoken), language)) == written


@pytest.mark.parametrize(
    "text",
    [
        "one of us",
        "No one knows.",
        "I have one dog and two cats.",
        "The first and the second one",
        "Just a second.",
        "At 5:30 on March 3rd, 2026",
    ],
)
def test_what_is_no_number_or_a_small_one_alone_stays(text: str) -> None:
    assert with_digits(words(text), "en") == words(text)


def test_a_number_lasts_from_its_first_word_to_its_last() -> None:
    spoken = words("set it to one hundred and five degrees now")
    assert with_digits(spoken, "en") == [
        *spoken[:3],
        Word("105", spoken[3].start_s, spoken[6].stop_s),
        *spoken[7:],
    ]


def test_words_on_both_sides_of_a_pause_are_two_numbers() -> None:
    together = [Word("twenty", 1.0, 1.4), Word("three", 1.5, 1.9)]
    apart = [Word("twenty", 1.0, 1.4), Word("three", 2.5, 2.9)]
    assert [word.text for word in with_digits(together, "en")] == ["23"]
    assert next(word.text for word in with_digits(apart, "en")) == "20"


number_words = st.sampled_from(
    ["one", "two", "five", "ten", "twenty", "three,", "hundred", "and", "point", "a", "of."]
)


@given(st.lists(number_words, max_size=12), st.sampled_from(LANGUAGES))
def test_words_stay_in_order_and_within_the_time_of_the_spoken_ones(
    spoken: list[str], language: str
) -> None:
    before = words(" ".join(spoken))
    after = with_digits(before, language)
    starts, stops = {w.start_s for w in before}, {w.stop_s for w in before}
    assert all(word.start_s in starts and word.stop_s in stops for word in after)
    times = [t for word in after for t in (word.start_s, word.stop_s)]
    assert times == sorted(times)
    assert with_digits(after, language) == after or len(after) <= len(before)


def turn(style: TurnStyle) -> Turn:
    turns = TurnAssembler(InlineExecutor(), Counter())
    turns.style = style
    spoken = words("twenty three degrees")
    second = [SegmentWord(w.text, w.start_s, w.stop_s, n, 0.9) for n, w in enumerate(spoken)]
    turns.add_segment(0, lambda: Transcript(second, [0.9] * 3))
    turns.close()
    (given_turn,) = turns.pop_finished()
    return given_turn


def test_the_words_of_a_turn_are_those_of_its_text() -> None:
    assert turn(TurnStyle()).text == "twenty three degrees"
    written = turn(TurnStyle("en", digits=True))
    assert written.text == "23 degrees"
    assert [word.text for word in written.words] == ["23", "degrees"]
    assert written.start_s == 0.0
    assert written.stop_s == pytest.approx(1.15)


def test_a_language_without_spaces_has_none_in_the_text_of_a_turn() -> None:
    assert turn(TurnStyle("ja")).text == "twentythreedegrees"


def test_a_client_asks_for_digits_in_its_json_config() -> None:
    assert from_json_config({"digits": True}).digits
    assert not from_json_config({"digits": False}, Options(digits=True)).digits
    with pytest.raises(RequestError, match="digits must be true or false, not 'on'"):
        from_json_config({"digits": "on"})
