"""Whether a text is more likely invented than spoken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.stt.confidence import low_confidence
from edged.stt.family import LanguageTraits
from edged.vad.gate import Gate


def test_speech_has_at_most_six_and_a_half_tokens_a_second() -> None:
    traits = LanguageTraits()
    assert traits.max_tokens(10.0) == 68
    assert traits.max_tokens(0.0) >= 1


@given(st.floats(0.01, 1), st.integers(1, 60))
def test_a_longer_text_needs_no_more_confidence(p: float, count: int) -> None:
    assert low_confidence([p] * (count + 1)) <= low_confidence([p] * count)


def test_music_that_seems_to_begin_a_sentence_has_low_confidence() -> None:
    """A keyboard gave "I don't" at a mean probability of 0.412, "I think I'm going to do it." at
    0.33: a bound of 0.33 for texts of any length let both through as nine words."""
    assert low_confidence([0.412] * 4)
    assert low_confidence([0.33] * 10)
    assert not low_confidence([0.40] * 22)  # noisy speech, half of it right
    assert not low_confidence([])


def test_music_that_sounds_a_little_like_a_voice_needs_more_confidence() -> None:
    """A vibraphone gave "I don't know." at 0.42, the bound for speech: which side of it the text
    fell on was the processor's luck. The voice detector was sure of no window of it."""
    gate = Gate()
    for p in [0.7, 0.6, 0.8, 0.75, 0.4, 0.65, 0.7]:
        gate.push(p)
    assert low_confidence([0.55] * 6, gate.voice_uncertainty)
    assert not low_confidence([0.73] * 2, gate.voice_uncertainty)  # a soft "four" was as doubtful
    for p in [0.0] * 40 + [0.95] * 7:
        gate.push(p)
    assert gate.voice_uncertainty == 0.0
