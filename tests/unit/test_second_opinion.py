"""A second model is asked about the text of a segment, and one of the two texts is chosen."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edged import STEP_S, STEP_SAMPLES
from edged.engine import load_prediction
from edged.engine.background_worker import BackgroundWorker
from edged.engine.load_level import LoadLevel
from edged.engine.load_prediction import (
    MAX_OPINION_USE,
    LoadPrediction,
    without_slow_opinion,
)
from edged.engine.session import Session
from edged.events import Turn
from edged.models import choice, loader
from edged.models.catalogue import Entry
from edged.models.loader import Models
from edged.options import Options
from edged.stt.family import RATE, EncoderOutput, Floats
from edged.stt.second_opinion import LEAD, Leads, SecondOpinion, is_second_better
from edged.stt.second_pass import Transcript, transcribe
from edged.stt.tokenise import tokens_of
from edged.vad.inactivity import FEATURES, HORIZONS, Weights
from tests.support.fake_recogniser import ScriptedVoice
from tests.support.toy_speech_model import (
    FIRST_TEXT_TOKEN,
    Spoken,
    ToySpeechModel,
    ToyVocabulary,
    script,
)

SPAN = (0.5, 3.0)
SAMPLES = np.zeros(3 * RATE, np.float32)
FRAME = np.zeros(STEP_SAMPLES, np.int16)
FIRST, SECOND = "turn of the lamp", "turn off the lamp"


def said(text: str, p: float, first_frame: int = 10) -> ToySpeechModel:
    """A model that hears `text`, each of its words with probability `p`."""
    words = [Spoken(f" {w}", first_frame + 15 * n, p) for n, w in enumerate(text.split())]
    model = ToySpeechModel(script(*words))
    for word in f"{FIRST} {SECOND}".split():  # so that it can spell the other model's text
        model.vocabulary.token(f" {word}")
    return model


def chosen(
    first: ToySpeechModel, second: SecondOpinion, options: Options | None = None
) -> Transcript:
    heard = transcribe(first, SAMPLES)
    return second.choose(first, heard, SAMPLES, None, options or Options())


def text_of(transcript: Transcript) -> str:
    return " ".join(word.text for word in transcript.words)


class Failing(ToySpeechModel):
    def encode(self, samples: Floats) -> EncoderOutput | None:
        raise RuntimeError("no memory")


# ---- the rule -----------------------------------------------------------------------------------
def test_the_second_text_is_taken_where_it_leads_clearly() -> None:
    assert is_second_better(Leads(0.0, LEAD + 0.1), words=5)
    assert not is_second_better(Leads(0.0, LEAD - 0.1), words=5)


def test_the_first_model_has_a_say() -> None:
    assert not is_second_better(Leads(20.0, LEAD + 0.1), words=5)


def test_a_single_word_needs_a_larger_lead() -> None:
    """Isolated digits: there the second model is the worse one."""
    assert is_second_better(Leads(0.0, LEAD + 0.1), words=2)
    assert not is_second_better(Leads(0.0, LEAD + 0.1), words=1)


# ---- the choice ---------------------------------------------------------------------------------
def test_the_words_and_times_belong_to_the_chosen_text() -> None:
    found = chosen(said(FIRST, 0.6), SecondOpinion("second", said(SECOND, 0.99, 20)))
    assert text_of(found) == SECOND
    assert [word.start_s for word in found.words] == pytest.approx([0.4, 0.7, 1.0, 1.3])
    assert found.language == "en"


def test_the_first_text_stays_where_the_second_model_is_not_sure() -> None:
    found = chosen(said(FIRST, 0.99), SecondOpinion("second", said(SECOND, 0.55)))
    assert text_of(found) == FIRST


def test_a_text_that_is_more_likely_invented_is_not_taken() -> None:
    """The guards of the second family apply to its text."""
    found = chosen(said(FIRST, 0.5), SecondOpinion("second", said(SECOND, 0.3)))
    assert text_of(found) == FIRST


def test_the_same_words_are_not_scored_and_keep_their_punctuation() -> None:
    first = said("yes, please.", 0.6)
    second = SecondOpinion("second", said("Yes please", 0.99))
    assert text_of(chosen(first, second)) == "yes, please."


def test_a_failure_costs_the_opinion_only_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    second = SecondOpinion("second", Failing(script()))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert text_of(chosen(said(FIRST, 0.9), second)) == FIRST
    assert [record.getMessage().split()[0] for record in caplog.records] == ["second"]


def test_a_key_term_that_the_first_text_has_keeps_it() -> None:
    """What the bonus brought into the text counts in the comparison, too."""
    first, opinion = said(FIRST, 0.7), SecondOpinion("second", said(SECOND, 0.9))
    assert text_of(chosen(first, opinion)) == SECOND
    terms = Options(keyterms=("of the lamp",), keyterm_boost=6.0)
    assert text_of(chosen(first, opinion, terms)) == FIRST


# ---- in a session -------------------------------------------------------------------------------
def turns(
    first: ToySpeechModel,
    second: ToySpeechModel,
    level: LoadLevel = LoadLevel.FULL,
    language: str = "en",
    executor: BackgroundWorker | None = None,
) -> list[Turn]:
    models: Any = SimpleNamespace(
        smart_turn=None,
        inactivity=Weights(np.zeros((HORIZONS, len(FEATURES)))),
        recogniser=first,
        second_opinion=SecondOpinion("second", second),
    )
    voice = ScriptedVoice([SPAN])
    session = Session(models, Options(language=language), executor, voice_detector=voice)
    session.set_load_level(level)
    events = [e for _ in range(round(5 / STEP_S)) for e in session.push(FRAME)]
    events += session.end()
    return [event for event in events if isinstance(event, Turn)]


def test_a_turn_has_the_chosen_text_inline_and_in_the_background() -> None:
    worker = BackgroundWorker("second-opinion-test")
    for executor in (None, worker):
        (turn,) = turns(said(FIRST, 0.6), said(SECOND, 0.99), executor=executor)
        assert (turn.text, turn.language) == (SECOND, "en")


def test_a_device_that_saves_work_asks_no_second_model() -> None:
    (turn,) = turns(said(FIRST, 0.6), said(SECOND, 0.99), LoadLevel.LARGER_UPDATES)
    assert turn.text == FIRST


def test_other_languages_have_no_second_opinion() -> None:
    (turn,) = turns(said(FIRST, 0.6), said(SECOND, 0.99), language="de")
    assert turn.text == FIRST


# ---- which model, and on which device -----------------------------------------------------------
def test_only_the_default_english_model_has_a_second_opinion_and_only_if_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"tiny-en", "whisper-base"}

    def is_installed(store: object, catalogue: object, entry: Entry) -> bool:
        return entry.name in installed

    monkeypatch.setattr(choice, "_is_installed", is_installed)
    assert choice.second_opinion_for(None, "tiny-en", "auto") == "whisper-base"
    assert choice.second_opinion_for(None, "tiny-en", "off") is None
    assert choice.second_opinion_for(None, "whisper-base", "auto") is None
    installed.remove("whisper-base")
    assert choice.second_opinion_for(None, "tiny-en", "auto") is None


@pytest.mark.parametrize(
    ("fits", "background", "kept"),
    [(True, 0.1, True), (True, MAX_OPINION_USE + 0.01, False), (False, 0.1, False)],
)
def test_a_device_without_time_to_spare_has_no_second_opinion(
    monkeypatch: pytest.MonkeyPatch, fits: bool, background: float, kept: bool
) -> None:
    opinion = SecondOpinion("second", said(SECOND, 0.9))
    measured = LoadPrediction(LoadLevel.FULL, fits, 0.1, background)
    monkeypatch.setattr(load_prediction, "measure_full", lambda models, options: measured)
    found = without_slow_opinion(some_models(opinion), Options())
    assert (found.second_opinion is opinion) == kept
    assert without_slow_opinion(some_models(None), Options()).second_opinion is None


def some_models(opinion: SecondOpinion | None) -> Models:
    first: Any = said(FIRST, 0.6)
    weights = Weights(np.zeros((HORIZONS, len(FEATURES))))
    silero: Any = None
    return Models(
        "tiny-en", ("en",), "MIT", "", first, silero, None, (), weights, second_opinion=opinion
    )


def test_a_model_in_memory_is_used_for_the_second_opinion_and_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Switching the microphone to Whisper's languages does not load Whisper twice."""
    opened: list[str] = []

    def open_model(store: object, entry: Entry, threads: int) -> ToySpeechModel:
        opened.append(entry.name)
        return said(FIRST, 0.6)

    monkeypatch.setattr(loader, "_opened", open_model)
    monkeypatch.setattr(loader, "quick_check", lambda *_: None)
    monkeypatch.setattr("edged.models.build.inputs_hash", lambda *_: "")
    main = loader.load(None, "tiny-en", loaded=some_models(None), second_opinion="whisper-base")
    assert main.second_opinion is not None
    whisper = loader.load(None, "whisper-base", loaded=main)
    assert whisper.recogniser is main.second_opinion.model
    again = loader.load(None, "tiny-en", loaded=whisper, second_opinion="whisper-base")
    assert again.second_opinion is not None
    assert again.second_opinion.model is whisper.recogniser
    assert opened == ["whisper-base", "tiny-en"]


# ---- spelling a text ----------------------------------------------------------------------------
def spelled(text: str, *pieces: str) -> list[str]:
    start = [f"<{n}>" for n in range(FIRST_TEXT_TOKEN)]
    vocabulary = ToyVocabulary(pieces=[*start, *pieces])
    return [vocabulary.pieces[token] for token in tokens_of(text, vocabulary)]


def test_pairs_are_joined_in_the_order_of_their_tokens() -> None:
    assert spelled("abc", " ", "a", "b", "c", "bc", " a", "ab") == [" a", "bc"]
    assert spelled("abc", " ", "a", "b", "c", "ab", "bc") == [" ", "ab", "c"]


def test_marks_are_tokens_of_their_own() -> None:
    assert spelled("no, ab", " no", ",", " ", "a", "b", " a", " ab", "no,") == [" no", ",", " ab"]


def test_characters_without_a_token_are_left_out() -> None:
    assert spelled("aé", " ", "a") == [" ", "a"]
