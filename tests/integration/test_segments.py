"""Where segments begin, are decoded to their end and are cut, with a scripted voice detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES, resources
from edged.engine.session import Session
from edged.events import EndText, Event, Text, Turn, Word
from edged.models.loader import Models, load
from edged.options import Options
from edged.stt.decoder import DecodedText, Decoder
from edged.stt.family import RATE, EncoderOutput
from edged.stt.moonshine.tuning import SHORT_DELAY
from edged.stt.moonshine.vocabulary import PieceVocabulary
from edged.stt.recogniser import Recogniser
from edged.stt.second_pass import transcribe
from edged.vad.gate import WINDOW_S
from edged.vad.silero import Silero
from models.turn.material import load_audio
from tests.conftest import SAMPLES
from tests.support.voice import ScaledVoice, ScriptedVoice

Audio = NDArray[np.int16]
Voice = Callable[[float], float]
"""The probability of speech at that second of the stream."""


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


def clip(name: str) -> Audio:
    return load_audio(SAMPLES / f"{name}.flac")


def pieces(models: Models) -> PieceVocabulary:
    vocabulary = models.recogniser.vocabulary
    assert isinstance(vocabulary, PieceVocabulary)
    return vocabulary


def rest(seconds: float) -> Audio:
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def hum(seconds: float) -> Audio:
    return np.random.default_rng(0).normal(0, 600, round(seconds * SAMPLE_RATE)).astype(np.int16)


def listening(models: Models, voice: Voice, options: Options | None = None) -> Session:
    """A session whose voice detector is scripted."""
    return Session(models, options, voice_detector=ScriptedVoice(voice))


def run(session: Session, *parts: Audio, backlog: bool = False) -> list[tuple[float, Event]]:
    """Each event with the second at which it came."""
    audio = np.concatenate(parts)
    steps = audio[: len(audio) // STEP_SAMPLES * STEP_SAMPLES].reshape(-1, STEP_SAMPLES)
    events = []
    for frame in steps:
        events += [
            ((session.step_idx + 1) * STEP_S, event) for event in session.push(frame, backlog)
        ]
    return events


def words(events: list[tuple[float, Event]]) -> list[str]:
    return [e.text.lower().strip(".,?!") for _, e in events if isinstance(e, Text)]


def test_speech_behind_a_long_unclear_sound_is_recognised_while_it_is_spoken(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fan, then somebody talked over it: the segment, of which nothing was committed, was never
    cut, and after 19 s it decoded nothing more. Of 18 s of speech three words came, at its end."""
    ages: list[float] = []
    advance = Recogniser.advance

    def noted(self: Recogniser, *audio: Any, **how: Any) -> list[Word]:
        new = advance(self, *audio, **how)
        ages.append(self.age_s)
        return new

    monkeypatch.setattr(Recogniser, "advance", noted)
    session = listening(models, lambda t: 0.6 if t < 20 else 0.95)
    speech = np.concatenate([clip("good-influence"), clip("peaceful-night"), clip("mister-hale")])
    events = run(session, hum(20), speech)
    assert max(ages) < SHORT_DELAY.max_segment_s + 1
    said = [(at, e) for at, e in events if isinstance(e, Text) and e.start_s > 20]
    assert len(said) > 35
    late = [at - e.start_s for at, e in said]
    assert np.median(late) < 2.0


