"""The guard against loops looks at the audio: when, and whether, each repetition was heard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.stt.frame_power import FramePower
from edged.stt.repetition import MIN_REPETITION_S, MIN_TOKEN_S, loop_free_length

FRAME_S = 0.024
RATE = 16_000
SOUND = FramePower(np.full(60 * RATE, 0.1, np.float32))

tokens = st.integers(0, 4)
heads = st.lists(tokens, max_size=12)
units = st.lists(tokens, min_size=1, max_size=8)


def believed(text: list[int], frames: list[int], power: FramePower = SOUND) -> int:
    return loop_free_length(text, frames, FRAME_S, power)


@given(heads, units, st.integers(3, 6))
def test_a_loop_whose_attention_stands_still_is_cut_to_its_first_occurrence_at_most(
    head: list[int], unit: list[int], times: int
) -> None:
    text = head + unit * times
    frames = [*range(len(head)), *[len(head)] * (len(unit) * times)]
    kept = believed(text, frames)
    assert kept <= len(head) + len(unit)
    assert believed(text[:kept], frames[:kept]) == kept


@given(heads, units, st.integers(3, 6))
def test_repetitions_that_a_speaker_had_time_for_are_believed(
    head: list[int], unit: list[int], times: int
) -> None:
    """ "Nine, nine, nine, nine" became "Nine", and "bye bye bye bye bye bye" became "Bye bye"."""
    text = head + unit * times
    period = int(max(MIN_REPETITION_S, MIN_TOKEN_S * 9) / FRAME_S) + 1  # of the longest unit
    frames = [n * period for n in range(len(text))]
    assert believed(text, frames) == len(text)


def test_a_repetition_that_follows_too_soon_is_not_believed() -> None:
    """Of a word said four times the decoder wrote a fifth, 0.12 s behind the fourth."""
    assert believed([7, 7, 7, 7, 7], [30, 52, 80, 107, 112]) == 4


def test_a_repetition_that_is_heard_in_silence_is_not_believed() -> None:
    """Of a word said four times the decoder wrote a fifth, at an even pace, where the speaker had
    finished."""
    samples = np.concatenate([np.full(int(2.4 * RATE), 0.1), np.full(RATE, 0.001)])
    power = FramePower(samples.astype(np.float32))
    frames = [10, 35, 60, 85, 110]  # the last one at 2.64 s
    assert believed([7] * 5, frames, power) == 4
    assert believed([7] * 5, frames) == 5


@given(st.lists(st.integers(0, 1000), max_size=50, unique=True))
def test_plain_text_is_no_loop(text: list[int]) -> None:
    assert believed(text, [0] * len(text)) == len(text)


def test_a_word_said_twice_is_no_loop() -> None:
    assert believed([1, 2, 3, 3], [0] * 4) == 4


@given(st.lists(st.integers(0, 900), max_size=12))
def test_power_is_the_same_for_pieces_of_any_size(sizes: list[int]) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, sum(sizes)).astype(np.float32)
    whole, pieces = FramePower(samples), FramePower()
    for piece in np.split(samples, np.cumsum(sizes)[:-1]) if sizes else []:
        pieces.push(piece)
    for start in np.arange(0, 0.7, 0.05):
        assert pieces.peak(start, start + 0.1) == pytest.approx(whole.peak(start, start + 0.1))
