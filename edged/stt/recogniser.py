"""The recogniser of one stream: opens, cuts and restarts segments; words in stream time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from edged.audio.sample_history import SampleHistory
from edged.events import Word
from edged.options import Options
from edged.stt.commit import HeardWord
from edged.stt.decoder import Hypothesis
from edged.stt.moonshine.graphs import FRAME_S, Graphs
from edged.stt.moonshine.vocabulary import Vocabulary
from edged.stt.segment import Segment, Tuning, tuning_for

RATE = 16_000
_LATE_CHUNK = 40  # frames an update covers at least when audio has piled up


@dataclass(frozen=True, slots=True)
class Span:
    """A finished segment: places in the stream at 16 kHz.

    tokens: what the first pass believed. doubt: that there was a voice.
    """

    start: int
    stop: int
    tokens: tuple[int, ...] = ()
    voice_uncertainty: float = 0.0


class Recogniser:
    """At most one segment at a time. `begin`, then `advance` as audio comes, then `finish`."""

    def __init__(
        self,
        graphs: Graphs,
        vocabulary: Vocabulary,
        options: Options,
        tuning: Tuning | None = None,
    ) -> None:
        """`tuning`: in place of what suits the delay (to measure)."""
        self._graphs, self._vocabulary = graphs, vocabulary
        self.options = options  # new ones count from the next segment on
        self._forced = tuning
        self._tuning = tuning_for(options.delay_in_frames)
        self._random = np.random.default_rng(options.seed)
        self._segment: Segment | None = None
        self._start = self._read = 0
        self._floor_s = 0.0  # no word starts earlier: the last one's start, or the last flush
        self.dropped: Counter[str] = Counter()
        self.finished: list[Span] = []  # segments that ended; the caller empties it
        self.runs = 0  # decoder runs of finished segments

    @property
    def is_open(self) -> bool:
        return self._segment is not None

    @property
    def start(self) -> int | None:
        """Where the open segment starts, a place in the stream at 16 kHz; None without one."""
        return self._start if self._segment else None

    @property
    def age_s(self) -> float:
        """Of the open segment; 0 without one."""
        return self._segment.age_s if self._segment else 0.0

    @property
    def hypothesis(self) -> Hypothesis | None:
        """What is believed of the open segment."""
        return self._segment.hypothesis if self._segment else None

    def begin(self, start: int) -> None:
        """A segment starts at `start`, a place in the stream at 16 kHz."""
        self._tuning = self._forced or tuning_for(self.options.delay_in_frames)
        self._segment = Segment(
            self._graphs,
            self._vocabulary,
            self.options,
            self._tuning,
            self._random,
            self.dropped,
        )
        self._start = self._read = start

    def advance(
        self,
        history: SampleHistory,
        until: int,
        backlog: bool = False,
        pause: bool = False,
        voice_uncertainty: float = 0.0,
    ) -> list[Word]:
        """Reads audio up to `until`; returns the words that may be said now.

        behind: audio has piled up, so update in larger chunks. pause: speech has just stopped,
        so read at once, to the end. doubt: the voice gate's, that this is a voice.
        """
        segment = self._segment
        if segment is None:
            return []
        self._push(segment, history, until)
        segment.voice_uncertainty = voice_uncertainty
        due = _LATE_CHUNK if backlog else 1 if pause else self._tuning.chunk
        unread = pause and not segment.read_to_end
        if segment.due < due and not unread:
            return []
        words = self._placed(segment.update(pause=pause))
        if segment.stuck:
            self.dropped["loop"] += 1
            self._again(history, until, segment.said_s or segment.age_s)
        elif segment.age_s > self._tuning.longest_s:
            if segment.said_s < segment.overdue_s:
                words += self._placed(segment.give_up())
            self._again(history, until, max(segment.said_s, segment.overdue_s))
        return words

    def finish(
        self, history: SampleHistory, until: int, voice_uncertainty: float = 0.0
    ) -> list[Word]:
        """The segment ends at `until`: all its words."""
        segment = self._segment
        if segment is None:
            return []
        self._push(segment, history, until)
        segment.voice_uncertainty = voice_uncertainty
        words = self._placed(segment.update(last=True))
        self._close(segment, self._read)
        return words

    def not_before(self, seconds: float) -> None:
        """Words that are still to come start at this stream time or later."""
        self._floor_s = max(self._floor_s, seconds)

    def drop(self) -> None:
        """Forgets the open segment: it was not speech."""
        if self._segment is not None:
            self.runs += self._segment.runs
            self._segment = None

    def _push(self, segment: Segment, history: SampleHistory, until: int) -> None:
        if until > self._read:
            segment.push(history.read(self._read, until))
            self._read = until

    def _close(self, segment: Segment, stop: int) -> None:
        self.runs += segment.runs
        tokens = tuple(segment.hypothesis.tokens)
        if stop > self._start:
            self.finished.append(Span(self._start, stop, tokens, segment.voice_uncertainty))
        self._segment = None

    def _again(self, history: SampleHistory, until: int, age_s: float) -> None:
        """Ends the segment where it was `age_s` old, and begins the next one there."""
        segment = self._segment
        assert segment is not None
        cut = max(self._start + int(age_s * RATE), history.start)
        self._close(segment, cut)
        self.begin(cut)
        self._push(self._segment, history, until)  # type: ignore[arg-type]

    def _placed(self, words: list[HeardWord]) -> list[Word]:
        """Stream time; a word does not start before the one before it, nor end before it starts."""
        origin = self._start / RATE
        placed = []
        for word in words:
            start = max(origin + word.start_s, self._floor_s)
            stop = max(origin + word.stop_s, start + FRAME_S)
            placed.append(Word(word.text, start, stop))
            self._floor_s = start
        return placed
