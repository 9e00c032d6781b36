"""Session: 80 ms frames in, events out. Pure: no thread, clock, file or socket.

Every 80 ms decision is made here, in this order: resample, voice gate, recogniser, turn. What is
too long for a step (the second pass, Smart Turn) goes to an executor that the caller provides.
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
from edged.engine.turns import InlineExecutor, Turns
from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Word
from edged.models.loader import Models
from edged.options import Options
from edged.stt.recogniser import RATE, Recogniser
from edged.stt.second_pass import transcribe
from edged.stt.segment import Tuning
from edged.vad.endpoint import Endpoint
from edged.vad.gate import Gate
from edged.vad.silero import WINDOW, Silero
from edged.vad.smart_turn import SmartTurn
from edged.vad.text_evidence import TextEvidence, belief_of
from edged.vad.turn_detector import TurnDetector

HISTORY_S = 26  # the longest segment, its pre-roll and some margin
PRE_ROLL_S = 0.4  # audio before the first window with speech that a segment begins with
HANGOVER_S = 0.3  # audio after the last window with speech that a segment ends with
MIN_SPEECH_WINDOWS = 5  # 160 ms of confident speech: less is a click, a cough, a dropped spoon
SHORT_S = 2.0  # a gate that had no more speech by then hears none
# A longer turn ends with a segment; if no segment ends, where it stands so much later.
LONGEST_TURN_S, OVERTIME_S = 60.0, 20.0
HUSH_AGE_S, HUSH_S = (8.0, 16.0), (0.6, 0.16)  # a segment's age, silence that ends it


class Session:
    """One stream of audio through voice gate, recogniser and turn model."""

    def __init__(
        self,
        models: Models,
        options: Options | None = None,
        beside: Executor | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """`beside` runs what is too long for a step (second pass, Smart Turn); None: at once,
        in the caller, which makes a run repeatable."""
        self.options = options or Options()
        self._models = models
        self._resampler = soxr.ResampleStream(SAMPLE_RATE, RATE, 1, dtype="float32")
        self._history = SampleHistory(HISTORY_S * RATE)
        self._silero = Silero(models.silero)
        self._gate = Gate(self.options.vad_threshold)
        self._recogniser = Recogniser(models.graphs, models.vocabulary, self.options, tuning)
        beside = beside or InlineExecutor()
        self._turns = Turns(beside, self._recogniser.dropped)
        smart_turn = SmartTurn(models.smart_turn) if models.smart_turn else None
        self.judge = TurnDetector(models.inactivity, smart_turn, beside, self.options.vad_threshold)
        self._heard = 0  # windows that Silero has judged
        self._floor = 0  # no segment starts before this place (16 kHz)
        self._speech_end = 0  # where the last window with speech ended
        self._opened = 0  # where the gate did
        self._turn_start: int | None = None
        self._lost = 0  # samples of a gap that do not fill a step
        self.step_idx = 0

    # ---- what a shell may ask -------------------------------------------------------------------
    @property
    def speaking(self) -> bool:
        """Somebody speaks, as far as the voice gate can tell."""
        return self._gate.is_open

    @property
    def dropped(self) -> Counter[str]:
        """Text that guards withheld, by reason."""
        return self._recogniser.dropped

    @property
    def decoder_runs(self) -> int:
        """Decoder runs of finished segments: 0 in silence."""
        return self._recogniser.runs

    # ---- audio ----------------------------------------------------------------------------------
    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        """One step: int16[1920], 24 kHz mono -> its words, then exactly one `step`, then `turn`s.

        `behind` tells that more audio waits: the recogniser then updates in larger chunks, for
        less CPU time and fewer mistakes (of a file 13.6 % of words wrong in place of 14.3 %).
        Raises ValueError for another length.
        """
        if len(frame) != STEP_SAMPLES:
            raise ValueError(f"a frame has {STEP_SAMPLES} samples, not {len(frame)}")
        audio = self._resampler.resample_chunk(frame.astype(np.float32) / 32768)
        self._history.append(audio)
        probabilities = self._silero.push(audio)
        words = []
        for probability in probabilities:
            words += self._window(probability)
        words += self._listen(backlog)
        self._second_pass()
        inactivity = self.judge.push(probabilities, self._belief(), self._turn_audio)
        if self._turn_is_over():
            words += self._end_turn()
        elif self._turn_s > LONGEST_TURN_S and self._turns.is_whole:
            self._close_turn(self._recogniser.start)
        events = _said(words)
        events.append(Step(self.step_idx, inactivity))
        self.step_idx += 1
        return events + self._ready_turns()

    def gap(self, samples: int) -> list[Event]:
        """`samples` (24 kHz) were lost: stream time goes on, each whole step is still given.

        The audio on both sides is not joined: the open segment ends at the gap.
        """
        self._lost += samples
        if self._lost < STEP_SAMPLES:
            return []
        events = _said(self._end_segment())
        silence = np.zeros(STEP_SAMPLES, np.int16)
        while self._lost >= STEP_SAMPLES:
            self._lost -= STEP_SAMPLES
            events += self.push(silence)
        return events

    def flush(self, flush_id: int | str) -> list[Event]:
        """All words of the audio so far, then `flushed`. No later text is about that audio."""
        events = _said(self._end_segment())
        self._floor = self._history.end
        self._recogniser.not_before(self.step_idx * STEP_S)
        return [*events, Flushed(flush_id)]

    def finish(self) -> list[Event]:
        """The words of the audio so far, and the open turn is over; `end` gives it."""
        return _said(self._end_turn())

    def end(self, timeout_s: float | None = None) -> list[Event]:
        """All that is left, an open turn included, then `end_of_stream`. A turn that would need
        more than that time (None: any) has the words as they were said."""
        events = self.finish()
        turns = self._turns.all(timeout_s)
        return [*events, *(turns if self.options.turns else []), EndOfStream()]

    def configure(self, options: Options) -> None:
        """New options: the gate's and the turn's at once, the recogniser's from the next
        segment on."""
        self.options = options
        self._gate.enter = options.vad_threshold
        self.judge.set_threshold(options.vad_threshold)
        self._recogniser.options = options

    # ---- the steps of a step --------------------------------------------------------------------
    def _window(self, probability: float) -> list[Word]:
        """32 ms of voice probability: segments begin and end here."""
        self._heard += 1
        place = self._heard * WINDOW
        self._gate.close_s = self._hush()
        change = self._gate.push(probability)
        if self._gate.is_open and self._gate.silence_s == 0.0:
            self._speech_end = place
        if change == "open":
            onset = place - self._gate.onset_windows * WINDOW
            start = max(onset - int(PRE_ROLL_S * RATE), self._floor, self._history.start, 0)
            self._opened = place
            self._recogniser.begin(start)
            if self._turn_start is None:
                self._turn_start = start
        elif change == "close" or self._only_murmur(place):
            return self._end_segment()
        return []

    def _only_murmur(self, place: int) -> bool:
        """The gate is held open by what is no speech: it would be read when some comes, all at
        once and late."""
        waited = place - self._opened > SHORT_S * RATE
        return self._gate.is_open and waited and not self._has_speech

    @property
    def _has_speech(self) -> bool:
        """There was more than a click since the gate opened."""
        return self._gate.speech_windows >= MIN_SPEECH_WINDOWS

    def _hush(self) -> float:
        """Seconds of silence that end a segment: fewer as it grows, so that it ends in a pause
        and is not cut between two words."""
        age = self._recogniser.age_s
        return float(np.interp(age, HUSH_AGE_S, HUSH_S))

    def _listen(self, backlog: bool) -> list[Word]:
        if not self._recogniser.is_open:
            return []
        hang = self._speech_end + int(HANGOVER_S * RATE)
        pause = self._history.end > hang
        if not self._has_speech:
            return []
        until = min(self._history.end, hang)
        words = self._recogniser.advance(
            self._history, until, backlog, pause, self._gate.voice_uncertainty
        )
        self._say(words)
        return words

    def _say(self, words: list[Word]) -> None:
        if self.options.turns:
            self._turns.say(words)

    def _end_segment(self) -> list[Word]:
        """Words of the open segment; it ends shortly behind the last speech."""
        self._gate.shut()
        if not self._recogniser.is_open:
            return []
        if not self._has_speech:
            self._recogniser.dropped["short"] += 1
            self._recogniser.drop()
            return []
        stop = min(self._history.end, self._speech_end + int(HANGOVER_S * RATE))
        words = self._recogniser.finish(self._history, stop, self._gate.voice_uncertainty)
        # the silence behind this segment may well be the next one's beginning
        self._floor = max(self._floor, min(stop, self._speech_end + 2 * WINDOW))
        self._say(words)
        self._second_pass()
        return words

    def _second_pass(self) -> None:
        """Each finished segment is decoded once more, for the turn's text, if that is wanted."""
        while self._recogniser.finished:
            span = self._recogniser.finished.pop(0)
            if not self.options.turns:
                continue
            samples = self._history.read(span.start, span.stop).copy()
            models = self._models
            work = partial(transcribe, models.graphs, models.vocabulary, samples, span.tokens)
            self._turns.add(span.start, work, span.voice_uncertainty)

    def _belief(self) -> TextEvidence | None:
        """What the recogniser makes of the words before a pause."""
        hypothesis = self._recogniser.hypothesis
        if hypothesis is None or not self._gate.silence_s:
            return None
        text = self._models.vocabulary.text(hypothesis.tokens)
        return belief_of(text, hypothesis.p_end, (hypothesis.probability or [0.0])[-1])

    def _turn_audio(self) -> NDArray[np.float32]:
        """The open turn so far, as far as it is still here."""
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
        return self.judge.is_over(endpoint)

    def _end_turn(self) -> list[Word]:
        words = self._end_segment()
        self._close_turn(None)
        return words

    def _close_turn(self, next_start: int | None) -> None:
        """next_start: where the segment began that is open, and belongs to the next turn."""
        self._turns.close()
        self._turn_start = next_start
        self.judge.turn_over()

    def _ready_turns(self) -> list[Event]:
        turns = self._turns.ready()
        return list(turns) if self.options.turns else []


def _said(words: list[Word]) -> list[Event]:
    events: list[Event] = []
    for word in words:
        events += [Text(word.text, word.start_s), EndText(word.stop_s)]
    return events
