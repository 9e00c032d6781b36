"""Session: 80 ms frames in, events out. Pure: no thread, file or socket, and no clock but for
time limits.

A session takes each frame through the voice gate, hands speech to the recogniser, asks the turn
detector whether the speaker has finished, and puts the results into stream order. Which words are
committed, and where a long segment is cut, is decided in `edged.stt`. What takes longer than a step
(the recogniser, the second pass, Smart Turn) runs on executors that the caller provides. With
inline ones, which are the default, everything happens in `push`, and a run can be repeated exactly.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio.hum_filter import HumFilter
from edged.audio.sample_history import SampleHistory
from edged.engine.background_worker import InlineExecutor
from edged.engine.load_level import LoadLevel
from edged.engine.recogniser_queue import (
    CommittedWords,
    RecogniserQueue,
    SegmentEnd,
    StreamRecogniser,
)
from edged.engine.turn_assembler import TurnAssembler, TurnStyle
from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Word
from edged.languages import AUTO
from edged.models.loader import Models
from edged.options import Options
from edged.stt.family import RATE, EncoderOutput, SpeechModel, Tuning, first_language
from edged.stt.keyterms import keyterms_of
from edged.stt.recogniser import FinishedSegment, Recogniser
from edged.stt.second_opinion import LANGUAGE, SecondOpinion
from edged.stt.second_pass import Transcript, transcribe
from edged.vad.endpoint import Endpoint
from edged.vad.gate import Gate
from edged.vad.silero import WINDOW, Silero, VoiceDetector
from edged.vad.smart_turn import SmartTurn
from edged.vad.text_evidence import TextEvidence
from edged.vad.turn_detector import TurnDetector

LARGE_UPDATE_S = 0.48  # audio of an update with LoadLevel.LARGER_UPDATES
MAX_LAG_S = 10.0  # unread audio: if the recogniser is further behind, it skips all but KEPT_LAG_S
KEPT_LAG_S = 1.0
HISTORY_S = 32  # the longest segment, its pre-roll, the largest lag and some margin
PRE_ROLL_S = 0.4  # audio before the first window with speech that a segment begins with
HANGOVER_S = 0.3  # audio after the last window with speech that a segment ends with
MIN_SPEECH_WINDOWS = 5  # 160 ms of confident speech: less is a click, a cough, a dropped spoon
NOISE_AFTER_S = 2.0  # an open gate that had no more speech than that by then hears only noise
LONGEST_TURN_S = 60.0  # a longer turn is closed at the next end of a segment
OVERTIME_S = 20.0  # or, if none ends, this much later in mid-segment
SILENCE_BY_AGE = ((8.0, 0.6), (16.0, 0.16))  # (age of a segment, silence that ends it), seconds


Encoded: TypeAlias = Future[EncoderOutput | None]
SecondPass: TypeAlias = Callable[[NDArray[np.float32], FinishedSegment], Transcript]
"""Decodes the audio of a segment (float32[n], 16 kHz) with full context. Called on an executor."""


@dataclass(frozen=True, slots=True)
class _TurnEnd:
    """Marks in the recogniser's results where a turn ends."""


