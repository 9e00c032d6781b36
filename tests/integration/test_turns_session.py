"""Turn ends in a real session: real models, real speech, silences of known length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.engine.session import Session
from edged.events import Step, Turn
from edged.models import loader
from edged.models.loader import Models, load
from edged.options import Options
from edged.vad.endpoint import LONGEST_WAIT, UNSURE_WAIT, Endpoint
from models.turn.evidence import close_turns, rescore, run_session
from models.turn.material import LabelledStream

SAMPLES = Path(__file__).parents[1] / "support" / "speech"
Audio = NDArray[np.int16]


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


def clip(name: str) -> Audio:
    x, rate = soundfile.read(SAMPLES / f"{name}.flac", dtype="float32")
    samples: Audio = (soxr.resample(x, rate, SAMPLE_RATE) * 32000).astype(np.int16)
    return samples


def rest(seconds: float) -> Audio:
    """A quiet room: digital silence is easier than life."""
    noise = np.random.default_rng(1).standard_normal(round(seconds * SAMPLE_RATE)) * 3
    return noise.astype(np.int16)


def run(session: Session, *parts: Audio) -> tuple[list[tuple[float, str]], list[Step]]:
    """The turns, each with the time it was given, and all steps."""
    x = np.concatenate(parts)
    turns, steps = [], []
    for start in range(0, len(x) - STEP_SAMPLES + 1, STEP_SAMPLES):
        for event in session.push(x[start : start + STEP_SAMPLES]):
            if isinstance(event, Turn):
                turns.append((start / SAMPLE_RATE + STEP_S, event.text))
            elif isinstance(event, Step):
                steps.append(event)
    return turns, steps


def speech_end_s(x: Audio) -> float:
    """Where the last 20 ms louder than a twentieth of the peak end."""
    frames = np.abs(x[: len(x) // 480 * 480].astype(float)).reshape(-1, 480).max(1)
    return float(np.flatnonzero(frames > frames.max() / 20)[-1] + 1) * 0.02


def test_a_finished_sentence_is_closed_within_a_second_and_only_once(models: Models) -> None:
    said = clip("peaceful-night")
    [(given, text)], _ = run(Session(models), rest(1), said, rest(4))
    assert 0.2 < given - (1 + speech_end_s(said)) < 1.0
    assert "peaceful night" in text.lower()


def test_a_thinking_pause_of_a_second_and_a_half_in_mid_sentence_does_not_split(
    models: Models,
) -> None:
    said = clip("mister-hale")
    cut = round(2.96 * SAMPLE_RATE)  # "I don't think, Mister Hale, you have done | quite right"
    turns, _ = run(Session(models), rest(1), said[:cut], rest(1.5), said[cut:], rest(4))
    assert len(turns) == 1, turns


def test_after_a_finished_clause_the_same_pause_is_the_end(models: Models) -> None:
    """The other side of the test above: what waits for everything waits too long."""
    said = clip("good-influence")
    cut = round(1.85 * SAMPLE_RATE)  # "He has known her all her life | and has a good influence"
    turns, _ = run(Session(models), rest(1), said[:cut], rest(2.5), said[cut:], rest(4))
    assert len(turns) == 2, turns
    assert turns[0][0] - (1 + speech_end_s(said[:cut])) < UNSURE_WAIT * 0.7 + 0.3


@pytest.mark.parametrize(("name", "start_s", "stop_s"), [("mister-hale", 3.57, 4.48)])
def test_one_word_is_a_turn_and_closes_before_the_cap(
    models: Models, name: str, start_s: float, stop_s: float
) -> None:
    """ "Introducing", alone: cut out of a sentence, it sounds unfinished, and still ends."""
    word = clip(name)[round(start_s * SAMPLE_RATE) : round(stop_s * SAMPLE_RATE)]
    [(given, text)], _ = run(Session(models), rest(1.5), word, rest(3))
    assert text.lower().startswith("introducing")
    assert given - (1.5 + speech_end_s(word)) < LONGEST_WAIT * 0.7 - 0.2


@pytest.mark.parametrize("kind", ["hum", "music"])
def test_hum_and_music_do_not_open_the_gate(models: Models, kind: str) -> None:
    t = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    if kind == "hum":  # of a transformer: the mains and its harmonics
        x = sum(6000 / n * np.sin(2 * np.pi * 50 * n * t) for n in (1, 2, 3, 5, 7, 9))
    else:  # chords of plucked strings, a drum on each beat
        beat = t % 0.5
        root = np.array([220.0, 174.6, 261.6, 196.0])[(t / 2).astype(int) % 4]
        tones = sum(
            np.sin(2 * np.pi * np.cumsum(root * ratio * n) / SAMPLE_RATE) / n
            for ratio in (1, 1.26, 1.5)
            for n in (1, 2, 3)
        )
        drum = np.random.default_rng(2).standard_normal(len(t)) * np.exp(-40 * beat)
        x = 2500 * tones * np.exp(-3 * beat) + 4000 * drum
    session = Session(models)
    sound = np.clip(x, -32768, 32767).astype(np.int16)
    for start in range(0, len(sound) - STEP_SAMPLES + 1, STEP_SAMPLES):
        events = session.push(sound[start : start + STEP_SAMPLES])
        assert not session.speaking
        assert not [e for e in events if isinstance(e, Turn)]
    assert not [e for e in session.end() if isinstance(e, Turn)]


def test_turns_end_without_smart_turn(models: Models) -> None:
    """A board without Smart Turn: turns still end, and steps stay probabilities."""
    session = Session(replace(models, smart_turn=None))
    turns, steps = run(session, rest(1), clip("good-influence"), rest(4))
    assert len(turns) == 1
    assert session.turn_detector.smart_turn_runs == 0
    for step in steps:
        a, b, c = step.inactivity
        assert 1 >= a >= b >= c >= 0


def test_inactivity_is_unknown_at_first_low_in_speech_and_high_in_the_silence_after(
    models: Models,
) -> None:
    said = clip("good-influence")
    _, steps = run(Session(models), rest(1), said, rest(4))
    p = np.array([step.inactivity for step in steps])
    assert (p[:10] == 0).all()
    speaking = p[round(1.6 / STEP_S) : round((speech_end_s(said) + 0.6) / STEP_S)]
    assert np.median(speaking[:, 2]) < 0.1
    assert (p[-20:, 2] > 0.6).all()


def test_a_board_that_is_too_slow_for_smart_turn_says_so_and_does_without(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loader.for_this_machine(models) is models or models.smart_turn is None
    monkeypatch.setattr(loader, "MAX_RUN_S", 0.0)
    slow = loader.for_this_machine(models)
    assert slow.smart_turn is None
    assert slow.too_slow == ("smart-turn",)
    assert slow.missing == models.missing, "it is here, and that is not the trouble"


def stream_of(said: Audio) -> LabelledStream:
    x = np.concatenate([rest(1), said, rest(2)])
    stop_s = 1 + len(said) / SAMPLE_RATE
    seconds = len(x) / SAMPLE_RATE
    return LabelledStream("x", ("s",), False, x, ((1.0, stop_s),), (), (stop_s,), seconds)


def test_smart_turn_is_not_asked_where_the_words_surely_end(models: Models) -> None:
    """A quarter of its questions, each of 0.06 CPU s, were behind a full stop that the recogniser
    was sure of; without them no figure of `make bench-turns` is worse."""
    heard = run_session(models, stream_of(clip("good-influence")), Options())
    assert not heard.asked
    assert len(heard.closed_s) == 1


def test_the_evidence_without_smart_turn_is_judged_as_a_session_without_it_does(
    models: Models,
) -> None:
    """`make bench-turns` has a row for boards without Smart Turn, from the same sessions."""
    stream = stream_of(clip("good-influence")[: round(1.7 * SAMPLE_RATE)])  # it breaks off
    heard = run_session(models, stream, Options())
    without = run_session(replace(models, smart_turn=None), stream, Options())
    assert heard.asked
    assert not without.asked
    np.testing.assert_allclose(
        rescore(heard, models.inactivity, smart_turn=False).inactivity,
        without.inactivity,
        atol=1e-9,
    )
    np.testing.assert_allclose(rescore(heard, models.inactivity).inactivity, heard.inactivity)


def test_turns_closed_from_the_evidence_are_those_of_the_session(models: Models) -> None:
    """The fit's cross-validation closes turns without a session."""
    x = np.concatenate([rest(1), clip("good-influence"), rest(3), clip("peaceful-night"), rest(3)])
    stream = LabelledStream("x", ("s",), False, x, (), (), (), len(x) / SAMPLE_RATE)
    heard = run_session(models, stream, Options())
    assert len(heard.closed_s) >= 2
    assert close_turns(heard, Endpoint()).closed_s == pytest.approx(heard.closed_s)
