"""What all model families share works with any family: here with one that is unlike Moonshine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edged.audio.sample_history import SampleHistory
from edged.errors import ModelError
from edged.events import Word
from edged.options import Options
from edged.stt.families import FAMILIES, family_of
from edged.stt.family import RATE, EncoderOutput, SpeechModel, Tuning, language_traits
from edged.stt.recogniser import Recogniser
from edged.stt.scoring import score_by_reading
from edged.stt.second_pass import transcribe
from tests.support.toy_speech_model import (
    EOS,
    PROMPTS,
    Spoken,
    ToyEncoder,
    ToySpeechModel,
    script,
    sentence,
)

STEP = RATE * 80 // 1000


def stream(
    model: SpeechModel, seconds: float, options: Options | None = None
) -> tuple[list[tuple[float, Word]], Recogniser]:
    """Each word with the second at which it came, of one segment that begins at 0."""
    recogniser = Recogniser(model, options or Options())
    history = SampleHistory(60 * RATE)
    recogniser.begin(0)
    words: list[tuple[float, Word]] = []
    for _ in range(round(seconds * RATE) // STEP):
        history.append(np.zeros(STEP, np.float32))
        new = recogniser.advance(history, history.end)
        words += [(history.end / RATE, word) for word in new]
    words += [(history.end / RATE, word) for word in recogniser.finish(history, history.end)]
    return words, recogniser


def test_words_are_committed_once_in_order_and_behind_their_delay() -> None:
    text = "turn the lights in the kitchen off and close the door please"
    model = ToySpeechModel(script(*sentence(text)))
    words, _ = stream(model, 5)
    assert " ".join(word.text for _, word in words) == text
    starts = [word.start_s for _, word in words]
    assert starts == pytest.approx([0.2 + 0.3 * n for n in range(len(starts))])
    early_s = model.tuned.early_commit_s
    assert all(at - word.stop_s > 0.8 - early_s - 0.01 for at, word in words[:-3])


def test_the_last_update_of_a_segment_tells_the_encoder_that_no_more_audio_comes() -> None:
    model = ToySpeechModel(script(*sentence("yes please")))
    stream(model, 2)
    (encoder,) = model.encoders
    assert encoder.updates[-1]
    assert not any(encoder.updates[:-1])


class WaitingEncoder(ToyEncoder):
    """Its last 16 frames wait for lookahead, until the segment ends."""

    def update(self, last: bool = False) -> EncoderOutput | None:
        self.updates.append(last)
        ready = self.frames if last else max(0, self.frames - 16)
        return EncoderOutput(ready, ready) if ready else None


def test_frames_that_waited_for_lookahead_are_decoded_although_a_pause_came_before_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pause decodes to the end of the text. As no audio followed, the segment took that for its
    final text, and the last word was lost."""
    model = ToySpeechModel(script(*sentence("yes"), Spoken(" please", 46)))
    monkeypatch.setattr(model, "streaming_encoder", lambda *_: WaitingEncoder())
    recogniser, history = Recogniser(model, Options()), SampleHistory(60 * RATE)
    recogniser.begin(0)
    history.append(np.zeros(RATE, np.float32))  # 50 frames
    words = recogniser.advance(history, history.end, pause=True)
    words += recogniser.finish(history, history.end)
    assert [word.text for word in words] == ["yes", "please"]


@pytest.mark.parametrize("language", PROMPTS)
def test_the_prompt_of_the_language_comes_before_the_text(language: str) -> None:
    """The toy decoder checks it with every token it reads."""
    model = ToySpeechModel(script(*sentence("eins zwei drei vier")))
    words, _ = stream(model, 3, Options(language=language))
    assert [word.text for _, word in words] == ["eins", "zwei", "drei", "vier"]
    assert model.asked_prompt == PROMPTS[language]


def test_a_long_segment_is_cut_and_each_word_is_committed_once() -> None:
    """Every segment of the toy hears the same words, so that a cut begins them again."""
    model = ToySpeechModel(script(*sentence("one two three four five six")))
    model.tuned = Tuning(chunk_frames=12, max_segment_s=3.0)
    words, recogniser = stream(model, 5)
    first, second = recogniser.finished[:2]
    assert first.stop == second.start
    texts = [word.text for _, word in words]
    assert texts[:6] == ["one", "two", "three", "four", "five", "six"]
    assert first.stop / RATE == pytest.approx(max(w.stop_s for _, w in words[:6]), abs=0.01)


def test_tokens_join_to_words_where_the_vocabulary_says() -> None:
    pieces = [Spoken(" un", 10), Spoken("believ", 14), Spoken("able", 18), Spoken(".", 20)]
    words, _ = stream(ToySpeechModel(script(*pieces)), 3)
    assert [word.text for _, word in words] == ["unbelievable."]


