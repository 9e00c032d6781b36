"""Session: 80 ms frames in, events out. Pure: no thread, clock, file or socket.

A session takes each frame through the voice gate, hands speech to the recogniser, asks the turn
detector whether the speaker has finished, and puts the results into stream order. Which words are
committed, and where a long segment is cut, is decided in `edged.stt`. What takes longer than a step
(the second pass, Smart Turn) runs on an executor that the caller provides.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor
from functools import partial

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio.sample_history import SampleHistory
from edged.engine.background_worker import InlineExecutor
from edged.engine.turn_assembler import TurnAssembler
from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Word
from edged.models.loader import Models
from edged.options import Options
from edged.stt.family import RATE, Tuning
from edged.stt.recogniser import Recogniser
from edged.stt.second_pass import transcribe
from edged.vad.endpoint import Endpoint
from edged.vad.gate import Gate
from edged.vad.silero import WINDOW, Silero, VoiceDetector
from edged.vad.smart_turn import SmartTurn
from edged.vad.text_evidence import TextEvidence
from edged.vad.turn_detector import TurnDetector

HISTORY_S = 26  # the longest segment, its pre-roll and some margin
PRE_ROLL_S = 0.4  # audio before the first window with speech that a segment begins with
HANGOVER_S = 0.3  # audio after the last window with speech that a segment ends with
MIN_SPEECH_WINDOWS = 5  # 160 ms of confident speech: less is a click, a cough, a dropped spoon
NOISE_AFTER_S = 2.0  # an open gate that had no more speech than that by then hears only noise
LONGEST_TURN_S = 60.0  # a longer turn is closed at the next end of a segment
OVERTIME_S = 20.0  # or, if none ends, this much later in mid-segment
SILENCE_BY_AGE = ((8.0, 0.6), (16.0, 0.16))  # (age of a segment, silence that ends it), seconds


class Session:
    """One stream of audio on its way through voice gate, recogniser and turn detector.

    options: the options in force; see `configure`.
    step_idx: the index of the next step.
    turn_detector: that of this stream, with the evidence of the last step.
    """

    def __init__(
        self,
        models: Models,
        options: Options | None = None,
        executor: Executor | None = None,
        tuning: Tuning | None = None,
        voice_detector: VoiceDetector | None = None,
    ) -> None:
        """executor: runs the second pass and Smart Turn. None runs them in the caller, which makes
            a run repeatable.
        tuning: of the recogniser, in place of the one that suits the delay.
        voice_detector: in place of Silero.
        """
        self.options = options or Options()
        self._models = models
        self._resampler = soxr.ResampleStream(SAMPLE_RATE, RATE, 1, dtype="float32")
        self._history = SampleHistory(HISTORY_S * RATE)
        self._voice_detector = voice_detector or Silero(models.silero)
        self._gate = Gate(self.options.vad_threshold)
        self._recogniser = Recogniser(models.recogniser, self.options, tuning)
        executor = executor or InlineExecutor()
        self._turns = TurnAssembler(executor, self._recogniser.dropped)
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
        self._lost = 0  # samples (24 kHz) of gaps that do not fill a step yet
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
        """How many words the recogniser's guards withheld, by reason."""
        return self._recogniser.dropped

    @property
    def decoder_runs(self) -> int:
        """Decoder runs of finished segments: 0 in silence."""
        return self._recogniser.runs

    # ---- audio ----------------------------------------------------------------------------------
    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        """Takes one step: int16[1920], 24 kHz, mono.

        Returns the words that are committed at this step, then exactly one `step`, then `turn`s.
        backlog: more audio waits, so the recogniser updates in larger chunks, which takes less CPU
        time. Raises ValueError for a frame of another length.
        """
        if len(frame) != STEP_SAMPLES:
            raise ValueError(f"a frame has {STEP_SAMPLES} samples, not {len(frame)}")
        audio = self._resampler.resample_chunk(frame.astype(np.float32) / 32768)
        self._history.append(audio)
        probabilities = self._voice_detector.push(audio)
        words = []
        for probability in probabilities:
            words += self._push_window(probability)
        words += self._recognise(backlog)
        self._start_second_passes()
        inactivity = self.turn_detector.push(probabilities, self._text_evidence(), self._turn_audio)
        if self._turn_is_over():
            words += self._end_turn()
        elif self._turn_s > LONGEST_TURN_S and self._turns.is_whole:
            self._close_turn(self._recogniser.start)
        events = _text_events(words)
        events.append(Step(self.step_idx, inactivity))
        self.step_idx += 1
        return events + self._finished_turns()

    def gap(self, samples: int) -> list[Event]:
        """Tells that `samples` (24 kHz) were lost. Stream time goes on, with its steps.

        The audio before and after is not joined: the open segment ends at the gap. Less than a
        step is added to the next gap.
        """
        self._lost += samples
        if self._lost < STEP_SAMPLES:
            return []
        events = _text_events(self._end_segment())
        silence = np.zeros(STEP_SAMPLES, np.int16)
        while self._lost >= STEP_SAMPLES:
            self._lost -= STEP_SAMPLES
            events += self.push(silence)
        return events

    def flush(self, flush_id: int | str) -> list[Event]:
        """Returns all words of the audio so far, then `flushed`. No later text is about it."""
        events = _text_events(self._end_segment())
        self._floor = self._history.end
        self._recogniser.set_earliest_start(self.step_idx * STEP_S)
        return [*events, Flushed(flush_id)]

    def finish(self) -> list[Event]:
        """Ends the open turn; returns the words of the audio so far. `end` returns the turn."""
        return _text_events(self._end_turn())

    def end(self, timeout_s: float | None = None) -> list[Event]:
        """Returns all that is left, an open turn included, then `end_of_stream`.

        A turn whose second pass takes longer than `timeout_s` (None: any time) gets the words as
        they were committed.
        """
        events = self.finish()
        turns = self._turns.pop_all(timeout_s)
        return [*events, *(turns if self.options.turns else []), EndOfStream()]

    def configure(self, options: Options) -> None:
        """Sets new options: for the voice gate and turns at once, for the recogniser from the next
        segment on."""
        self.options = options
        self._gate.threshold = options.vad_threshold
        self.turn_detector.set_threshold(options.vad_threshold)
        self._recogniser.options = options

    # ---- segments -------------------------------------------------------------------------------
    def _push_window(self, probability: float) -> list[Word]:
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
            self._recogniser.begin(start)
            if self._turn_start is None:
                self._turn_start = start
        elif change == "close" or self._is_noise_only(place):
            return self._end_segment()
        return []

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
        return float(np.interp(self._recogniser.age_s, ages, silences))

    def _recognise(self, backlog: bool) -> list[Word]:
        """Gives the recogniser the audio of this step; returns the words to commit."""
        if not self._recogniser.is_open or not self._has_speech:
            return []
        hangover_end = self._speech_end + int(HANGOVER_S * RATE)
        pause = self._history.end > hangover_end
        until = min(self._history.end, hangover_end)
        words = self._recogniser.advance(
            self._history, until, backlog, pause, self._gate.voice_uncertainty
        )
        self._add_to_turn(words)
        return words

    def _end_segment(self) -> list[Word]:
        """Ends the open segment shortly after the last speech; returns its words."""
        self._gate.close()
        if not self._recogniser.is_open:
            return []
        if not self._has_speech:
            self._recogniser.dropped["short"] += 1
            self._recogniser.discard()
            return []
        stop = min(self._history.end, self._speech_end + int(HANGOVER_S * RATE))
        words = self._recogniser.finish(self._history, stop, self._gate.voice_uncertainty)
        # the next segment may begin in the silence after this one's speech
        self._floor = max(self._floor, min(stop, self._speech_end + 2 * WINDOW))
        self._add_to_turn(words)
        self._start_second_passes()
        return words

    def _start_second_passes(self) -> None:
        """Starts the second pass of each segment that has ended, if turns are wanted."""
        while self._recogniser.finished:
            segment = self._recogniser.finished.pop(0)
            if not self.options.turns:
                continue
            samples = self._history.read(segment.start, segment.stop).copy()
            model, language = self._models.recogniser, self.options.language
            work = partial(transcribe, model, samples, language, segment.tokens)
            self._turns.add_segment(segment.start, work, segment.voice_uncertainty)

    # ---- turns ----------------------------------------------------------------------------------
    def _add_to_turn(self, words: list[Word]) -> None:
        if self.options.turns:
            self._turns.add_words(words)

    def _text_evidence(self) -> TextEvidence | None:
        """What the words before a pause tell about the end of the turn."""
        decoded = self._recogniser.decoded
        if decoded is None or not self._gate.silence_s:
            return None
        text = self._models.recogniser.vocabulary.text(decoded.tokens)
        p_last = (decoded.probabilities or [0.0])[-1]
        return TextEvidence.from_text(text, decoded.p_eos, p_last)

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

    def _end_turn(self) -> list[Word]:
        words = self._end_segment()
        self._close_turn(None)
        return words

    def _close_turn(self, next_start: int | None) -> None:
        """next_start: where the open segment began, which belongs to the next turn."""
        self._turns.close()
        self._turn_start = next_start
        self.turn_detector.turn_closed()

    def _finished_turns(self) -> list[Event]:
        turns = self._turns.pop_finished()
        return list(turns) if self.options.turns else []


def _text_events(words: list[Word]) -> list[Event]:
    events: list[Event] = []
    for word in words:
        events += [Text(word.text, word.start_s), EndText(word.stop_s)]
    return events
