"""Silence counted, and the turn closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.vad.clock import CONFIRM, WINDOW_S, SpeechClock
from edged.vad.endpoint import CAP, FLOOR_S, Endpoint


def test_before_any_speech_silence_is_unknown() -> None:
    clock = SpeechClock()
    clock.push([0.0] * 10)
    assert clock.silence_s is None
    assert clock.heard_s == pytest.approx(10 * WINDOW_S)
    assert not Endpoint().is_over(1.0, clock.silence_s)


def test_silence_is_counted_from_the_last_voiced_window() -> None:
    clock = SpeechClock()
    clock.push([0.9] * 5)
    assert clock.silence_s == 0.0
    clock.push([0.4] * 3)
    assert clock.silence_s == 0.0, "hysteresis: a weak voice still speaks"
    clock.push([0.1] * 4)
    assert clock.silence_s == pytest.approx(4 * WINDOW_S)
    assert clock.speech_s == pytest.approx(8 * WINDOW_S)


def test_a_click_does_not_end_a_silence() -> None:
    clock = SpeechClock()
    clock.push([0.9] * 5 + [0.0] * 10 + [0.9] * (CONFIRM - 1) + [0.0] * 5)
    assert clock.silence_s == pytest.approx((10 + CONFIRM - 1 + 5) * WINDOW_S)


def test_speech_is_counted_for_each_turn() -> None:
    clock = SpeechClock()
    clock.push([0.9] * 10 + [0.0] * 10)
    clock.turn_over()
    assert clock.speech_s == pytest.approx(10 * WINDOW_S), "the closed one's, until the next begins"
    clock.push([0.9] * 4)
    assert clock.speech_s == pytest.approx(4 * WINDOW_S)


@given(st.lists(st.floats(0, 1), max_size=100))
def test_the_times_never_contradict_each_other(windows: list[float]) -> None:
    clock = SpeechClock()
    for p in windows:
        clock.push([p])
        assert clock.speech_s <= clock.heard_s + 1e-9
        assert clock.silence_s is None or 0 <= clock.silence_s <= clock.heard_s


def test_a_turn_closes_as_soon_as_two_seconds_of_silence_are_probable() -> None:
    assert Endpoint(threshold=0.5).is_over(0.51, 0.3)
    assert not Endpoint(threshold=0.9).is_over(0.51, 0.3)


def test_the_gap_between_two_words_closes_nothing() -> None:
    assert not Endpoint().is_over(1.0, FLOOR_S - 0.01)


def test_the_silence_setting_bounds_the_wait_while_the_model_is_unsure() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert not endpoint.is_over(0.45, 0.69)
    assert endpoint.is_over(0.45, 0.71)


def test_a_thinking_pause_of_a_second_and_a_half_does_not_close_an_unfinished_turn() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert not endpoint.is_over(0.1, 1.6)
    assert endpoint.is_over(0.1, CAP * 0.7 + 0.01), "but nobody waits for ever"
