"""The session with the real models on real speech: what every shell around it relies on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.engine.session import Session
from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Turn
from edged.models.loader import Models, load
from edged.options import DELAYS, Options
from edged.stt.family import Tuning
from edged.stt.moonshine.tuning import tuning_for
from edged.vad.silero import Silero
from tests.support.voice import ScaledVoice

SAMPLES = Path(__file__).parents[1] / "support" / "speech"
Audio = NDArray[np.int16]


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


def _clip(name: str) -> Audio:
    x, rate = soundfile.read(SAMPLES / f"{name}.flac", dtype="float32")
    samples: Audio = (soxr.resample(x, rate, SAMPLE_RATE) * 32000).astype(np.int16)
    return samples


def _silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * SAMPLE_RATE), np.int16)


def _frames(audio: Audio) -> Iterable[Audio]:
    padded = np.concatenate((audio, np.zeros(-len(audio) % STEP_SAMPLES, np.int16)))
    return padded.reshape(-1, STEP_SAMPLES)


def _run(session: Session, audio: Audio) -> list[Event]:
    return [event for frame in _frames(audio) for event in session.push(frame)]


def _words(events: Iterable[Event]) -> list[str]:
    texts = (re.sub(r"[^a-z' ]", "", e.text.lower()) for e in events if isinstance(e, Text))
    return [word for text in texts for word in text.split()]


@pytest.fixture(scope="module")
def two_sentences() -> Audio:
    return np.concatenate((_clip("good-influence"), _silence(1.5), _clip("peaceful-night")))


@pytest.fixture(scope="module")
def heard(models: Models, two_sentences: Audio) -> list[Event]:
    session = Session(models)
    return _run(session, two_sentences) + session.end()


def test_real_speech_becomes_its_words(heard: list[Event]) -> None:
    sentences = (
        "he has known her all her life and has a good influence over her",
        "the most unusual thing i can think of would be a peaceful night",
    )
    said = " ".join(sentences).split()
    words = _words(heard)
    right = sum(a == b for a, b in zip(words, said, strict=False))
    assert len(words) == pytest.approx(len(said), abs=2)
    assert right >= len(said) - 4


def test_every_step_of_audio_gives_exactly_one_step(
    heard: list[Event], two_sentences: Audio
) -> None:
    steps = [e.step_idx for e in heard if isinstance(e, Step)]
    assert steps == list(range(-(-len(two_sentences) // STEP_SAMPLES)))


def test_inactivity_never_rises_with_the_horizon_and_knows_speech_from_silence(
    heard: list[Event],
) -> None:
    steps = [e.inactivity for e in heard if isinstance(e, Step)]
    assert all(1 >= a >= b >= c >= 0 for a, b, c in steps)
    assert steps[0] == (0.0, 0.0, 0.0)
    assert steps[12][2] < 0.2  # one second in: she speaks
    assert steps[int(5.8 / 0.08)][0] > 0.5  # more than a second of silence


def test_texts_and_their_ends_come_in_pairs_and_times_never_run_back(heard: list[Event]) -> None:
    spoken = [e for e in heard if isinstance(e, Text | EndText)]
    assert [type(e) for e in spoken] == [Text, EndText] * (len(spoken) // 2)
    starts = [e.start_s for e in spoken if isinstance(e, Text)]
    stops = [e.stop_s for e in spoken if isinstance(e, EndText)]
    assert starts == sorted(starts)
    assert all(stop > start for start, stop in zip(starts, stops, strict=True))
    assert all(e.text == e.text.strip() != "" for e in spoken if isinstance(e, Text))


def test_each_sentence_is_a_turn_with_its_own_words_and_times(heard: list[Event]) -> None:
    turns = [e for e in heard if isinstance(e, Turn)]
    assert len(turns) == 2
    assert "good influence over her" in turns[0].text.lower()
    assert "peaceful night" in turns[1].text.lower()
    assert turns[0].stop_s < 4.7
    assert turns[1].start_s == pytest.approx(6.2, abs=0.5)
    for turn in turns:
        assert " ".join(w.text for w in turn.words) == turn.text
        assert turn.confidence is not None
        assert 0.5 < turn.confidence <= 1


def test_the_session_ends_with_end_of_stream(heard: list[Event]) -> None:
    assert [e for e in heard if isinstance(e, EndOfStream)] == heard[-1:]


def test_a_run_can_be_repeated_exactly(
    models: Models, heard: list[Event], two_sentences: Audio
) -> None:
    session = Session(models)
    assert _run(session, two_sentences) + session.end() == heard


def test_two_sessions_side_by_side_do_not_disturb_each_other(
    models: Models, heard: list[Event], two_sentences: Audio
) -> None:
    one, other = Session(models), Session(models, Options(delay_in_frames=7))
    events: list[Event] = []
    for frame in _frames(two_sentences):
        events += one.push(frame)
        other.push(frame[::-1].copy())
    assert events + one.end() == heard


def test_silence_runs_no_decoder_and_says_nothing(models: Models) -> None:
    session = Session(models)
    events = _run(session, _silence(20)) + session.end()
    assert session.decoder_runs == 0
    assert {type(e) for e in events} == {Step, EndOfStream}


@pytest.mark.parametrize("kind", ["noise", "hum", "clicks", "full-scale square"])
def test_sounds_that_are_no_speech_give_no_text(models: Models, kind: str) -> None:
    t = np.arange(15 * SAMPLE_RATE) / SAMPLE_RATE
    random = np.random.default_rng(1)
    audio = {
        "noise": random.normal(0, 3000, len(t)),
        "hum": 8000 * np.sin(2 * np.pi * 50 * t) + 3000 * np.sin(2 * np.pi * 150 * t),
        "clicks": 30000.0 * (random.random(len(t)) < 2e-4),
        "full-scale square": 32767 * np.sign(np.sin(2 * np.pi * 440 * t)),
    }[kind].clip(-32768, 32767)
    session = Session(models)
    events = _run(session, audio.astype(np.int16)) + session.end()
    assert [e for e in events if isinstance(e, Text | Turn)] == []


def _as_music(models: Models, clip: str) -> tuple[list[Event], Session]:
    """Speech of which Silero is never sure, as it is of an instrument that sounds like a voice."""
    session = Session(models, voice_detector=ScaledVoice(Silero(models.silero), 0.55))
    return _run(session, np.concatenate([_clip(clip), _silence(2.0)])), session


def test_what_the_voice_detector_doubts_is_said_only_if_the_text_is_sure(models: Models) -> None:
    events, session = _as_music(models, "sojourn")
    assert not _words(events)
    assert not [e for e in events if isinstance(e, Turn)]
    assert session.dropped.keys() == {"unsure", "unsure_in_turn"}
    events, session = _as_music(models, "good-influence")
    assert len(_words(events)) > 8
    assert not session.dropped


def test_flush_answers_all_words_so_far_and_none_of_them_comes_later(models: Models) -> None:
    """The cloud lets words trickle in after `flushed`; clients wait 100 ms more because of it."""
    audio = _clip("good-influence")
    cut = int(3.0 * SAMPLE_RATE) // STEP_SAMPLES * STEP_SAMPLES
    session = Session(models)
    before = _run(session, audio[:cut])
    answer = session.flush("a")
    assert answer[-1] == Flushed("a")
    assert _words(answer), "words that were still waiting are said at once"
    early = _words(before + answer)
    assert early[:4] == ["he", "has", "known", "her"]
    after = _run(session, np.concatenate((audio[cut:], _silence(1)))) + session.end()
    assert all(e.start_s >= cut / SAMPLE_RATE - 0.001 for e in after if isinstance(e, Text))
    assert "influence" in _words(after)


def test_flush_in_silence_and_flush_twice_answer_at_once(models: Models) -> None:
    session = Session(models)
    assert session.flush(1) == [Flushed(1)]
    _run(session, _silence(1))
    assert session.flush(2) == [Flushed(2)]
    assert session.flush("2") == [Flushed("2")]


@pytest.mark.parametrize("delay", [7, 16, 48])
def test_a_word_is_said_when_its_delay_passes_and_not_much_before(
    models: Models, delay: int
) -> None:
    """But for the last ones of a phrase, which a pause completes."""
    audio = _clip("mister-hale")
    session = Session(models, Options(delay_in_frames=delay))
    lags, now = [], 0.0
    for frame in _frames(audio):
        now += 0.08
        stops = [e.stop_s for e in session.push(frame) if isinstance(e, EndText)]
        lags += [now - stop for stop in stops]
    inside = lags[: len(lags) // 2] if delay < 48 else lags
    assert delay in DELAYS
    if delay < 48:
        early = tuning_for(delay).early_commit_s
        assert min(inside) >= delay * 0.08 - 0.08 - early
        assert np.median(inside) <= delay * 0.08 + 0.6
    else:
        assert lags == [] or min(lags) > 0.3


def _lags_s(models: Models, tuning: Tuning | None) -> list[float]:
    """Of each word behind its delay of 0.8 s."""
    lags = []
    for name in ("good-influence", "peaceful-night", "sojourn", "mister-hale"):
        session, now = Session(models, Options(delay_in_frames=10), tuning=tuning), 0.0
        for frame in _frames(_clip(name)):
            now += 0.08
            lags += [now - e.stop_s - 0.8 for e in session.push(frame) if isinstance(e, EndText)]
    return lags


def test_a_word_does_not_wait_for_the_update_behind_its_delay(models: Models) -> None:
    """Updates are 240 ms apart; words used to come 0.2 s behind their delay, in the median."""
    lag_s = float(np.median(_lags_s(models, None)))
    late = replace(tuning_for(10), early_commit_s=0.0)
    assert lag_s < float(np.median(_lags_s(models, late))) - 0.1
    assert lag_s < 0.15


def test_a_word_beyond_dispute_need_not_be_seen_twice(models: Models) -> None:
    """One word in five came 0.15 s or more behind its delay, for two looks had to agree on it."""
    disputed = replace(tuning_for(10), uncontested_p=1.1)
    assert sum(_lags_s(models, None)) < sum(_lags_s(models, disputed))


def test_a_seed_repeats_sampled_text_and_another_seed_may_differ(models: Models) -> None:
    audio = _clip("sojourn")

    def said(seed: int) -> list[str]:
        session = Session(models, Options(temp=1.0, seed=seed))
        return _words(_run(session, audio) + session.end())

    first = said(2)
    assert first == said(2)
    assert any(said(seed) != first for seed in (3, 4, 5))
    assert first[:2] == ["the", "biblical"]


def test_padding_bonus_moves_words_in_time(models: Models) -> None:
    audio = _clip("mister-hale")

    def decoded(bonus: float) -> int:
        session = Session(models, Options(padding_bonus=bonus))
        return len(_words(_run(session, audio[: 4 * SAMPLE_RATE])))

    assert decoded(-4.0) >= decoded(4.0)


def test_a_gap_keeps_stream_time_true(models: Models) -> None:
    """An overrun lost 1.5 s in the middle: what comes behind it has its own, later times."""
    first, second = _clip("good-influence"), _clip("peaceful-night")
    session = Session(models)
    events = _run(session, first)
    lost = int(1.5 * SAMPLE_RATE) + 777
    backlog = session.gap(lost)
    events += backlog
    assert sum(isinstance(e, Step) for e in backlog) == lost // STEP_SAMPLES
    events += _run(session, second) + session.end()
    start = (len(first) + lost) / SAMPLE_RATE
    most = next(e for e in events if isinstance(e, Text) and e.text.lower() == "most")
    assert most.start_s == pytest.approx(start + 0.55, abs=0.4)


def test_many_small_gaps_add_up(models: Models) -> None:
    session = Session(models)
    steps = [e for _ in range(10) for e in session.gap(STEP_SAMPLES // 4)]
    assert len([e for e in steps if isinstance(e, Step)]) == 2


def _hum(hertz: float, dbfs: float, samples: int) -> NDArray[np.float64]:
    """A sine of this RMS level, in units of 16 bits."""
    t = np.arange(samples) / SAMPLE_RATE
    hum: NDArray[np.float64] = np.sin(2 * np.pi * hertz * t) * 2**0.5 * 10 ** (dbfs / 20) * 32767
    return hum


@pytest.mark.parametrize("hertz", [50, 60])
def test_mains_hum_costs_no_words(models: Models, hertz: float) -> None:
    """Without the filter the sentence has other words, and a voice in hum opens the gate late."""
    clip = np.concatenate((_silence(1.0), _clip("mister-hale"), _silence(1.0)))
    in_hum = np.clip(clip + _hum(hertz, -12, len(clip)), -32768, 32767).astype(np.int16)
    session, clean = Session(models), Session(models)
    expected = _words(_run(clean, clip) + clean.end())
    assert _words(_run(session, in_hum) + session.end()) == expected


def test_the_voice_detector_hears_no_hum_either(models: Models) -> None:
    heard: list[NDArray[np.float32]] = []

    class Ear:
        def push(self, x: NDArray[np.float32]) -> list[float]:
            heard.append(x)
            return []

    _run(Session(models, voice_detector=Ear()), _hum(50, -12, 4 * SAMPLE_RATE).astype(np.int16))
    x = np.concatenate(heard)
    assert float(np.abs(x[: len(x) // 8]).max()) > 0.3
    assert float(np.abs(x[len(x) // 2 :]).max()) < 0.01


def test_late_audio_is_caught_up_with_the_same_words(models: Models) -> None:
    audio = np.concatenate((_clip("good-influence"), _silence(1)))
    session = Session(models)
    events = [e for frame in _frames(audio) for e in session.push(frame, backlog=True)]
    events += session.end()
    assert "good influence over her" in " ".join(_words(events))
    assert sum(isinstance(e, Step) for e in events) == -(-len(audio) // STEP_SAMPLES)


def test_new_options_count_without_losing_a_word(models: Models) -> None:
    audio = np.concatenate((_clip("good-influence"), _silence(1), _clip("peaceful-night")))
    session = Session(models)
    events: list[Event] = []
    for number, frame in enumerate(_frames(audio)):
        if number == 20:
            session.configure(replace(session.options, delay_in_frames=16, vad_threshold=0.4))
        events += session.push(frame)
    text = " ".join(_words(events + session.end()))
    assert "good influence over her" in text
    assert "peaceful night" in text


def test_a_segment_that_grows_too_long_is_cut_between_words(models: Models) -> None:
    """Unbroken speech: nothing is lost or said twice where one segment ends and the next begins."""
    audio = np.concatenate((_clip("good-influence"), _clip("peaceful-night")))
    session = Session(models, tuning=Tuning(max_segment_s=4.0))
    words = _words(_run(session, audio) + session.end())
    assert len(words) == pytest.approx(27, abs=3)
    assert "peaceful night" in " ".join(words)


@pytest.mark.parametrize("length", [0, 1, 1919, 1921])
def test_a_frame_of_another_length_is_refused(models: Models, length: int) -> None:
    with pytest.raises(ValueError, match="1920 samples"):
        Session(models).push(np.zeros(length, np.int16))


def test_turns_are_left_out_for_clients_that_do_not_know_them(models: Models) -> None:
    session = Session(models, Options(turns=False))
    events = _run(session, np.concatenate((_clip("good-influence"), _silence(2)))) + session.end()
    assert not [e for e in events if isinstance(e, Turn)]
    assert _words(events)


class Never(Executor):
    """Another program has the processor: nothing beside the steps is ever done."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        return Future()


