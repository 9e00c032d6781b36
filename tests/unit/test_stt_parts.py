"""The recogniser's parts without a model: cache, history, vocabulary, commit rules, gate."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.audio.sample_history import SampleHistory
from edged.errors import ModelError
from edged.export.transcript_tokens import transcript_tokens
from edged.stt.commit import first_uncommitted, is_complete
from edged.stt.family import AttentionTiming
from edged.stt.guards import loop_free_length, low_confidence, token_limit
from edged.stt.kv_cache import KVCache
from edged.stt.moonshine.dimensions import EOS
from edged.stt.moonshine.vocabulary import PieceVocabulary
from edged.stt.words import SegmentWord, group_words, monotonic_frames
from edged.vad.gate import Gate

SPACE = "\u2581"
TENSORS, HEADS, HEAD_DIM = 12, 8, 36
TIMING = AttentionTiming(frame_s=0.024, onset_lag_s=0.03, tail_frames=4)


# ---- cache and history --------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 3)), max_size=12),
    st.sampled_from([1, 2, 6]),
)
def test_a_cache_holds_what_plain_joining_would(
    splices: list[tuple[int, int, int]], parts: int
) -> None:
    cache, random = KVCache(TENSORS, HEADS, HEAD_DIM, 200), np.random.default_rng(0)
    expected = [np.empty((HEADS, 0, HEAD_DIM), np.float32) for _ in range(TENSORS)]
    for keep, count, unused in splices:
        keep = min(keep, cache.length)
        new = random.standard_normal((TENSORS * HEADS, count + unused, HEAD_DIM), np.float32)
        cache.splice(keep, np.split(new, parts), count)
        expected = [
            np.concatenate((old[:, :keep], add[:, :count]), 1)
            for old, add in zip(expected, np.split(new, TENSORS), strict=True)
        ]
        assert cache.length == keep + count
        for view, wanted in zip(cache.arrays(), expected, strict=True):
            assert view.flags.c_contiguous
            np.testing.assert_array_equal(view, wanted)


@settings(deadline=None)
@given(st.lists(st.integers(0, 19), unique=True))
def test_a_cache_keeps_the_positions_it_is_told_to(positions: list[int]) -> None:
    cache = KVCache(TENSORS, HEADS, HEAD_DIM, 30)
    content = np.arange(TENSORS * HEADS * 20 * HEAD_DIM, dtype=np.float32)
    content = content.reshape(TENSORS * HEADS, 20, HEAD_DIM)
    cache.splice(0, [content], 20)
    cache.keep(positions)
    assert cache.length == len(positions)
    for view, array in zip(cache.arrays(), np.split(content, TENSORS), strict=True):
        np.testing.assert_array_equal(view, array[:, positions])


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(-5, 700), st.integers(-5, 700))
def test_history_gives_the_place_that_was_asked_for(
    sizes: list[int], start: int, stop: int
) -> None:
    history, total = SampleHistory(100), 0
    for size in sizes:
        history.append(np.arange(total, total + size, dtype=np.float32))
        total += size
    assert history.end == total
    assert history.start <= max(0, total - 100)
    wanted = np.arange(max(start, history.start), min(stop, total), dtype=np.float32)
    np.testing.assert_array_equal(history.read(start, stop), wanted)


# ---- vocabulary ---------------------------------------------------------------------------------
def _stored(*pieces: str) -> bytes:
    return b"".join(bytes([len(p.encode())]) + p.encode() for p in pieces)


def test_pieces_join_to_words(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    long = "x" * 300
    path.write_bytes(
        _stored("<s>", SPACE + "good", "ness", ".")
        + bytes([300 % 128 + 128, 300 // 128])
        + long.encode()
    )
    vocabulary = PieceVocabulary.load(path)
    assert vocabulary.text([1, 2, 3]) == "goodness."
    assert vocabulary.word_starts([3, 2, 1, 2, 1]) == [0, 2, 4]
    assert vocabulary.text([4]) == long


@pytest.mark.parametrize("content", [b"\x05ab", b"\x81"])
def test_a_vocabulary_that_is_cut_off_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.bin is damaged.*edged models fetch"):
        PieceVocabulary.load(path)
    with pytest.raises(ModelError, match=r"none\.bin cannot be read"):
        PieceVocabulary.load(tmp_path / "none.bin")


def test_of_the_makers_vocabulary_english_needs_what_english_text_is_made_of() -> None:
    names = ["<unk>", "<s>", "</s>", "\x07", "▁dog", "s", "▁café", "Mc", "▁1", ",", "▁?", "$"]
    others = ["▁был", "方", "▁->", "{", "<<ST_7>>", "▁const_"]
    pieces = [name.encode() for name in names + others] + [b"\xc3"]
    vocabulary = PieceVocabulary(pieces)
    assert transcript_tokens(vocabulary, "en") == [EOS, *range(4, len(names))]
    assert transcript_tokens(vocabulary, "uk") == list(range(len(pieces)))


# ---- words and their times ----------------------------------------------------------------------
VOCABULARY = PieceVocabulary([(SPACE + c).encode() for c in "abcd"] + [b"s", b"."])

tokens_heard = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 800)), max_size=40)


@given(tokens_heard)
def test_words_cover_all_tokens_and_have_length(pairs: list[tuple[int, int]]) -> None:
    tokens, heard = [p[0] for p in pairs], [p[1] for p in pairs]
    words = group_words(tokens, heard, [0.5] * len(tokens), VOCABULARY, TIMING)
    assert " ".join(w.text for w in words) == VOCABULARY.text(tokens)
    assert all(w.stop_s > w.start_s >= 0 for w in words)
    assert [w.end_token for w in words] == sorted({w.end_token for w in words})


def test_a_word_stops_where_the_next_one_begins_but_not_across_a_pause() -> None:
    words = group_words([0, 1, 2], [10, 20, 100], [1.0] * 3, VOCABULARY, TIMING)
    assert words[0].stop_s == words[1].start_s
    assert words[1].stop_s == pytest.approx(24 * 0.024)


# ---- loops --------------------------------------------------------------------------------------
@given(
    st.lists(st.integers(0, 4), max_size=12),
    st.lists(st.integers(0, 4), min_size=1, max_size=8),
    st.integers(3, 6),
)
def test_a_loop_is_cut_to_its_first_occurrence_at_most(
    head: list[int], loop: list[int], times: int
) -> None:
    tokens = head + loop * times
    kept = loop_free_length(tokens)
    assert kept <= len(head) + len(loop)
    assert loop_free_length(tokens[:kept]) == kept


@given(st.lists(st.integers(0, 1000), max_size=50, unique=True))
def test_plain_text_is_no_loop(tokens: list[int]) -> None:
    assert loop_free_length(tokens) == len(tokens)


def test_a_word_said_twice_is_no_loop() -> None:
    assert loop_free_length([1, 2, 3, 3]) == 4


# ---- what was said and what is believed ---------------------------------------------------------
def _line(text: str, start: float = 0.0, pace: float = 0.3) -> list[SegmentWord]:
    return [
        SegmentWord(w, start + i * pace, start + (i + 1) * pace, i + 1, 0.9)
        for i, w in enumerate(text.split())
    ]


@given(
    st.lists(st.sampled_from(["the", "a", "cat", "dog", "ran", "sat", "on", "mat"]), max_size=25),
    st.data(),
)
def test_an_unchanged_hypothesis_goes_on_exactly_behind_what_was_said(
    words: list[str], data: st.DataObject
) -> None:
    line = _line(" ".join(words))
    said = data.draw(st.integers(0, len(line)))
    assert first_uncommitted(line[:said], line) == said


@pytest.mark.parametrize(
    ("said", "believed", "next_word"),
    [
        ("and so s not my", "and so ask not what your country", "your"),
        ("i scream", "ice cream is good", "is"),
        ("hello their", "hello there world", "world"),
        ("yes", "yes yes yes", "yes"),
    ],
)
def test_a_corrected_hypothesis_neither_repeats_nor_skips(
    said: str, believed: str, next_word: str
) -> None:
    """A wrong early word is not revised, and must not drag the rest of the line with it."""
    believed_words = _line(believed)
    index = first_uncommitted(_line(said), believed_words)
    assert believed_words[index].text == next_word
    assert index == len(said.split())


def test_what_was_passed_is_not_said_again_when_the_belief_is_shorter_for_once() -> None:
    """A token was heard far ahead and ended the text early ("We'"), so that nearly all of the eight
    words said last were missing. What was left fitted best in front of "here.": words of 3 s before
    were said again, and an update later, when the text was whole, as many more."""

    def heard(text: str, *starts: float) -> list[SegmentWord]:
        stops = [*starts[1:], starts[-1] + 0.1]
        return [
            SegmentWord(*word, n, 0.9)
            for n, word in enumerate(zip(text.split(), starts, stops, strict=True))
        ]

    said = heard(
        "else going We're just getting out there some",
        *(3.67, 3.87, 4.47, 4.57, 4.87, 4.97, 5.17, 5.27),
    )
    before = heard(
        "I'm talking prefast here. There's nothing going on.",
        *(1.77, 1.97, 2.27, 2.67, 2.97, 3.27, 3.47, 3.67),
    )
    believed = [*before, SegmentWord("We'", 4.47, 6.3, 9, 0.9)]
    assert first_uncommitted(said, believed) == len(before)


def test_a_word_behind_the_last_said_one_is_not_taken_for_it() -> None:
    """ "You don't think it's the" had been said, "You have done" was believed then. To take "have"
    for "the" cost less than to take it for none of them: "have" was passed over and never said."""
    said = [SegmentWord("it's", 5.0, 5.4, 1, 0.9), SegmentWord("the", 5.4, 5.65, 2, 0.9)]
    believed = [SegmentWord("have", 6.2, 6.4, 1, 0.9), SegmentWord("done", 6.4, 6.65, 2, 0.9)]
    assert first_uncommitted(said, believed) == 0
    wandered = [SegmentWord("the", 6.2, 6.4, 1, 0.9), SegmentWord("done", 6.4, 6.65, 2, 0.9)]
    assert first_uncommitted(said, wandered) == 1, "its attention was elsewhere for once"


def test_nothing_said_means_everything_is_unsaid() -> None:
    assert first_uncommitted([], _line("a b")) == 0
    assert first_uncommitted(_line("a b"), []) == 0


@pytest.mark.parametrize(
    ("text", "tokens", "p_end", "complete"),
    [
        ("be", 6, None, True),  # a word follows
        ("be", 5, None, False),  # or "beheld"
        ("be", 5, 0.3, False),
        ("be", 5, 0.9, True),
        ("be.", 5, None, True),
    ],
)
def test_a_word_is_complete_when_nothing_more_of_it_can_come(
    text: str, tokens: int, p_end: float | None, complete: bool
) -> None:
    assert is_complete(SegmentWord(text, 1.0, 1.2, 5, 0.9), tokens, p_end) is complete


def test_speech_is_at_most_six_and_a_half_tokens_a_second() -> None:
    assert token_limit(10.0, 6.5) == 68
    assert token_limit(0.0, 6.5) >= 1


# ---- the voice gate -----------------------------------------------------------------------------
def _run(gate: Gate, probabilities: list[float]) -> list[str]:
    return [change for p in probabilities if (change := gate.push(p))]


def test_the_gate_opens_on_speech_and_closes_after_silence() -> None:
    gate = Gate()
    assert gate.silence_s is None
    assert _run(gate, [0.1] * 20 + [0.9] * 10 + [0.0] * 30) == ["open", "close"]
    assert gate.silence_s is not None
    assert gate.silence_s > 0.6


def test_a_click_does_not_open_the_gate() -> None:
    assert _run(Gate(), [0.0, 0.9, 0.9, 0.0] * 50) == []


def test_a_dip_below_the_threshold_does_not_close_it() -> None:
    assert _run(Gate(), [0.9] * 5 + [0.4] * 200) == ["open"]


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.1, 0.9))
def test_openings_and_closings_alternate(probabilities: list[float], enter: float) -> None:
    changes = _run(Gate(enter), probabilities)
    assert changes == ["open", "close"] * (len(changes) // 2) + ["open"] * (len(changes) % 2)


@given(st.lists(st.integers(0, 800), max_size=60))
def test_heard_frames_are_put_in_order_by_changing_few(heard: list[int]) -> None:
    ordered = monotonic_frames(heard)
    assert len(ordered) == len(heard)
    assert all(a <= b for a, b in itertools.pairwise(ordered))
    assert set(ordered) <= set(heard)
    if all(a <= b for a, b in itertools.pairwise(heard)):
        assert ordered == heard


@given(st.lists(st.integers(0, 800), min_size=3, max_size=60), st.data())
def test_of_frames_of_which_one_is_far_off_one_is_changed(
    heard: list[int], data: st.DataObject
) -> None:
    heard = sorted(heard)
    at = data.draw(st.integers(0, len(heard) - 1))
    astray = [*heard[:at], data.draw(st.integers(0, 2000)), *heard[at + 1 :]]
    assert sum(a != b for a, b in zip(monotonic_frames(astray), astray, strict=True)) <= 1


def test_a_first_word_whose_attention_rests_at_a_pause_takes_no_other_with_it() -> None:
    """ "The biblical narratives": when the speaker paused, the attention of "The" jumped to the
    pause. What had been said up to then was matched with "The biblical", and "biblical" was never
    said."""
    said = _line("The", 0.2)
    vocabulary = PieceVocabulary([b"", b"", b"", *(f"\u2581{w}".encode() for w in LINE)])
    words = group_words([3, 4, 5], [81, 22, 47], [0.9] * 3, vocabulary, TIMING)
    assert [w.text for w in words] == LINE
    assert first_uncommitted(said, words) == 1


LINE = ["The", "biblical", "narratives"]


@given(st.floats(0.01, 1), st.integers(1, 60))
def test_the_more_tokens_agree_the_sooner_they_are_believed(p: float, count: int) -> None:
    assert low_confidence([p] * (count + 1)) <= low_confidence([p] * count)


def test_music_that_seems_to_begin_a_sentence_is_not_believed() -> None:
    """A keyboard gave "I don't" at a mean probability of 0.412, "I think I'm going to do it." at
    0.33: a bound of 0.33 for texts of any length let both through as nine words."""
    assert low_confidence([0.412] * 4)
    assert low_confidence([0.33] * 10)
    assert not low_confidence([0.40] * 22)  # noisy speech, half of it right
    assert not low_confidence([])


def test_music_that_sounds_a_little_like_a_voice_has_to_be_surer() -> None:
    """A vibraphone gave "I don't know." at 0.42, the bound for speech: which side of it the text
    fell on was the processor's luck. The voice detector was sure of no window of it."""
    gate = Gate()
    _run(gate, [0.7, 0.6, 0.8, 0.75, 0.4, 0.65, 0.7])
    assert low_confidence([0.55] * 6, gate.voice_uncertainty)
    assert not low_confidence([0.73] * 2, gate.voice_uncertainty)  # a soft "four" was as doubtful
    _run(gate, [0.0] * 40 + [0.95] * 7)
    assert gate.voice_uncertainty == 0.0


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.1, 0.9))
def test_doubt_is_what_the_voice_lacks_and_none_is_made_by_opening_more_easily(
    probabilities: list[float], enter: float
) -> None:
    gate = Gate(enter)
    _run(gate, probabilities)
    assert (
        0 <= gate.voice_uncertainty <= 0.5 + 1e-9
    )  # a window with speech is above `leave`, near `enter`
    _run(gate, [1.0] * 4 * len(probabilities))
    assert gate.voice_uncertainty < 0.15


def test_what_is_doubted_is_the_voice_of_this_opening_not_of_the_last() -> None:
    gate = Gate()
    _run(gate, [0.6] * 10)
    voice_uncertainty = gate.voice_uncertainty
    assert voice_uncertainty == pytest.approx(0.25)
    gate.close()
    assert (
        gate.voice_uncertainty == voice_uncertainty
    )  # the segment that ends now is still to be judged
    _run(gate, [0.1, 0.95])
    assert gate.voice_uncertainty == 0.0
