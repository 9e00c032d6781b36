"""Subtitle cues: readable, in order, and escaped."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.events import Word
from edged.subtitles import LINE_CHARS, MAX_CUE_S, WIDE_LINE_CHARS, Cue, cues, srt, vtt


def spoken(text: str, start_s: float = 0.0, each_s: float = 0.3) -> list[Word]:
    """Words without pauses between them."""
    return [
        Word(word, start_s + at * each_s, start_s + (at + 1) * each_s)
        for at, word in enumerate(text.split())
    ]


@st.composite
def timed_words(draw: st.DrawFn) -> list[Word]:
    texts = draw(st.lists(st.text("abcdefgh.,?'-", min_size=1, max_size=30), max_size=60))
    now, words = 0.0, []
    for text in texts:
        start = now + draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
        now = start + draw(st.sampled_from([0.02, 0.3, 3.0]))
        words.append(Word(text, start, now))
    return words


@given(timed_words())
def test_cues_are_short_ordered_and_lose_no_word(words: list[Word]) -> None:
    made = list(cues(words))
    assert " ".join(line for cue in made for line in cue.lines) == " ".join(w.text for w in words)
    for cue in made:
        assert len(cue.lines) <= 2
        assert all(len(line) <= LINE_CHARS for line in cue.lines)
        assert 0 < cue.stop_s - cue.start_s <= MAX_CUE_S + 1e-6
    for one, following in pairwise(made):
        assert one.stop_s <= following.start_s + 1e-6


def test_a_word_longer_than_a_line_is_broken() -> None:
    (cue,) = cues([Word("a" * 60, 0, 2)])
    assert [len(line) for line in cue.lines] == [42, 18]


def test_words_that_do_not_fit_two_lines_start_the_next_cue() -> None:
    made = list(cues(spoken("the quick brown fox jumps over the lazy dog again " * 3, each_s=0.1)))
    assert len(made) == 2
    assert made[1].start_s >= made[0].stop_s


def test_a_silence_ends_a_cue() -> None:
    made = list(cues(spoken("hello there") + spoken("who is it", 5.0)))
    assert [cue.lines for cue in made] == [("hello there",), ("who is it",)]
    assert made[0].stop_s < 2


def test_a_sentence_end_ends_a_cue_that_has_a_line() -> None:
    made = list(cues(spoken("I could not help watching your face at all. Margaret said so.")))
    assert made[0].lines[-1].endswith("at all.")


def test_a_single_short_word_stays_long_enough_to_be_read() -> None:
    (cue,) = cues([Word("Yes.", 3.0, 3.2)])
    assert cue == Cue(3.0, 4.0, ("Yes.",))


def test_the_lines_of_a_cue_are_of_even_length() -> None:
    (cue,) = cues(spoken("returned from showing his guest downstairs again", each_s=0.2))
    assert len(cue.lines) == 2
    assert abs(len(cue.lines[0]) - len(cue.lines[1])) < 12


def test_a_turn_does_not_start_while_the_last_cue_is_shown() -> None:
    (cue,) = cues([Word("No.", 3.5, 3.9)], after_s=4.0)
    assert cue.start_s == 4.0


def test_srt_looks_as_players_want_it() -> None:
    cue = Cue(3661.5, 3662.25, ("Fish & chips", "<5 pounds>"))
    assert srt(cue, 7) == "7\n01:01:01,500 --> 01:01:02,250\nFish & chips\n<5 pounds>\n\n"


def test_vtt_escapes_what_it_would_read_as_markup() -> None:
    cue = Cue(0.0, 1.0, ("<b> & -->",))
    assert vtt(cue) == "00:00:00.000 --> 00:00:01.000\n&lt;b&gt; &amp; --&gt;\n\n"


@pytest.mark.parametrize("seconds", [0.9996, 59.9999, 3599.9999])
def test_times_round_up_into_the_next_unit(seconds: float) -> None:
    start = srt(Cue(seconds, seconds + 1, ("x",)), 1).splitlines()[1].split(" --> ")[0]
    assert start in ("00:00:01,000", "00:01:00,000", "01:00:00,000")


def test_lines_from_right_to_left_keep_their_full_stop_at_their_end() -> None:
    """A player that takes them to be from left to right showed it in front."""
    (cue,) = cues(spoken("שלום עולם."), 0.0, "he")
    assert cue.lines == ("\u202bשלום עולם.\u202c",)
    assert next(cues(spoken("Straße, ça va?"), 0.0, "de")).lines == ("Straße, ça va?",)


def test_lines_without_spaces_break_between_words_and_are_shorter() -> None:
    said = "今日は 天気が いいから 散歩に 行きましょう そして 帰りに " * 3
    made = [line for cue in cues(spoken(said, each_s=0.2), 0.0, "ja") for line in cue.lines]
    assert "".join(made) == said.replace(" ", "")
    assert len(made) >= 4
    for line in made:
        assert len(line) <= WIDE_LINE_CHARS
        assert line.endswith(tuple(said.split()))