def test_a_turn_whose_second_pass_takes_too_long_has_the_words_as_they_were_said(
    models: Models,
) -> None:
    session = Session(models, executor=Never())
    events = _run(session, _clip("good-influence")) + session.finish()
    assert session.finish() == []
    *rest, turn, end = session.end(timeout_s=0.05)
    assert rest == []
    assert isinstance(end, EndOfStream)
    assert isinstance(turn, Turn)
    assert turn.text == " ".join(e.text for e in events if isinstance(e, Text))
    assert len(turn.text.split()) > 8
    assert [w.start_s for w in turn.words] == [e.start_s for e in events if isinstance(e, Text)]
    assert turn.confidence is None


class Fails(Executor):
    """No memory for what runs beside the steps."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        future.set_exception(MemoryError())
        return future


def test_a_second_pass_that_fails_costs_the_turn_its_second_reading_alone(models: Models) -> None:
    """Its error came out of `push`: the words and the step of that push were lost, and with them
    the session, so that whatever was being said was heard no more."""
    session = Session(models, executor=Fails())
    events = _run(session, np.append(_clip("good-influence"), np.zeros(100_000, np.int16)))
    (turn,) = [e for e in events if isinstance(e, Turn)]
    assert turn.text == " ".join(e.text for e in events if isinstance(e, Text))
    assert len([e for e in events if isinstance(e, Step)]) == session.step_idx
    assert session.dropped["failed_in_turn"] == 1
