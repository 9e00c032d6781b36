"""Silence counted, and the turn closed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.vad.endpoint import CAP, LATE, SOON, Endpoint
from edged.vad.speech_clock import CONFIRM, WINDOW_S, SpeechClock
from edged.vad.text_evidence import Evidence, TextEvidence


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


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=100))
def test_the_times_never_contradict_each_other(windows: list[float]) -> None:
    clock = SpeechClock()
    for p in windows:
        clock.push([p])
        assert clock.speech_s <= clock.heard_s + 1e-9
        assert clock.silence_s is None or 0 <= clock.silence_s <= clock.heard_s


def test_a_turn_that_is_surely_over_closes_soon() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert endpoint.is_over(0.95, 0.5)
    assert not endpoint.is_over(0.95, 0.4), "words have gaps, too"


def test_the_silence_setting_bounds_the_wait_while_the_model_is_unsure() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert not endpoint.is_over(0.4, LATE * 0.7 - 0.01)
    assert endpoint.is_over(0.4, LATE * 0.7 + 0.01)
    assert Endpoint(threshold=0.5, silence_s=0.3).is_over(0.4, LATE * 0.3 + 0.01)


def test_a_thinking_pause_of_a_second_and_a_half_does_not_close_an_unfinished_turn() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    for p_silent, unfinished in ((0.1, False), (0.1, True), (0.9, True)):
        assert not endpoint.is_over(p_silent, 1.6, unfinished)
        assert endpoint.is_over(p_silent, CAP * 0.7 + 0.01, unfinished), "nobody waits for ever"


def test_a_word_that_is_complete_in_itself_closes_as_soon_as_anything_does() -> None:
    """ "No.", alone, took 1.2 s: with so little speech the model was never sure of an end."""
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert not endpoint.is_over(0.6, SOON * 0.7 + 0.01)
    assert endpoint.is_over(0.6, SOON * 0.7 + 0.01, answer=True)
    assert not endpoint.is_over(0.6, SOON * 0.7 - 0.01, answer=True)
    assert not endpoint.is_over(0.45, SOON * 0.7 + 0.01, answer=True), "the threshold holds"


def test_an_answer_is_short_and_complete_to_smart_turn_and_to_the_recogniser() -> None:
    def said(speech_s: float, complete: float | None, final: float, dangling: bool = False) -> bool:
        return Evidence((), 3.0, 0.5, speech_s, complete, TextEvidence(0.9, final, dangling)).answer

    assert said(0.3, 0.95, 0.9)
    assert not said(3.0, 0.95, 0.9), "a sentence"
    assert not said(0.3, 0.5, 0.9)
    assert not said(0.3, None, 0.9)
    assert not said(0.3, 0.95, 0.0), "no mark that ends it"
    assert not said(0.3, 0.95, 0.9, dangling=True)
    assert not Evidence((), 3.0, 0.5, 0.3, 0.95, None).answer


def test_a_sentence_that_breaks_off_or_dangles_is_unfinished_and_unknown_is_not() -> None:
    def said(complete: float | None, dangling: bool | None, final: float = 0.0) -> Evidence:
        belief = None if dangling is None else TextEvidence(0.9, final, dangling)
        return Evidence((), 3.0, 0.5, 1.0, complete, belief)

    assert said(0.02, False).unfinished
    assert said(0.9, True).unfinished
    assert not said(0.9, False).unfinished
    assert said(0.02, False, final=0.7).unfinished
    assert not said(0.02, False, final=0.95).unfinished, "the words are surely a sentence"
    assert not said(None, None).unfinished


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(0.1, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_surer_the_end_the_shorter_the_wait(
    threshold: float, silence_s: float, p: float, q: float
) -> None:
    endpoint = Endpoint(threshold, silence_s)
    low, high = sorted((p, q))
    assert endpoint.wait_s(low) >= endpoint.wait_s(high)
    assert SOON * silence_s - 1e-9 <= endpoint.wait_s(p) <= CAP * silence_s + 1e-9


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(0.1, 3), st.floats(0, 1), st.floats(0, 10), st.floats(0, 10))
def test_a_turn_that_is_over_stays_over_as_the_silence_grows(
    threshold: float, silence_s: float, p: float, a: float, b: float
) -> None:
    endpoint = Endpoint(threshold, silence_s)
    early, late = sorted((a, b))
    for unfinished in (True, False):
        for answer in (True, False):
            if endpoint.is_over(p, early, unfinished, answer):
                assert endpoint.is_over(p, late, unfinished, answer)
    if endpoint.is_over(p, early, unfinished=True):
        assert endpoint.is_over(p, early, unfinished=False), "an unfinished turn is never sooner"


def test_before_any_speech_nothing_closes() -> None:
    assert not Endpoint().is_over(1.0, None)
