"""In which language a turn is recognised, and what is said about it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edged import STEP_S, STEP_SAMPLES
from edged.engine.session import Session
from edged.events import Turn
from edged.languages import AUTO
from edged.options import Options
from edged.stt.family import LanguageTraits
from edged.stt.second_pass import transcribe
from edged.vad.inactivity import FEATURES, HORIZONS, Weights
from tests.support.fake_recogniser import ScriptedVoice
from tests.support.toy_speech_model import PROMPTS, Spoken, ToySpeechModel, script, sentence

SPANS = [(0.5, 2.5), (5.0, 7.0), (9.5, 11.5)]
FRAME = np.zeros(STEP_SAMPLES, np.int16)


class Listener:
    """A session in which three things are said, 2.5 s apart."""

    def __init__(self, model: ToySpeechModel, language: str, turns: bool = True) -> None:
        models: Any = SimpleNamespace(
            smart_turn=None,
            inactivity=Weights(np.zeros((HORIZONS, len(FEATURES)))),
            second_opinion=None,
            recogniser=model,
        )
        self.model = model
        self.session = Session(
            models,
            Options(language=language, turns=turns),
            voice_detector=ScriptedVoice(SPANS),
        )
        self.turns: list[Turn] = []

    def push(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self._keep(self.session.push(FRAME))

    def end(self) -> list[str]:
        self._keep(self.session.end())
        return [turn.language for turn in self.turns]

    def _keep(self, events: Any) -> None:
        self.turns += [event for event in events if isinstance(event, Turn)]


def model(**spoken: float) -> ToySpeechModel:
    made = ToySpeechModel(script(*sentence("eins zwei drei vier")))
    made.spoken = spoken or None
    return made


@pytest.mark.parametrize("language", PROMPTS)
def test_a_turn_says_the_language_that_it_was_recognised_in(language: str) -> None:
    listener = Listener(model(), language)
    listener.push(12.5)
    assert listener.end() == [language] * 3


def test_the_language_is_found_for_each_turn() -> None:
    """The toy decoder checks with every token that the prompt is that of the language."""
    listener = Listener(model(de=0.9, en=0.1), AUTO)
    listener.push(4.5)
    assert listener.model.asked_prompt == PROMPTS["de"]
    listener.model.spoken = {"en": 0.99, "de": 0.001}
    listener.push(4.5)
    assert listener.model.asked_prompt == PROMPTS["en"]
    listener.model.spoken = {"de": 0.6, "en": 0.4}
    listener.push(3.5)
    assert listener.end() == ["de", "en", "en"], "two seconds are too few to be sure"


def test_a_stream_without_turns_remembers_the_language_so_far_too() -> None:
    """Streams of the API server get no `turn` unless they ask for it. They took the language of
    each segment as if nothing had been said before."""
    listener = Listener(model(de=0.9, en=0.1), AUTO, turns=False)
    listener.push(4.5)
    assert listener.model.asked_prompt == PROMPTS["de"]
    listener.model.spoken = {"en": 0.6, "de": 0.4}
    listener.push(8.0)
    assert listener.model.asked_prompt == PROMPTS["de"], "two seconds are too few to be sure"
    assert listener.end() == []


def test_noise_in_which_no_word_was_said_is_in_no_language() -> None:
    noise = ToySpeechModel(script(*(Spoken(f" w{n}", 10 + 15 * n, 0.02) for n in range(4))))
    noise.spoken = {"de": 0.9, "en": 0.1}
    listener = Listener(noise, AUTO, turns=False)
    listener.push(4.5)
    assert noise.asked_prompt == PROMPTS["de"]
    noise.spoken = {"en": 0.6, "de": 0.4}
    listener.push(4.0)
    assert noise.asked_prompt == PROMPTS["en"]


def test_a_model_with_one_language_says_that_language() -> None:
    english = model()
    english.languages = {"en": LanguageTraits()}
    listener = Listener(english, AUTO)
    listener.push(12.5)
    assert listener.end() == ["en"] * 3


def test_the_second_pass_finds_the_language_with_full_context() -> None:
    samples = np.zeros(3 * 16_000, np.float32)
    found = transcribe(model(de=0.9, en=0.1), samples, AUTO)
    assert found.language == "de"
    assert [word.text for word in found.words] == ["eins", "zwei", "drei", "vier"]
    assert transcribe(model(), samples, AUTO).language == "en"
    assert transcribe(model(de=0.9), samples, "en").language == "en"
