"""The recogniser of one stream: opens, cuts and restarts segments; gives words in stream time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from edged.audio.sample_history import SampleHistory
from edged.events import Word
from edged.options import Options
from edged.stt.decoder import DecodedText
from edged.stt.family import RATE, SpeechModel, Tuning
from edged.stt.segment import Segment
from edged.stt.words import SegmentWord


@dataclass(frozen=True, slots=True)
class FinishedSegment:
    """A segment that has ended.

    start, stop: positions in the stream, samples at 16 kHz. tokens: of the first pass.
    voice_uncertainty: of the voice gate. options: with which it was recognised. language: that the
    first pass decoded.
    """

    start: int
    stop: int
    tokens: tuple[int, ...] = ()
    voice_uncertainty: float = 0.0
    options: Options = field(default_factory=Options)
    language: str = "en"


class Recogniser:
    """Recognises one stream, at most one segment at a time.

    `begin` opens a segment, `advance` is called as audio arrives, `finish` or `discard` closes it.
    """

    def __init__(self, model: SpeechModel, options: Options, tuning: Tuning | None = None) -> None:
        """tuning: replaces the one that suits the delay; for measuring."""
        self._model = model
        # These may be replaced at any time and count from the next segment on:
        self.options = options
        self.expected_language: str | None = None  # the one so far, if the options say `auto`
        self.greedy = False  # keep one hypothesis, whatever the tuning says, to save time
        self._fixed_tuning = tuning
        self._tuning = model.tuning(options.delay_in_frames)
        self._random = np.random.default_rng(options.seed)
        self._segment: Segment | None = None
        self._segment_options = options
        self._start = self._pushed = 0  # positions: start of the segment, end of what it was given
        self._earliest_s = 0.0  # no word starts earlier: the last word's start, or the last flush
        self.dropped: Counter[str] = Counter()
        self.finished: list[FinishedSegment] = []  # the caller removes them
        self.runs = 0  # decoder runs of finished segments

    @property
    def is_open(self) -> bool:
        """Whether there is an open segment."""
        return self._segment is not None

    @property
    def start(self) -> int | None:
        """Where the open segment starts, a position in the stream at 16 kHz; None without one."""
        return self._start if self._segment else None

    @property
    def age_s(self) -> float:
        """Seconds of audio in the open segment; 0 without one."""
        return self._segment.age_s if self._segment else 0.0

    @property
    def decoded(self) -> DecodedText | None:
        """The current text of the open segment."""
        return self._segment.decoded if self._segment else None

    def begin(self, start: int) -> None:
        """Opens a segment that starts at `start`, a position in the stream at 16 kHz."""
        self._tuning = self._fixed_tuning or self._model.tuning(self.options.delay_in_frames)
        if self.greedy:
            self._tuning = replace(self._tuning, beam_width=1)
        self._segment = Segment(
            self._model,
            self.options,
            self._tuning,
            self._random,
            self.dropped,
            self.expected_language,
        )
        self._segment_options = self.options
        self._start = self._pushed = start

    def advance(
        self,
        history: SampleHistory,
        until: int,
        backlog: bool = False,
        pause: bool = False,
        voice_uncertainty: float = 0.0,
    ) -> list[Word]:
        """Reads audio up to position `until` and returns the words that may be committed now.

        backlog: audio has piled up, so update in larger chunks. pause: speech has just stopped, so
        update at once and decode to the end of the text. voice_uncertainty: of the voice gate.
        """
        segment = self._segment
        if segment is None:
            return []
        self._push(segment, history, until)
        segment.voice_uncertainty = voice_uncertainty
        tuning = self._tuning
        needed = tuning.backlog_chunk_frames if backlog else 1 if pause else tuning.chunk_frames
        end_unknown = pause and not segment.decoded_to_end
        if segment.new_frames < needed and not end_unknown:
            return []
        words = self._in_stream_time(segment.update(pause=pause))
        if segment.is_looping:
            self.dropped["loop"] += 1
            self._cut(history, until, segment.committed_s or segment.age_s)
        elif segment.age_s > tuning.max_segment_s:
            if segment.committed_s < segment.overdue_s:
                words += self._in_stream_time(segment.commit_overdue())
            self._cut(history, until, max(segment.committed_s, segment.overdue_s))
        return words

    def finish(
        self, history: SampleHistory, until: int, voice_uncertainty: float = 0.0
    ) -> list[Word]:
        """Closes the segment at position `until` and returns all its remaining words."""
        segment = self._segment
        if segment is None:
            return []
        self._push(segment, history, until)
        segment.voice_uncertainty = voice_uncertainty
        words = self._in_stream_time(segment.update(last=True))
        self._close(segment, self._pushed)
        return words

    def set_earliest_start(self, seconds: float) -> None:
        """Words that are still to come start at this stream time or later."""
        self._earliest_s = max(self._earliest_s, seconds)

    def discard(self) -> None:
        """Closes the open segment without its words: it was not speech."""
        if self._segment is not None:
            self.runs += self._segment.runs
            self._segment = None

    def _push(self, segment: Segment, history: SampleHistory, until: int) -> None:
        if until > self._pushed:
            samples = history.read(self._pushed, until)
            gone = until - self._pushed - len(samples)  # too late for it: silence keeps its place
            segment.push(np.pad(samples, (gone, 0)) if gone else samples)
            self._pushed = until

    def _close(self, segment: Segment, stop: int) -> None:
        self.runs += segment.runs
        tokens = tuple(segment.decoded.tokens)
        if stop > self._start:
            self.finished.append(
                FinishedSegment(
                    self._start,
                    stop,
                    tokens,
                    segment.voice_uncertainty,
                    self._segment_options,
                    segment.language,
                )
            )
        self._segment = None

    def _cut(self, history: SampleHistory, until: int, age_s: float) -> None:
        """Closes the segment where it was `age_s` old, and opens the next one there."""
        segment = self._segment
        assert segment is not None
        cut = max(self._start + int(age_s * RATE), history.start)
        self._close(segment, cut)
        self.begin(cut)
        assert self._segment is not None
        self._push(self._segment, history, until)

    def _in_stream_time(self, words: list[SegmentWord]) -> list[Word]:
        """The words in stream time. No word starts before the one before it or ends before it
        starts."""
        origin, frame_s = self._start / RATE, self._model.timing.frame_s
        placed = []
        for word in words:
            start = max(origin + word.start_s, self._earliest_s)
            stop = max(origin + word.stop_s, start + frame_s)
            placed.append(Word(word.text, start, stop))
            self._earliest_s = start
        return placed