class Session:
    """One stream of audio on its way through voice gate, recogniser and turn detector.

    With a background recogniser, words become known at any time. They come with the next call of
    any method, `collect` included, always in order: before the `step` of the frame that is pushed,
    and before the `flushed` of a flush that followed them.

    options: the options in force; see `configure`.
    step_idx: the index of the next step.
    load_level: how much work is saved; see `set_load_level`.
    turn_detector: that of this stream, with the evidence of the last step.
    lost: samples (24 kHz) that were given up because the recogniser was too slow.
    """

    def __init__(
        self,
        models: Models,
        options: Options | None = None,
        executor: Executor | None = None,
        tuning: Tuning | None = None,
        voice_detector: VoiceDetector | None = None,
        recogniser: StreamRecogniser | None = None,
        second_pass: SecondPass | None = None,
        recogniser_executor: Executor | None = None,
        on_result: Callable[[], None] | None = None,
    ) -> None:
        """executor: runs the second pass and Smart Turn. None runs them in the caller.
        tuning: of the recogniser, in place of the one that suits the delay.
        voice_detector: in place of Silero.
        recogniser, second_pass: in place of those of the models.
        recogniser_executor: runs the recogniser; None runs it in the caller. It must do jobs in
            order, one at a time, and not be one that second passes keep busy.
        on_result: called on an executor's thread when `collect` may have something to give, and
            when less audio waits for the recogniser.
        """
        self.options = options or Options()
        self._models = models
        self._resampler = soxr.ResampleStream(SAMPLE_RATE, RATE, 1, dtype="float32")
        self._hum_filter = HumFilter(RATE)
        self._history = SampleHistory(HISTORY_S * RATE)
        self._voice_detector = voice_detector or Silero(models.silero)
        self._gate = Gate(self.options.vad_threshold)
        self._recogniser = recogniser or Recogniser(models.recogniser, self.options, tuning)
        self._queue = RecogniserQueue(
            self._recogniser, self._history, recogniser_executor or InlineExecutor(), on_result
        )
        self._second_pass = second_pass
        # The encoder's output for the second pass of segments that end, by their start and stop:
        self._encoded: dict[tuple[int, int], Encoded] = {}
        self._spoken: str | None = None  # the language so far, if the options say `auto`
        self._has_words = False  # of the segment whose end is not known yet
        executor = executor or InlineExecutor()
        self._executor = executor
        self._dropped: Counter[str] = Counter()  # what the recogniser's own guards did not withhold
        self._turns = TurnAssembler(executor, self._dropped, on_result)
        self._turns.style = self._turn_style()
        smart_turn = SmartTurn(models.smart_turn) if models.smart_turn else None
        self.turn_detector = TurnDetector(
            models.inactivity, smart_turn, executor, self.options.vad_threshold
        )
        self._windows = 0  # judged by the voice detector
        # Places in the stream at 16 kHz:
        self._floor = 0  # no segment starts before it
        self._speech_end = 0  # the end of the last window with speech
        self._opened_at = 0  # where the gate opened
        self._turn_start: int | None = None
        self._turn_ends = 0  # turns that have ended and whose last words are not known yet
        self._gap = 0  # samples (24 kHz) of gaps that do not fill a step yet
        self.lost = 0
        self.load_level = LoadLevel.FULL
        self.step_idx = 0

    # ---- state ----------------------------------------------------------------------------------
    @property
    def speaking(self) -> bool:
        """Whether the voice gate is open."""
        return self._gate.is_open

    @property
    def smart_turn_failures(self) -> int:
        """How often Smart Turn failed."""
        return self.turn_detector.smart_turn_failures

    @property
    def dropped(self) -> Counter[str]:
        """How many words were withheld, by reason. May be read from any thread."""
        return Counter(dict(self._dropped)) + Counter(dict(self._recogniser.dropped))

    @property
    def decoder_runs(self) -> int:
        """Decoder runs of finished segments: 0 in silence."""
        return self._queue.runs

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait for the recogniser. May be read from any thread."""
        return self._queue.lag_s

    @property
    def is_recognising(self) -> bool:
        """Whether the recogniser has audio to read."""
        return self._queue.is_open and self._has_speech

    @property
    def recogniser_busy_s(self) -> float:
        """Seconds that the recogniser has worked so far. May be read from any thread."""
        return self._queue.busy_s

    # ---- audio ----------------------------------------------------------------------------------
    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        """Takes one step: int16[1920], 24 kHz, mono.

        Returns the words that are known by now, then exactly one `step`, then `turn`s.
        backlog: more audio waits, so the recogniser updates in larger chunks, which takes less CPU
        time. Raises ValueError for a frame of another length, and what the recogniser raised.
        """
        if len(frame) != STEP_SAMPLES:
            raise ValueError(f"a frame has {STEP_SAMPLES} samples, not {len(frame)}")
        events = self._collect_words()
        audio = self._resampler.resample_chunk(frame.astype(np.float32) / 32768)
        audio = self._hum_filter.push(audio)
        self._history.append(audio)
        if self._hum_filter.corrected is not None:  # for the second pass
            self._history.overwrite(*self._hum_filter.corrected)
        probabilities = self._voice_detector.push(audio)
        for probability in probabilities:
            self._push_window(probability)
            events += self._collect_words()
        self._recognise(backlog)
        events += self._collect_words()
        if not (self._turns.hold and self._gate.is_open):
            self._turns.start_held()
        inactivity = self.turn_detector.push(probabilities, self._text_evidence(), self._turn_audio)
        if self._turn_is_over():
            self._end_turn()
        elif self._turn_s > LONGEST_TURN_S and not self._turn_ends and self._turns.is_whole:
            self._turns.close()
            self._next_turn(self._queue.start)
        events += self._collect_words()
        events.append(Step(self.step_idx, inactivity))
        self.step_idx += 1
        return events + self._finished_turns()

    def collect(self) -> list[Event]:
        """Returns the words and turns that have become known since the last call.

        Raises what the recogniser raised.
        """
        return self._collect_words() + self._finished_turns()

    def gap(self, samples: int) -> list[Event]:
        """Tells that `samples` (24 kHz) were lost. Stream time goes on, with its steps.

        The audio before and after is not joined: the open segment ends at the gap. Less than a
        step is added to the next gap.
        """
        self._gap += samples
        if self._gap < STEP_SAMPLES:
            return []
        self._end_segment()
        events = self._collect_words()
        silence = np.zeros(STEP_SAMPLES, np.int16)
        while self._gap >= STEP_SAMPLES:
            self._gap -= STEP_SAMPLES
            events += self.push(silence)
        return events

    def flush(self, flush_id: int | str) -> list[Event]:
        """Asks for all words of the audio so far, then `flushed`. No later text is about it.

        Does not wait for the recogniser: with a background one, a later call returns what it still
        has to give, `flushed` included.
        """
        self._end_segment()
        self._floor = self._history.end
        self._queue.set_earliest_start(self.step_idx * STEP_S)
        self._queue.mark(Flushed(flush_id))
        return self._collect_words()

    def finish(self, timeout_s: float | None = None) -> list[Event]:
        """Ends the open turn; returns the words of the audio so far. `end` returns the turn.

        timeout_s: the longest wait for the recogniser (None: any). Words that are not known by then
        come with a later call.
        """
        self._end_turn()
        self._queue.join(timeout_s)
        return self._collect_words()

    @property
    def is_finished(self) -> bool:
        """Whether, after `finish`, all words and turns are known and were given: `end` will not
        wait."""
        return self._queue.is_drained and self._turns.is_empty

    @property
    def is_drained(self) -> bool:
        """Whether the recogniser has nothing left to do or to give."""
        return self._queue.is_drained

    def end(self, timeout_s: float | None = None) -> list[Event]:
        """Returns all that is left, an open turn included, then `end_of_stream`.

        timeout_s: the longest wait for the recogniser and the second pass (None: any). A turn
        whose second pass takes longer gets the words as they were committed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        events = self.finish(timeout_s)
        self._queue.close()
        self._turns.close()  # with the words so far, if there was no time for its last ones
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        turns = self._turns.pop_all(left_s)
        return [*events, *(turns if self.options.turns else []), EndOfStream()]

    def close(self) -> None:
        """Gives up the session: cancels what is not yet done."""
        self._queue.close()
        self._turns.cancel()
        for encoded in self._encoded.values():
            encoded.cancel()

    def configure(self, options: Options) -> None:
        """Sets new options: for the voice gate and turns at once, for the recogniser from the next
        segment on."""
        self.options = options
        self._gate.threshold = options.vad_threshold
        self.turn_detector.set_threshold(options.vad_threshold)
        self._turns.style = self._turn_style()
        self._configure_recogniser()

    def set_load_level(self, level: LoadLevel) -> None:
        """Saves work, or no longer: for the decoder from the next segment on, else at once."""
        self.load_level = level
        self._configure_recogniser()
        self.turn_detector.set_smart_turn(level < LoadLevel.NO_SMART_TURN)
        self._turns.hold = level >= LoadLevel.SECOND_PASS_IN_SILENCE

    def _configure_recogniser(self) -> None:
        greedy = self.load_level >= LoadLevel.GREEDY
        self._queue.configure(self.options, greedy, self._spoken)

    # ---- segments -------------------------------------------------------------------------------
    def _push_window(self, probability: float) -> None:
        """Takes one window of 32 ms; begins and ends segments."""
        self._windows += 1
        place = self._windows * WINDOW
        self._gate.close_after_s = self._closing_silence_s()
        change = self._gate.push(probability)
        if self._gate.is_open and self._gate.silence_s == 0.0:
            self._speech_end = place
        if change == "open":
            onset = place - self._gate.onset_windows * WINDOW
            start = max(onset - int(PRE_ROLL_S * RATE), self._floor, self._history.start, 0)
            self._opened_at = place
            self._queue.begin(start)
            if self._turn_start is None:
                self._turn_start = start
        elif change == "close" or self._is_noise_only(place):
            self._end_segment()

    def _is_noise_only(self, place: int) -> bool:
        """Whether something that is no speech keeps the gate open.

        Such a segment has to end: if speech came later, all of it would be recognised at once, and
        late.
        """
        waited = place - self._opened_at > NOISE_AFTER_S * RATE
        return self._gate.is_open and waited and not self._has_speech

    @property
    def _has_speech(self) -> bool:
        """Whether there was more than a click since the gate opened."""
        return self._gate.speech_windows >= MIN_SPEECH_WINDOWS

    def _closing_silence_s(self) -> float:
        """Seconds of silence that end the segment: fewer as it grows older.

        It should end in a pause before it grows so long that it is cut between two words.
        """
        ages, silences = zip(*SILENCE_BY_AGE, strict=True)
        return float(np.interp(self._queue.age_s, ages, silences))

    def _recognise(self, backlog: bool) -> None:
        """Gives the recogniser the audio of this step."""
        if not self._queue.is_open or not self._has_speech:
            return
        if self._queue.lag_s > MAX_LAG_S:
            kept = self._history.end - int(KEPT_LAG_S * RATE)
            lost = self._queue.skip_to(max(kept, self._floor))
            self.lost += lost * SAMPLE_RATE // RATE
        hangover_end = self._speech_end + int(HANGOVER_S * RATE)
        pause = self._history.end > hangover_end
        until = min(self._history.end, hangover_end)
        unread = until - self._queue.until
        large = self.load_level >= LoadLevel.LARGER_UPDATES
        if large and not pause and unread < LARGE_UPDATE_S * RATE:
            return
        self._queue.advance(until, backlog, pause, self._gate.voice_uncertainty)

    def _end_segment(self) -> None:
        """Ends the open segment shortly after the last speech."""
        self._gate.close()
        if not self._queue.is_open:
            return
        if not self._has_speech:
            self._dropped["short"] += 1
            self._queue.discard()
            return
        stop = min(self._history.end, self._speech_end + int(HANGOVER_S * RATE))
        self._encode_ahead(self._queue.start, stop)
        self._queue.finish(stop, self._gate.voice_uncertainty)
        # the next segment may begin in the silence after this one's speech
        self._floor = max(self._floor, min(stop, self._speech_end + 2 * WINDOW))

    # ---- results of the recogniser --------------------------------------------------------------
    def _collect_words(self) -> list[Event]:
        """Takes the recogniser's results in order; returns `text`, `end_text` and `flushed`."""
        events: list[Event] = []
        for result in self._queue.collect():
            match result:
                case CommittedWords(words):
                    self._has_words = True
                    if self.options.turns:
                        self._turns.add_words(words)
                    events += _text_events(words)
                case SegmentEnd(segment):
                    if self.options.turns:
                        self._start_second_pass(segment)
                    elif self._has_words:
                        self._set_spoken(segment.language)
                    self._has_words = False
                case _TurnEnd():
                    self._turn_ends -= 1
                    self._turns.close()
                case Flushed():
                    events.append(result)
        return events

    def _encode_ahead(self, start: int | None, stop: int) -> None:
        """Begins the second pass of a segment that ends while the recogniser reads its end.

        It decodes with the recogniser's tokens as a draft, but its encoder, which is half of its
        work, needs the audio only.
        """
        if self._second_pass is not None or not self.options.turns or self._turns.hold:
            return
        samples = self._history.read(start or 0, stop)
        if start is not None and 0 < len(samples) == stop - start:
            encode = self._models.recogniser.encode
            self._encoded[start, stop] = self._executor.submit(encode, samples)

    def _start_second_pass(self, segment: FinishedSegment) -> None:
        samples = self._history.read(segment.start, segment.stop)
        ahead = self._encoded.pop((segment.start, segment.stop), None)
        encoded = [] if ahead is None else [ahead]
        del ahead
        for place in [place for place in self._encoded if place[0] < segment.stop]:
            self._encoded.pop(place).cancel()  # the recogniser has cut that segment
        model = self._models.recogniser
        opinion = self._models.second_opinion if self.load_level == LoadLevel.FULL else None
        decode = self._second_pass or partial(_transcribe, model, encoded, self._spoken, opinion)
        work: Callable[[], Transcript] = partial(decode, samples, segment)
        if len(samples) != segment.stop - segment.start:
            work = _audio_is_gone
        self._turns.add_segment(segment.start, work, segment.voice_uncertainty, segment.language)

    # ---- turns ----------------------------------------------------------------------------------
    def _text_evidence(self) -> TextEvidence | None:
        """What the words before a pause tell about the end of the turn.

        None while the recogniser has not read up to the pause.
        """
        last = self._queue.decoded
        if last is None or not self._gate.silence_s:
            return None
        decoded, until = last
        if until < self._speech_end:
            return None
        text = self._models.recogniser.vocabulary.text(decoded.tokens)
        p_last = (decoded.probabilities or [0.0])[-1]
        return TextEvidence.from_text(text, decoded.p_eos, p_last, decoded.language)

    def _turn_audio(self) -> NDArray[np.float32]:
        """The audio of the open turn so far, as far as the history reaches back."""
        start = self._history.end if self._turn_start is None else self._turn_start
        return self._history.read(start, self._history.end)

    @property
    def _turn_s(self) -> float:
        """Seconds since the open turn began; 0 without one."""
        return 0.0 if self._turn_start is None else (self._history.end - self._turn_start) / RATE

    def _turn_is_over(self) -> bool:
        if self._turn_start is None:
            return False
        if self._turn_s > LONGEST_TURN_S + OVERTIME_S:
            return True
        options = self.options
        endpoint = Endpoint(options.turn_threshold, options.turn_silence_ms / 1000)
        return self.turn_detector.is_over(endpoint)

    def _end_turn(self) -> None:
        """Ends the open segment and the turn. Words that become known later still belong to it."""
        self._end_segment()
        self._turn_ends += 1
        self._queue.mark(_TurnEnd())
        self._next_turn(None)

    def _next_turn(self, start: int | None) -> None:
        """start: where the open segment began, which belongs to the next turn; None without one."""
        self._turn_start = start
        self.turn_detector.turn_closed()

    def _turn_style(self) -> TurnStyle:
        options, language = self.options, self.options.language
        if language == AUTO:
            language = self._spoken or first_language(self._models.recogniser)
        return TurnStyle(language, options.digits)

    def _finished_turns(self) -> list[Event]:
        turns = self._turns.pop_finished()
        if turns:
            self._set_spoken(turns[-1].language)
        return list(turns) if self.options.turns else []

    def _set_spoken(self, language: str) -> None:
        """Somebody has spoken this language: if the model finds it, it expects it from now on."""
        if self.options.language == AUTO and language != self._spoken:
            self._spoken = language
            self._turns.style = self._turn_style()
            self._configure_recogniser()


