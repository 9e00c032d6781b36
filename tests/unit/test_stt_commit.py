"""Which words of a decoded text are new, and complete enough to be committed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.stt.commit import first_uncommitted, has_grown, is_complete, remainder
from edged.stt.words import SegmentWord


def _line(text: str, start: float = 0.0, pace: float = 0.3) -> list[SegmentWord]:
    return [
        SegmentWord(w, start + i * pace, start + (i + 1) * pace, i + 1, 0.9)
        for i, w in enumerate(text.split())
    ]


@given(
    st.lists(st.sampled_from(["the", "a", "cat", "dog", "ran", "sat", "on", "mat"]), max_size=25),
    st.data(),
)
def test_an_unchanged_text_goes_on_behind_what_was_committed(
    words: list[str], data: st.DataObject
) -> None:
    line = _line(" ".join(words))
    count = data.draw(st.integers(0, len(line)))
    assert first_uncommitted(line[:count], line) == count


@pytest.mark.parametrize(
    ("committed", "decoded", "next_word"),
    [
        ("and so s not my", "and so ask not what your country", "your"),
        ("i scream", "ice cream is good", "is"),
        ("hello their", "hello there world", "world"),
        ("yes", "yes yes yes", "yes"),
    ],
)
def test_a_corrected_text_neither_repeats_nor_skips(
    committed: str, decoded: str, next_word: str
) -> None:
    """A wrong early word is not revised, and must not drag the rest of the text with it."""
    decoded_words = _line(decoded)
    index = first_uncommitted(_line(committed), decoded_words)
    assert decoded_words[index].text == next_word
    assert index == len(committed.split())


def test_words_are_not_committed_again_when_one_update_has_a_shorter_text() -> None:
    """A token's attention was far ahead and ended the text early ("We'"), so that nearly all of the
    last eight committed words were missing. The rest fitted best in front of "here.": words from
    3 s before were committed again, and as many more an update later, when the text was whole."""

    def timed(text: str, *starts: float) -> list[SegmentWord]:
        stops = [*starts[1:], starts[-1] + 0.1]
        return [
            SegmentWord(*word, n, 0.9)
            for n, word in enumerate(zip(text.split(), starts, stops, strict=True))
        ]

    committed = timed(
        "else going We're just getting out there some",
        *(3.67, 3.87, 4.47, 4.57, 4.87, 4.97, 5.17, 5.27),
    )
    before = timed(
        "I'm talking prefast here. There's nothing going on.",
        *(1.77, 1.97, 2.27, 2.67, 2.97, 3.27, 3.47, 3.67),
    )
    decoded = [*before, SegmentWord("We'", 4.47, 6.3, 9, 0.9)]
    assert first_uncommitted(committed, decoded) == len(before)


def test_a_word_behind_the_last_committed_one_is_not_taken_for_it() -> None:
    """ "You don't think it's the" had been committed, then "You have done" was decoded. Matching
    "have" with "the" cost less than matching it with nothing: "have" was never committed."""
    committed = [SegmentWord("it's", 5.0, 5.4, 1, 0.9), SegmentWord("the", 5.4, 5.65, 2, 0.9)]
    decoded = [SegmentWord("have", 6.2, 6.4, 1, 0.9), SegmentWord("done", 6.4, 6.65, 2, 0.9)]
    assert first_uncommitted(committed, decoded) == 0
    wandered = [SegmentWord("the", 6.2, 6.4, 1, 0.9), SegmentWord("done", 6.4, 6.65, 2, 0.9)]
    assert first_uncommitted(committed, wandered) == 1, "its attention was elsewhere for once"


def test_nothing_committed_means_everything_is_new() -> None:
    assert first_uncommitted([], _line("a b")) == 0
    assert first_uncommitted(_line("a b"), []) == 0


@pytest.mark.parametrize(
    ("text", "tokens", "p_eos", "complete"),
    [
        ("be", 6, None, True),  # a word follows
        ("be", 5, None, False),  # or "beheld"
        ("be", 5, 0.3, False),
        ("be", 5, 0.9, True),
        ("be.", 5, None, True),
    ],
)
def test_a_word_is_complete_when_nothing_more_of_it_can_come(
    text: str, tokens: int, p_eos: float | None, complete: bool
) -> None:
    assert is_complete(SegmentWord(text, 1.0, 1.2, 5, 0.9), tokens, p_eos) is complete


@pytest.mark.parametrize(
    ("committed", "decoded", "rest"),
    [
        ("20", "2026,", "26,"),
        ("5.30", "5.30pm.", "pm."),
        ("twenty", "twenty-three", "three"),
        ("5", "5:30", "30"),
        ("some", "something", None),  # half a word helps nobody
        ("I", "I'm", None),
    ],
)
def test_a_committed_word_that_becomes_the_beginning_of_a_longer_one_is_not_repeated(
    committed: str, decoded: str, rest: str | None
) -> None:
    """ "5.30" was committed, then the decoder made "5.30pm" of it: "5.30 5.30pm" was said."""
    before = SegmentWord("at", 3.1, 3.3, 4, 0.9)
    short = SegmentWord(committed, 3.3, 4.0, 6, 0.9)
    long = SegmentWord(decoded, 3.5, 4.7, 8, 0.9)
    assert has_grown(short, long)
    assert first_uncommitted([before, short], [before, long]) == 2
    found = remainder(short, long)
    assert (found.text if found else None) == rest
    if found:
        assert short.stop_s <= found.start_s <= found.stop_s == long.stop_s


@pytest.mark.parametrize(
    ("committed", "word"),
    [
        (SegmentWord("a", 1.0, 1.1, 1, 0.9), SegmentWord("apple", 1.2, 1.6, 2, 0.9)),
        (SegmentWord("20", 1.0, 1.4, 1, 0.9), SegmentWord("20,", 1.0, 1.4, 1, 0.9)),
        (SegmentWord("20", 1.0, 1.4, 1, 0.9), SegmentWord("30", 1.0, 1.4, 1, 0.9)),
        (SegmentWord("...", 1.0, 1.4, 1, 0.9), SegmentWord("yes", 1.0, 1.4, 1, 0.9)),
    ],
)
def test_another_word_is_not_taken_for_a_longer_form(
    committed: SegmentWord, word: SegmentWord
) -> None:
    assert not has_grown(committed, word)
