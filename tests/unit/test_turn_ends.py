"""A turn ends when nobody has spoken for 2 s, whatever the turn model believes and whatever keeps
the voice gate open."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from edged import STEP_S, STEP_SAMPLES
from edged.engine.session import Session
from edged.events import Turn, Word
from edged.options import Options
from edged.stt.decoder import DecodedText
from edged.stt.family import LanguageTraits
from edged.vad.gate import close_threshold
from edged.vad.inactivity import FEATURES, Weights
from tests.support.fake_recogniser import FakeRecogniser
from tests.support.voice import ScriptedVoice

SPEECH_ENDS_S = 3.0
THRESHOLD = Options().vad_threshold


def turn_after_s(
    after_speech: Callable[[float], float],
    bias: float,
    text: str = "and so",
    threshold: float = THRESHOLD,
) -> float:
    """Seconds from the end of speech to the turn.

    after_speech: the voice detector's probability, by the time since the speech. bias: log odds of
    every hazard of the turn model. text: of the recogniser, in the pause.
    """

    def voice(at_s: float) -> float:
        if at_s < 0.5:
            return 0.02
        return 0.95 if at_s < SPEECH_ENDS_S else after_speech(at_s - SPEECH_ENDS_S)

    weights = np.zeros((3, len(FEATURES)))
    weights[:, FEATURES.index("bias")] = bias
    words = [Word(f"w{n}", 0.6 + 0.3 * n, 0.8 + 0.3 * n) for n in range(7)]
    decoded = DecodedText([1, 2], [3, 4], [0.9, 0.9], p_eos=0.01)
    recogniser = FakeRecogniser(words, decoded)
    models = SimpleNamespace(
        smart_turn=None,
        inactivity=Weights(weights),
        second_opinion=None,
        recogniser=SimpleNamespace(
            languages={"en": LanguageTraits()},
            vocabulary=SimpleNamespace(text=lambda tokens: text),
        ),
    )
    session = Session(
        models,  # type: ignore[arg-type]
        Options(vad_threshold=threshold),
        voice_detector=ScriptedVoice(voice),
        recogniser=recogniser,
        second_pass=recogniser.second_pass,
    )
    for step in range(1, 200):
        events = session.push(np.zeros(STEP_SAMPLES, np.int16))
        if any(isinstance(event, Turn) for event in events):
            return step * STEP_S - SPEECH_ENDS_S
    return float("inf")


@pytest.mark.parametrize("text", ["and so", "the", "Yes.", ""])
@pytest.mark.parametrize("bias", [-30.0, 0.0])
def test_silence_ends_a_turn_whatever_the_model_believes(bias: float, text: str) -> None:
    assert 0.3 < turn_after_s(lambda _: 0.02, bias, text) < 2.0


@pytest.mark.parametrize("threshold", [0.3, THRESHOLD])
def test_noise_that_keeps_the_voice_gate_open_does_not_keep_a_turn_open(threshold: float) -> None:
    """Line noise, music on hold: too little to open the gate, too much to close it."""
    noise = (close_threshold(threshold) + threshold) / 2
    after = turn_after_s(lambda at_s: 0.02 if at_s < 0.1 else noise, -30.0, threshold=threshold)
    assert after < 2.0


def test_noise_that_follows_speech_without_a_pause_does_not_keep_a_turn_open() -> None:
    assert turn_after_s(lambda _: 0.42, -30.0) < 2.0


@pytest.mark.parametrize("period_s", [0.3, 0.5, 1.0])
def test_clicks_do_not_keep_a_turn_open(period_s: float) -> None:
    """Single windows that sound like speech."""
    after = turn_after_s(lambda at_s: 0.9 if (at_s + 0.1) % period_s < 0.03 else 0.1, -30.0)
    assert after < 2.0
