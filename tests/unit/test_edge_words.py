"""Words that the second pass skips at a segment's edges, and what a turn makes of them."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from functools import partial

import pytest

from edged.engine.background_worker import InlineExecutor
from edged.engine.turn_assembler import TurnAssembler
from edged.events import Word
from edged.stt.edge_words import with_edge_words
from edged.stt.second_pass import Transcript
from edged.stt.words import SegmentWord


def words(text: str, start_s: float = 0.0) -> list[Word]:
    """One in half a second, each for 0.4 s."""
    return [
        Word(word, start_s + 0.5 * i, start_s + 0.5 * i + 0.4)
        for i, word in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("Three, Bobby ripped it.", "Bobby ripped it.", "Three, Bobby ripped it."),
        ("Please call Stella. Three.", "Please call Stella.", "Please call Stella. Three."),
        ("Three, go forward.", "Three. Go forward.", "Three. Go forward."),
        ("", "Bobby ripped it.", "Bobby ripped it."),
        ("Three.", "", "Three."),
    ],
)
def test_an_utterance_that_the_second_pass_skips_beside_a_sentence_is_in_the_turn(
    said: str, heard: str, expected: str
) -> None:
    """ "three", alone, 0.2 s before or after a sentence, was said as text and lost in the turn."""
    assert " ".join(w.text for w in with_edge_words(words(said), words(heard))) == expected


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("I the boat left.", "The boat left."),  # not set apart: corrected
        ("The boat left it.", "The boat left."),
        ("Day, nine boats.", "Eight boats."),  # another word: corrected
        ("One, two, three, four, we left.", "We left."),  # too much to have been skipped
    ],
)
def test_what_the_second_pass_corrects_stays_corrected(said: str, heard: str) -> None:
    assert " ".join(w.text for w in with_edge_words(words(said), words(heard))) == heard


def test_times_stay_in_order_where_attention_rested_on_the_word_that_was_skipped() -> None:
    """The second pass heard "Bobby" at the segment's very beginning, where "three" had been."""
    for heard_at_s in (0.0, 3.0):
        heard = words("Bobby ripped.", heard_at_s)
        both = with_edge_words(words("Three, Bobby ripped. Yes."), heard)
        times = [t for word in both for t in (word.start_s, word.stop_s)]
        assert times == sorted(times)


def turn_of(
    said: str, heard: str, probability: float, voice_uncertainty: float = 0.0
) -> str | None:
    """The text of a turn of one segment."""
    turns = TurnAssembler(InlineExecutor(), Counter())
    turns.add_words(words(said, 1.0))
    second = [SegmentWord(w.text, w.start_s, w.stop_s, 0, 0.9) for w in words(heard)]
    turns.add_segment(
        16_000, lambda: Transcript(second, [probability] * len(second)), voice_uncertainty
    )
    turns.close()
    given = turns.pop_finished()
    return given[0].text if given else None


def test_words_that_were_said_are_a_turn_although_the_second_pass_is_unsure() -> None:
    """The text was "Three.", and no turn followed: whoever waits for turns heard nothing."""
    assert turn_of("Three.", "Free.", 0.2) == "Three."
    assert turn_of("", "Free.", 0.2) is None
    assert turn_of("Three.", "Free.", 0.9) == "Free."


def test_where_the_voice_is_in_doubt_a_turn_needs_surer_words() -> None:
    """Music that no text was said of became a turn: "I don't know."."""
    assert turn_of("", "Free.", 0.6) == "Free."
    assert turn_of("", "Free.", 0.6, voice_uncertainty=0.2) is None


def test_each_segment_of_a_turn_has_its_own_words() -> None:
    turns = TurnAssembler(InlineExecutor(), Counter())
    for number, (said, heard) in enumerate((("One, yes.", "Yes."), ("No. Two.", "No."))):
        turns.add_words(words(said, 2.0 * number))
        second = [SegmentWord(w.text, w.start_s, w.stop_s, 0, 0.9) for w in words(heard)]
        transcript = Transcript(second, [0.9] * len(second))
        turns.add_segment(number * 32_000, partial(deepcopy, transcript))
    turns.close()
    assert turns.pop_finished()[0].text == "One, Yes. No. Two."


@pytest.mark.parametrize(
    ("pieces", "text", "confidence"),
    [
        ([("Three.", "Free.", 0.2)], "Three.", None),
        ([("Three.", "", 0.9)], "Three.", None),
        ([("We went home.", "We went home.", 0.9), ("", "Uh-huh.", 0.1)], "We went home.", 0.9),
    ],
)
def test_confidence_is_of_the_words_that_are_in_the_turn(
    pieces: list[tuple[str, str, float]], text: str, confidence: float | None
) -> None:
    """Noise behind a sure sentence took it to 0.3, below what Home Assistant's blueprints act on;
    a word that nothing confirmed had 1.0."""
    turns = TurnAssembler(InlineExecutor(), Counter())
    for number, (said, heard, p) in enumerate(pieces):
        turns.add_words(words(said, 3.0 * number))
        second = [SegmentWord(w.text, w.start_s, w.stop_s, 0, p) for w in words(heard)]
        transcript = Transcript(second, [p] * len(second))
        turns.add_segment(number * 48_000, partial(deepcopy, transcript))
    turns.close()
    (turn,) = turns.pop_finished()
    assert turn.text == text
    assert turn.confidence == (None if confidence is None else pytest.approx(confidence))
