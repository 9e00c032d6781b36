"""The speech clock: how long a voice has spoken and been silent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.vad.endpoint import Endpoint
from edged.vad.gate import WINDOW_S
from edged.vad.speech_clock import MIN_SPEECH, SpeechClock


def test_before_any_speech_the_silence_is_unknown() -> None:
    clock = SpeechClock()
    clock.push([0.0] * 10)
    assert clock.silence_s is None
    assert clock.heard_s == pytest.approx(10 * WINDOW_S)
    assert not Endpoint().is_over(1.0, clock.silence_s)


def test_silence_counts_from_the_last_window_with_speech() -> None:
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
    clock.push([0.9] * 5 + [0.0] * 10 + [0.9] * (MIN_SPEECH - 1) + [0.0] * 5)
    assert clock.silence_s == pytest.approx((10 + MIN_SPEECH - 1 + 5) * WINDOW_S)


def test_speech_is_counted_for_each_turn() -> None:
    clock = SpeechClock()
    clock.push([0.9] * 10 + [0.0] * 10)
    clock.turn_closed()
    assert clock.speech_s == pytest.approx(10 * WINDOW_S), "the closed turn's, until the next one"
    clock.push([0.9] * 4)
    assert clock.speech_s == pytest.approx(4 * WINDOW_S)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=100))
def test_the_times_never_contradict_each_other(probabilities: list[float]) -> None:
    clock = SpeechClock()
    for p in probabilities:
        clock.push([p])
        assert clock.speech_s <= clock.heard_s + 1e-9
        assert clock.silence_s is None or 0 <= clock.silence_s <= clock.heard_s