def _transcribe(
    model: SpeechModel,
    encoded: list[Encoded],
    expected_language: str | None,
    opinion: SecondOpinion | None,
    samples: NDArray[np.float32],
    segment: FinishedSegment,
) -> Transcript:
    """The second pass in the language of the first one or, with `auto`, in the one that the model
    finds with full context; with a second opinion on English, if there is one.

    encoded: what the encoder gives, if it was begun ahead. Taken out, so that it is freed as soon
    as it has been decoded.
    """
    options = segment.options
    language = AUTO if options.language == AUTO else segment.language
    keyterms = keyterms_of(model, options)
    if opinion is None or language != LANGUAGE:
        return transcribe(
            model,
            samples,
            language,
            segment.tokens,
            keyterms,
            _encoded_ahead(encoded),
            expected_language,
        )
    ahead = _encoded_ahead(encoded)
    heard = transcribe(model, samples, language, segment.tokens, keyterms, ahead)
    return opinion.choose(model, heard, samples, ahead, options, segment.voice_uncertainty)


def _encoded_ahead(encoded: list[Encoded]) -> EncoderOutput | None:
    """None if it failed, or waits behind other work: then the second pass encodes for itself."""
    if not encoded:
        return None
    future = encoded.pop()
    return None if future.cancel() or future.exception() is not None else future.result()


def _audio_is_gone() -> Transcript:
    raise RuntimeError("the recogniser was so late that the audio of the segment is gone")


def _text_events(words: list[Word]) -> list[Event]:
    events: list[Event] = []
    for word in words:
        events += [Text(word.text, word.start_s), EndText(word.stop_s)]
    return events
