"""When a turn is closed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.vad.endpoint import LONGEST_WAIT, SHORTEST_WAIT, UNSURE_WAIT, Endpoint


def test_a_turn_that_is_surely_over_closes_soon() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert endpoint.is_over(0.95, 0.5)
    assert not endpoint.is_over(0.95, 0.4), "words have gaps, too"


def test_the_silence_setting_bounds_the_wait_while_the_model_is_unsure() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert not endpoint.is_over(0.4, UNSURE_WAIT * 0.7 - 0.01)
    assert endpoint.is_over(0.4, UNSURE_WAIT * 0.7 + 0.01)
    assert Endpoint(threshold=0.5, silence_s=0.3).is_over(0.4, UNSURE_WAIT * 0.3 + 0.01)


def test_a_thinking_pause_does_not_close_an_unfinished_turn() -> None:
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    for p_silent, unfinished in ((0.1, False), (0.1, True), (0.9, True)):
        assert not endpoint.is_over(p_silent, 1.6, unfinished)
        assert endpoint.is_over(p_silent, LONGEST_WAIT * 0.7 + 0.01, unfinished), "the limit"


def test_a_short_complete_answer_closes_as_soon_as_anything_does() -> None:
    """ "No.", alone, took 1.2 s: with so little speech the model was never sure of an end."""
    endpoint = Endpoint(threshold=0.5, silence_s=0.7)
    assert not endpoint.is_over(0.6, SHORTEST_WAIT * 0.7 + 0.01)
    assert endpoint.is_over(0.6, SHORTEST_WAIT * 0.7 + 0.01, short_answer=True)
    assert not endpoint.is_over(0.6, SHORTEST_WAIT * 0.7 - 0.01, short_answer=True)
    assert not endpoint.is_over(0.45, SHORTEST_WAIT * 0.7 + 0.01, short_answer=True), "threshold"


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(0.1, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_surer_the_end_the_shorter_the_wait(
    threshold: float, silence_s: float, p: float, q: float
) -> None:
    endpoint = Endpoint(threshold, silence_s)
    low, high = sorted((p, q))
    assert endpoint.wait_s(low) >= endpoint.wait_s(high)
    wait_s = endpoint.wait_s(p)
    assert SHORTEST_WAIT * silence_s - 1e-9 <= wait_s <= LONGEST_WAIT * silence_s + 1e-9


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(0.1, 3), st.floats(0, 1), st.floats(0, 10), st.floats(0, 10))
def test_a_turn_that_is_over_stays_over_as_the_silence_grows(
    threshold: float, silence_s: float, p: float, a: float, b: float
) -> None:
    endpoint = Endpoint(threshold, silence_s)
    early, late = sorted((a, b))
    for unfinished in (True, False):
        for short_answer in (True, False):
            if endpoint.is_over(p, early, unfinished, short_answer):
                assert endpoint.is_over(p, late, unfinished, short_answer)
    if endpoint.is_over(p, early, unfinished=True):
        assert endpoint.is_over(p, early, unfinished=False), "an unfinished turn is never sooner"


def test_before_any_speech_nothing_closes() -> None:
    assert not Endpoint().is_over(1.0, None)
