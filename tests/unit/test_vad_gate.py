"""The voice gate: when it opens and closes, and how uncertain the voice is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.vad.gate import Gate


def push_all(gate: Gate, probabilities: list[float]) -> list[str]:
    return [change for p in probabilities if (change := gate.push(p))]


def test_opens_on_speech_and_closes_after_silence() -> None:
    gate = Gate()
    assert gate.silence_s is None
    assert push_all(gate, [0.1] * 20 + [0.9] * 10 + [0.0] * 30) == ["open", "close"]
    assert gate.silence_s is not None
    assert gate.silence_s > 0.6


def test_a_click_does_not_open_it() -> None:
    assert push_all(Gate(), [0.0, 0.9, 0.9, 0.0] * 50) == []


def test_a_dip_below_the_threshold_does_not_close_it() -> None:
    assert push_all(Gate(), [0.9] * 5 + [0.4] * 200) == ["open"]


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.1, 0.9))
def test_openings_and_closings_alternate(probabilities: list[float], threshold: float) -> None:
    changes = push_all(Gate(threshold), probabilities)
    assert changes == ["open", "close"] * (len(changes) // 2) + ["open"] * (len(changes) % 2)


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.1, 0.9))
def test_a_low_threshold_does_not_make_a_clear_voice_uncertain(
    probabilities: list[float], threshold: float
) -> None:
    gate = Gate(threshold)
    push_all(gate, probabilities)
    assert 0 <= gate.voice_uncertainty <= 0.5 + 1e-9  # speech is at least near the threshold
    push_all(gate, [1.0] * 4 * len(probabilities))
    assert gate.voice_uncertainty < 0.15


def test_voice_uncertainty_is_of_the_speech_since_the_gate_opened() -> None:
    gate = Gate()
    push_all(gate, [0.6] * 10)
    assert gate.voice_uncertainty == pytest.approx(0.25)
    gate.close()
    assert gate.voice_uncertainty == pytest.approx(0.25), "the ended segment is yet to be judged"
    push_all(gate, [0.1, 0.95])
    assert gate.voice_uncertainty == 0.0
