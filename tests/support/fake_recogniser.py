"""A recogniser for sessions under test: it knows in advance what is said and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edged.audio.sample_history import SampleHistory
from edged.events import Word
from edged.options import Options
from edged.stt.decoder import DecodedText
from edged.stt.family import RATE
from edged.stt.recogniser import FinishedSegment
from edged.stt.second_pass import Transcript
from edged.stt.words import SegmentWord
from edged.vad.silero import WINDOW

DELAY_S = 0.8


class ScriptedVoice:
    """A voice detector that is sure of speech in the given spans (seconds) and of silence else."""

    def __init__(self, speech: Sequence[tuple[float, float]]) -> None:
        self.speech = speech
        self._samples = 0

    def push(self, x: NDArray[np.float32]) -> list[float]:
        first = self._samples // WINDOW
        self._samples += len(x)
        middles = ((n + 0.5) * WINDOW / RATE for n in range(first, self._samples // WINDOW))
        return [0.95 if any(a <= t < b for a, b in self.speech) else 0.02 for t in middles]


class FakeRecogniser:
    """Commits each word of a script once it has read DELAY_S beyond its end, or at the end of the
    segment in which the word begins.

    decoded: what it says about the text of a segment that was read up to a pause.
    """

    def __init__(self, script: Sequence[Word], decoded: DecodedText | None = None) -> None:
        self.script = script
        self.options = Options()
        self.greedy = False
        self.expected_language: str | None = None
        self.dropped: Counter[str] = Counter()
        self.finished: list[FinishedSegment] = []
        self.runs = 0
        self.fail_at: int | None = None  # place at which reading raises
        self.cut_s: float | None = None  # a segment older than this is cut behind its last word
        self.updates: list[tuple[int, int]] = []  # (from, to) of each read
        self._decoded = decoded
        self._segment_options = self.options
        self._start: int | None = None
        self._read = 0
        self._earliest_s = 0.0
        self._committed = 0  # words of the script that the open segment committed

    @property
    def is_open(self) -> bool:
        return self._start is not None

    @property
    def start(self) -> int | None:
        return self._start

    @property
    def age_s(self) -> float:
        return 0.0 if self._start is None else (self._read - self._start) / RATE

    @property
    def decoded(self) -> DecodedText | None:
        return None if self._start is None else self._decoded or DecodedText()

    def begin(self, start: int) -> None:
        assert self._start is None, "one segment at a time"
        self._segment_options = self.options
        self._start = self._read = start
        self._committed = sum(word.start_s * RATE < start for word in self.script)

    def advance(
        self,
        history: SampleHistory,
        until: int,
        backlog: bool = False,
        pause: bool = False,
        voice_uncertainty: float = 0.0,
    ) -> list[Word]:
        if self._start is None:
            return []
        self._read_to(history, until)
        words = self._commit(lambda word: word.stop_s + DELAY_S <= self._read / RATE)
        if self.cut_s is not None and self.age_s > self.cut_s and words:
            cut, read = int(words[-1].stop_s * RATE), self._read
            self.finished.append(self._finished(cut))
            self._start = None
            self.begin(cut)
            self._read = read
        return words

    def finish(
        self, history: SampleHistory, until: int, voice_uncertainty: float = 0.0
    ) -> list[Word]:
        if self._start is None:
            return []
        self._read_to(history, until)
        words = self._commit(lambda word: word.start_s < self._read / RATE)
        if self._read > self._start:
            self.finished.append(self._finished(self._read))
        self._start = None
        return words

    def set_earliest_start(self, seconds: float) -> None:
        self._earliest_s = seconds

    def discard(self) -> None:
        self._start = None

    def second_pass(self, samples: NDArray[np.float32], span: FinishedSegment) -> Transcript:
        """Words of the script that begin in the span; the audio must be all there."""
        assert len(samples) == span.stop - span.start
        origin = span.start / RATE
        words = [
            SegmentWord(w.text, w.start_s - origin, w.stop_s - origin, 0, 0.9)
            for w in self.script
            if span.start <= w.start_s * RATE < span.stop
        ]
        return Transcript(words, [0.9] * len(words))

    def _finished(self, stop: int) -> FinishedSegment:
        assert self._start is not None
        return FinishedSegment(self._start, stop, options=self._segment_options)

    def _read_to(self, history: SampleHistory, until: int) -> None:
        if until <= self._read:
            return
        if self.fail_at is not None and until >= self.fail_at:
            raise RuntimeError("scripted failure")
        assert len(history.read(self._read, until)) == until - self._read, "audio is gone"
        self.updates.append((self._read, until))
        self._read = until

    def _commit(self, is_due: Callable[[Word], bool]) -> list[Word]:
        words = []
        while self._committed < len(self.script) and is_due(self.script[self._committed]):
            word = self.script[self._committed]
            words.append(replace(word, start_s=max(word.start_s, self._earliest_s)))
            self._committed += 1
        return words