def test_a_loop_without_committed_words_ends_and_the_next_segment_begins_behind_it(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next segment began at the same sample: all of it was decoded again at every third update,
    up to 0.5 s of CPU in a step, and each time an empty segment was added to the turn."""

    def loop(self: Decoder, audio: object, limit: int, *_: object) -> DecodedText:
        n = min(limit, 24)
        self.decoded = DecodedText([500] * n, list(range(n)), [0.3] * n)
        return self.decoded

    monkeypatch.setattr(Decoder, "update", loop)
    session = listening(models, lambda t: 0.9)
    starts = segment_starts(monkeypatch)
    run(session, hum(12))
    assert len(starts) > 3
    assert min(np.diff(starts)) > 0.5


def segment_starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Where, in seconds, segments begin from now on."""
    starts: list[float] = []
    begin = Recogniser.begin

    def noted(self: Recogniser, start: int) -> None:
        starts.append(start / RATE)
        begin(self, start)

    monkeypatch.setattr(Recogniser, "begin", noted)
    return starts


def never_confirmed(
    models: Models, monkeypatch: pytest.MonkeyPatch, probability: float
) -> list[str]:
    """From now on the decoder finds these words, one a second, and each update differs from the one
    before. Returns the words."""
    vocabulary = pieces(models)
    spelled = [vocabulary.piece(n) for n in range(3000, 6000)]
    whole = [3000 + n for n, word in enumerate(spelled) if word[:1] == " " and word[1:].isalpha()]

    def update(self: Decoder, audio: EncoderOutput, *_: object) -> DecodedText:
        heard = list(range(20, audio.frames, 40))
        self.decoded = DecodedText(whole[: len(heard)], heard, [probability] * len(heard))
        return self.decoded

    monkeypatch.setattr(Decoder, "update", update)
    return [models.recogniser.vocabulary.text([n]) for n in whole]


def test_words_that_no_update_confirms_are_committed_after_the_timeout(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each update differed from the one before nothing was committed until the segment ended;
    of real speech one word in a hundred came 0.9 s late."""
    whole = never_confirmed(models, monkeypatch, 0.9)
    session = listening(models, lambda t: 0.9)
    events = run(session, hum(14))
    said = [e for _, e in events if isinstance(e, Text)]
    assert [e.text for e in said] == whole[: len(said)]
    ends = [(at, e.stop_s) for at, e in events if isinstance(e, EndText)]
    assert len(ends) > 10
    late = [at - stop - 0.8 for at, stop in ends]
    assert min(late) > SHORT_DELAY.confirmation_timeout_s
    assert (
        max(late) < SHORT_DELAY.confirmation_timeout_s + 0.5
    )  # an update, and the audio on its way


def test_where_audio_has_piled_up_a_word_is_still_decoded_twice(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update then covers a second, so that most unconfirmed words were 0.3 s behind their delay
    when they were first decoded, and were committed at once: 18 of 274 were wrong, otherwise 4 of
    277."""
    never_confirmed(models, monkeypatch, 0.9)
    session = listening(models, lambda t: 0.9)
    events = run(session, hum(14), backlog=True)
    late = [at - e.stop_s - 0.8 for at, e in events if isinstance(e, EndText)]
    assert len(late) > 9
    assert min(late) > 0.96 - SHORT_DELAY.early_commit_s - 0.01


def test_a_word_that_never_seems_complete_is_committed_when_its_long_segment_ends(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last word without punctuation, behind which the decoder is not sure that nothing follows:
    it waited for the whole segment, and then was counted as unsure and lost."""

    def one(self: Decoder, *_: object) -> DecodedText:
        self.decoded = DecodedText([3000], [40], [0.9], ended=True, p_eos=0.4)
        return self.decoded

    monkeypatch.setattr(Decoder, "update", one)
    session = listening(models, lambda t: 0.9)
    events = run(session, hum(17))
    assert words(events) == [models.recogniser.vocabulary.text([3000]).lower()]
    assert not session.dropped


def test_a_gate_that_soft_noise_holds_open_is_closed_again(models: Models) -> None:
    """Three loud windows opened it, softer ones held it open, and nothing was decoded before five
    were loud: a "You" was committed 43 s late, in one step of 0.6 s."""
    session = listening(
        models, lambda t: 0.95 if t < 0.1 or t > 12.0 else 0.8, Options(vad_threshold=0.9)
    )
    opened = []
    events = []
    for part in np.array_split(np.concatenate([hum(12), clip("good-influence")]), 200):
        events += run(session, part)
        opened.append(session.speaking)
    assert session.dropped["short"] == 1
    assert opened.count(False) > 70, "of the 12 s at least 9"
    said = [(at, e) for at, e in events if isinstance(e, Text)]
    assert len(said) > 8
    assert max(at - e.start_s for at, e in said) < 3.0


def test_a_turn_that_grows_too_long_ends_where_no_word_is_cut(models: Models) -> None:
    """At 60 s it ended in the middle of speech: "medical narrative apparently" became "narrative."
    and "A pedigree"."""
    session = listening(models, lambda t: 0.95)
    speech = [clip("good-influence"), clip("peaceful-night"), clip("mister-hale")] * 8
    audio = np.concatenate(speech)[: 80 * SAMPLE_RATE]
    events = run(session, audio)
    ends = [(at, e.stop_s) for at, e in events if isinstance(e, EndText)]
    assert min(at - stop for at, stop in ends) > 0.8 - SHORT_DELAY.early_commit_s - 0.01, (
        "each had its delay"
    )
    (turn,) = [e for _, e in events if isinstance(e, Turn)]
    assert 60 < turn.stop_s - turn.start_s < 80
    again = [e for e in session.end() if isinstance(e, Turn)]
    assert again[0].start_s >= turn.stop_s - 0.1


def test_words_with_low_confidence_are_counted_when_a_long_segment_ends(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_confirmed(models, monkeypatch, 0.1)
    session = listening(models, lambda t: 0.9)
    events = run(session, hum(17))
    assert not words(events)
    assert 11 <= session.dropped["unsure"] <= 12, "one a second, but for the delay and four seconds"


def test_a_loop_that_is_decoded_twice_in_a_pause_does_not_end_the_segment(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded again at each step of the pause, it ended the segment and lost its first word."""

    def loop(self: Decoder, *_: object) -> DecodedText:
        self.decoded = DecodedText([3000] * 4, [10, 20, 30, 40], [0.9] * 4)
        return self.decoded

    monkeypatch.setattr(Decoder, "update", loop)
    session = listening(models, lambda t: 0.9 if t < 0.8 else 0.0, Options(delay_in_frames=24))
    events = run(session, hum(3))
    assert len([e for _, e in events if isinstance(e, Text)]) == 1


@pytest.mark.parametrize(
    ("name", "wanted"), [("5-inaugural-address", "country"), ("4-shopping-list", "six")]
)
def test_a_word_really_said_five_times_is_there_five_times(
    models: Models, name: str, wanted: str
) -> None:
    """At the end of a turn it was cut to one or two, and in turns that was not counted."""
    recording = load_audio(resources.sample_speech() / f"{name}.flac")
    samples = soxr.resample(recording.astype(np.float32) / 32768, SAMPLE_RATE, RATE)
    found = transcribe(models.recogniser, samples).words
    word = [w for w in found if w.text.lower().strip(".,") == wanted][-1]
    start, stop = word.start_s - 0.02, word.stop_s + 0.02
    piece = recording[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]
    fade = np.minimum(1, np.minimum(np.arange(len(piece)), np.arange(len(piece))[::-1]) / 240)
    one = np.concatenate([(piece * fade).astype(np.int16), rest(0.15)])
    session = Session(models)
    events = run(session, rest(0.5), *[one] * 5, rest(3))
    assert words(events) == [wanted] * 5
    (turn,) = [e for _, e in events if isinstance(e, Turn)]
    assert [w.text.lower().strip(".,") for w in turn.words] == [wanted] * 5
    assert not session.dropped


@pytest.mark.parametrize("loud_first", [False, True])
def test_a_low_threshold_recognises_a_soft_voice(models: Models, loud_first: bool) -> None:
    """With a voice threshold of 0.3, a soft sentence behind a loud one was cut up into 29 turns
    without a word: the turn's own clock, whose threshold was 0.5, took it for silence."""
    voice = ScaledVoice(Silero(models.silero), 1.0)
    session = Session(models, Options(vad_threshold=0.3), voice_detector=voice)
    if loud_first:
        run(session, clip("peaceful-night"), rest(2))
    session.dropped.clear()
    voice.factor = 0.45
    events = run(session, clip("good-influence"), rest(3))
    assert words(events)[:5] == ["he", "has", "known", "her", "all"]
    assert len([e for _, e in events if isinstance(e, Turn)]) == 1
    assert not session.dropped


def test_a_threshold_changed_while_the_session_runs_applies_to_turns_too(models: Models) -> None:
    session = Session(models)
    session.configure(Options(vad_threshold=0.2))
    assert session.turn_detector.threshold == 0.2
    session.configure(Options(vad_threshold=0.8))
    assert session.turn_detector.threshold == 0.5, "its weights are fitted with that"


def test_in_a_pause_the_text_is_decoded_to_its_end_wherever_the_last_update_was(
    models: Models,
) -> None:
    """Where the last update had left less than a frame, no other followed, and so the turn model
    had no text to go by: one pause in twenty."""

    def spoken_for(windows: int) -> Voice:
        return lambda t: 0.95 if 20 <= round(t / WINDOW_S) < 20 + windows else 0.0

    speech = clip("good-influence")[round(0.4 * SAMPLE_RATE) :]
    for windows in range(50, 60):
        session = listening(models, spoken_for(windows), Options(turns=False))
        spoken = speech[: round(windows * WINDOW_S * SAMPLE_RATE)]
        run(session, rest(20 * WINDOW_S), spoken, rest(0.5))
        evidence = session.turn_detector.evidence
        assert evidence is not None
        assert evidence.silence_s is not None
        assert 0.35 < evidence.silence_s < 0.6
        assert evidence.text is not None, f"{windows} windows"


def test_a_decoder_that_predicts_the_end_during_speech_for_long_must_be_surer(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a meeting the most probable text ended with "Yeah." for six seconds, by a narrow margin:
    the eight words that followed came all at once, at the end."""
    early: list[bool] = []

    def ended(
        self: Decoder, audio: object, limit: int, horizon: int, last: bool, may_end: bool
    ) -> DecodedText:
        early.append(may_end)
        self.decoded = DecodedText([500], [20], [0.9], ended=True, p_eos=0.4)
        return self.decoded

    monkeypatch.setattr(Decoder, "update", ended)
    session = listening(models, lambda t: 0.9)
    run(session, hum(4.5))
    changes = np.flatnonzero(np.diff(early))
    assert early[0]
    assert not early[-1]
    assert len(changes) == 1
    assert 6 <= changes[0] <= 10  # updates of 0.24 s


@pytest.mark.parametrize("delay", [10, 48])
def test_a_long_segment_is_cut_behind_its_last_committed_word(
    models: Models, monkeypatch: pytest.MonkeyPatch, delay: int
) -> None:
    """At the longest delay the last committed word is old: the cut was four seconds before the end,
    within "Mr. Hale", which became "hell hail"."""
    session = listening(models, lambda t: 0.95, Options(delay_in_frames=delay))
    starts = segment_starts(monkeypatch)
    names = ("good-influence", "sojourn", "mister-hale", "sojourn")
    events = run(session, *map(clip, names))
    stops = [e.stop_s for _, e in events if isinstance(e, EndText)]
    assert len(starts) > 1
    for start in starts[1:]:
        assert min(abs(start - stop) for stop in stops) < 0.01


def test_a_pause_does_not_count_as_speech_without_text(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    early: list[bool] = []

    def ended(self: Decoder, *how: object) -> DecodedText:
        early.append(bool(how[-1]))
        self.decoded = DecodedText([500], [20], [0.9], ended=True, p_eos=0.4)
        return self.decoded

    monkeypatch.setattr(Decoder, "update", ended)
    session = listening(models, lambda t: 0.9 if t % 1.4 < 1.0 else 0.0)
    run(session, hum(7))
    assert len(early) > 10
    assert all(early)
