"""Tokens to words, attention frames to times."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.stt.alignment import monotonic_frames
from edged.stt.commit import first_uncommitted
from edged.stt.family import AttentionTiming
from edged.stt.moonshine.vocabulary import PieceVocabulary
from edged.stt.words import SegmentWord, group_words

SPACE = "\u2581"
TIMING = AttentionTiming(frame_s=0.024, onset_lag_s=0.03, tail_frames=4)
VOCABULARY = PieceVocabulary([(SPACE + c).encode() for c in "abcd"] + [b"s", b"."])
LINE = ["The", "biblical", "narratives"]

tokens_and_frames = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 800)), max_size=40)


@given(tokens_and_frames)
def test_words_cover_all_tokens_and_have_length(pairs: list[tuple[int, int]]) -> None:
    tokens, frames = [p[0] for p in pairs], [p[1] for p in pairs]
    words = group_words(tokens, frames, [0.5] * len(tokens), VOCABULARY, TIMING)
    assert " ".join(w.text for w in words) == VOCABULARY.text(tokens)
    assert all(w.stop_s > w.start_s >= 0 for w in words)
    assert [w.end_token for w in words] == sorted({w.end_token for w in words})


def test_a_word_stops_where_the_next_one_begins_but_not_across_a_pause() -> None:
    words = group_words([0, 1, 2], [10, 20, 100], [1.0] * 3, VOCABULARY, TIMING)
    assert words[0].stop_s == words[1].start_s
    assert words[1].stop_s == pytest.approx(24 * 0.024)


@given(st.lists(st.integers(0, 800), max_size=60))
def test_attention_frames_are_put_in_order_by_changing_few(frames: list[int]) -> None:
    ordered = monotonic_frames(frames)
    assert len(ordered) == len(frames)
    assert all(a <= b for a, b in itertools.pairwise(ordered))
    assert set(ordered) <= set(frames)
    if all(a <= b for a, b in itertools.pairwise(frames)):
        assert ordered == frames


@given(st.lists(st.integers(0, 800), min_size=3, max_size=60), st.data())
def test_of_frames_of_which_one_is_far_off_one_is_changed(
    frames: list[int], data: st.DataObject
) -> None:
    frames = sorted(frames)
    at = data.draw(st.integers(0, len(frames) - 1))
    astray = [*frames[:at], data.draw(st.integers(0, 2000)), *frames[at + 1 :]]
    assert sum(a != b for a, b in zip(monotonic_frames(astray), astray, strict=True)) <= 1


def test_a_first_word_whose_attention_rests_at_a_pause_takes_no_other_with_it() -> None:
    """ "The biblical narratives": when the speaker paused, the attention of "The" jumped to the
    pause. The committed "The" was aligned with "The biblical", and "biblical" was never
    committed."""
    committed = [SegmentWord("The", 0.2, 0.5, 1, 0.9)]
    vocabulary = PieceVocabulary([b"", b"", b"", *(f"\u2581{w}".encode() for w in LINE)])
    words = group_words([3, 4, 5], [81, 22, 47], [0.9] * 3, vocabulary, TIMING)
    assert [w.text for w in words] == LINE
    assert first_uncommitted(committed, words) == 1