def test_a_number_that_grows_digit_by_digit_is_committed_once() -> None:
    """ "20" was committed and then "2026": the decoder had not yet heard the last two digits."""

    def hear(frames: int) -> list[Spoken]:
        digits = [Spoken(" 20", 20), Spoken("26", 70), Spoken(" is", 90), Spoken(" late", 105)]
        return [s for s in digits if s.frame < frames] if frames >= 80 else digits[:1]

    words, _ = stream(ToySpeechModel(hear), 4)
    assert "".join(word.text for _, word in words) == "2026islate"


def test_a_word_said_four_times_is_committed_four_times() -> None:
    model = ToySpeechModel(script(*[Spoken(" nine", 10 + 30 * n) for n in range(4)]))
    words, recogniser = stream(model, 4)
    assert [word.text for _, word in words] == ["nine"] * 4
    assert not recogniser.dropped
    assert [word.text for word in transcribe(model, np.zeros(4 * RATE, np.float32)).words] == [
        "nine"
    ] * 4


def test_a_loop_of_the_decoder_is_cut_and_marked() -> None:
    looping = [*sentence("please"), *[Spoken(" please", 11)] * 8]
    model = ToySpeechModel(script(*looping))
    model.tuned = Tuning(chunk_frames=12, max_loop_updates=100)
    assert [word.text for _, word in stream(model, 3)[0]] == ["please"]
    transcript = transcribe(model, np.zeros(3 * RATE, np.float32))
    assert [word.text for word in transcript.words] == ["please"]
    assert transcript.is_cut


def test_the_second_pass_gives_the_same_words_with_and_without_a_draft() -> None:
    model = ToySpeechModel(script(*sentence("set a timer for ten minutes")))
    samples = np.zeros(3 * RATE, np.float32)
    alone = transcribe(model, samples)
    tokens = [model.vocabulary.token(f" {w}") for w in ["set", "the", "timer", "for", "ten"]]
    drafted = transcribe(model, samples, "en", tokens)
    assert [word.text for word in alone.words] == ["set", "a", "timer", "for", "ten", "minutes"]
    assert alone == drafted
    assert transcribe(model, samples[:100]).words == []


def test_text_below_the_models_own_confidence_is_dropped_and_counted() -> None:
    unsure = [Spoken(s.piece, s.frame, 0.6) for s in sentence("i do not know")]
    model = ToySpeechModel(script(*unsure))
    assert len(stream(model, 3)[0]) == 4
    strict = ToySpeechModel(script(*unsure))
    strict.confidence = type(strict.confidence)(short_p=0.7, long_p=0.7)
    words, recogniser = stream(strict, 3)
    assert words == []
    assert recogniser.dropped["unsure"] == 4


def test_a_model_without_the_language_asked_for_uses_the_traits_of_its_first() -> None:
    model = ToySpeechModel(script())
    assert language_traits(model, "ja") is model.languages["en"]


def test_every_architecture_has_one_family_and_others_are_refused_by_name() -> None:
    names = [name for family in FAMILIES for name in family.architectures]
    assert len(names) == len(set(names))
    assert family_of("moonshine-tiny").name == "moonshine"
    with pytest.raises(ModelError, match=r"'whisper-9'.*moonshine-tiny"):
        family_of("whisper-9")


def test_a_segment_keeps_stream_time_although_its_audio_was_gone_when_it_was_read() -> None:
    """A recogniser that was too late for the history got only what was left, and all later words
    were early by what was missing."""
    model = ToySpeechModel(script(*sentence("turn the lights in the kitchen off")))
    recogniser, history = Recogniser(model, Options()), SampleHistory(RATE)
    recogniser.begin(0)
    for _ in range(4 * RATE // STEP):
        history.append(np.zeros(STEP, np.float32))
    assert history.start > 0
    words = recogniser.advance(history, 2 * RATE) + recogniser.finish(history, history.end)
    assert recogniser.finished[0].stop == history.end
    starts = [word.start_s for word in words]
    assert starts == pytest.approx([0.2 + 0.3 * n for n in range(7)])


def test_a_score_is_the_log_probability_of_the_text_and_its_end() -> None:
    """By the tokens that reading gives; a token beyond its candidates counts as the last of
    them."""
    model = ToySpeechModel(script(*sentence("yes please")))
    samples = np.zeros(2 * RATE, np.float32)
    audio = model.encode(samples)
    assert audio is not None
    tokens = [model.vocabulary.token(" yes"), model.vocabulary.token(" please")]
    step, prompt = model.decoder_step(20), model.prompt("en")
    step.attend_to(audio)
    expected = 2 * math.log(0.9) + math.log(0.95)
    assert step.score(prompt, tokens) == pytest.approx(expected)
    assert score_by_reading(step, prompt, tokens, EOS) == pytest.approx(expected)
    assert score_by_reading(step, prompt, tokens[:1], EOS) < expected - 1
