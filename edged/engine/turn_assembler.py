"""Assembles the segments of a turn into its `turn` event."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field

from edged.events import Turn, Word
from edged.languages import word_separator
from edged.stt.confidence import mean_probability
from edged.stt.digits import with_digits
from edged.stt.edge_words import with_edge_words
from edged.stt.second_pass import Transcript

RATE = 16_000


@dataclass(slots=True)
class _SegmentOfTurn:
    start: int  # place in the stream at 16 kHz
    language: str  # that the first pass decoded
    committed: tuple[Word, ...]  # by the first pass
    voice_uncertainty: float
    transcript: Future[Transcript] | None = None  # of the second pass; None before it was started

    @property
    def is_done(self) -> bool:
        return self.transcript is not None and self.transcript.done()


@dataclass(slots=True)
class _OpenTurn:
    segments: list[_SegmentOfTurn] = field(default_factory=list)
    committed: list[Word] = field(default_factory=list)  # by the first pass
    in_segments: int = 0  # of them, those in `segments`; the rest belongs to the open segment


@dataclass(frozen=True, slots=True)
class TurnStyle:
    """How the text of a turn is written.

    language: of words of which nothing else is known. digits: whether spoken numbers are written as
    digits.
    """

    language: str = "en"
    digits: bool = False


class TurnAssembler:
    """Collects the segments of each turn and gives its text once the second pass has decoded them.

    Bounded: the Session limits how long a turn grows, and few turns wait for their second pass.

    style: how the turns are written that are given from now on; may be replaced at any time.
    hold: whether second passes wait until `start_held` is called.
    """

    def __init__(
        self,
        executor: Executor,
        dropped: Counter[str],
        on_result: Callable[[], None] | None = None,
    ) -> None:
        """executor: runs the second passes.
        dropped: counts words that were withheld and second passes that failed, by reason.
        on_result: called on the executor's thread when a second pass is done.
        """
        self._executor = executor
        self._dropped = dropped
        self._on_result = on_result
        self.style = TurnStyle()
        self.hold = False
        self._held: list[tuple[_SegmentOfTurn, Callable[[], Transcript]]] = []
        self._open = _OpenTurn()
        self._closed: deque[_OpenTurn] = deque()

    @property
    def is_whole(self) -> bool:
        """Whether all committed words of the open turn belong to segments that have ended."""
        return self._open.in_segments == len(self._open.committed)

    @property
    def is_empty(self) -> bool:
        """Whether no closed turn waits for its second pass."""
        return not self._closed

    def add_words(self, words: Sequence[Word]) -> None:
        """Adds words that the first pass committed to the open turn."""
        self._open.committed += words

    def add_segment(
        self,
        start: int,
        second_pass: Callable[[], Transcript],
        voice_uncertainty: float = 0.0,
        language: str | None = None,
    ) -> None:
        """Adds a segment that has ended to the open turn and starts its second pass, or holds it.

        start: its place in the stream at 16 kHz. All of its words must have been added.
        voice_uncertainty: see `edged.vad.gate.Gate.voice_uncertainty`. language: that the first
        pass decoded; None for that of `style`.
        """
        turn = self._open
        committed = tuple(turn.committed[turn.in_segments :])
        turn.in_segments = len(turn.committed)
        language = language or self.style.language
        segment = _SegmentOfTurn(start, language, committed, voice_uncertainty)
        turn.segments.append(segment)
        self._held.append((segment, second_pass))
        if not self.hold:
            self.start_held()

    def start_held(self) -> None:
        """Starts the second passes that were held. Each is forgotten with the audio that it holds
        once it is done, while its turn may go on."""
        while self._held:
            segment, second_pass = self._held.pop(0)
            segment.transcript = self._executor.submit(second_pass)
            segment.transcript.add_done_callback(self._notify)

    def close(self) -> None:
        """Closes the open turn: the speaker has finished."""
        if self._open.segments or self._open.committed:
            self._closed.append(self._open)
        self._open = _OpenTurn()

    def cancel(self) -> None:
        """Cancels the second passes that have not begun. Nothing is given any more."""
        for turn in (*self._closed, self._open):
            for segment in turn.segments:
                if segment.transcript is not None:
                    segment.transcript.cancel()
        self._closed.clear()
        self._held.clear()
        self._open = _OpenTurn()

    def pop_finished(self) -> list[Turn]:
        """Returns the closed turns whose second pass is done, in order; none without a word."""
        turns = []
        while self._closed and _is_done(self._closed[0]):
            turn = self._join(self._closed.popleft())
            if turn is not None:
                turns.append(turn)
        return turns

    def pop_all(self, timeout_s: float | None = None) -> list[Turn]:
        """Waits for the second passes and returns all closed turns.

        After `timeout_s` (None: however long it takes), a turn whose second pass is not done gets
        the words that the first pass committed.
        """
        self.start_held()
        waited = [s.transcript for turn in self._closed for s in turn.segments]
        wait([transcript for transcript in waited if transcript is not None], timeout_s)
        turns = [
            self._join(t) if _is_done(t) else self._turn(t.committed, None, _committed_in(t))
            for t in self._closed
        ]
        self._closed.clear()
        return [turn for turn in turns if turn is not None]

    def _notify(self, _: Future[Transcript]) -> None:
        if self._on_result is not None:
            self._on_result()

    def _join(self, turn: _OpenTurn) -> Turn | None:
        words: list[Word] = []
        probability: list[float] = []
        languages: Counter[str] = Counter()  # words in each
        for segment in turn.segments:
            assert segment.transcript is not None
            language, before = segment.language, len(words)
            if segment.transcript.exception() is not None:
                self._dropped["failed_in_turn"] += 1
                words += segment.committed
                languages[language] += len(words) - before
                continue
            transcript = segment.transcript.result()
            if transcript.is_cut:
                self._dropped["loop_in_turn"] += 1
            origin = segment.start / RATE
            heard = [Word(w.text, origin + w.start_s, origin + w.stop_s) for w in transcript.words]
            if transcript.low_confidence(segment.voice_uncertainty):
                self._dropped["unsure_in_turn"] += len(heard)
                words += segment.committed  # the first pass was sure of these
            else:
                language = transcript.language or language
                same = language == segment.language
                words += with_edge_words(segment.committed if same else (), heard)
                probability += transcript.probabilities
            languages[language] += len(words) - before
        words += turn.committed[turn.in_segments :]  # whose segment the recogniser did not end
        confidence = mean_probability(probability) if probability else None
        return self._turn(words, confidence, languages)

    def _turn(
        self, words: Sequence[Word], confidence: float | None, languages: Counter[str]
    ) -> Turn | None:
        """The event; None without words. languages: how many of the words are in each."""
        if not words:
            return None
        language = languages.most_common(1)[0][0] if languages else self.style.language
        if self.style.digits:
            words = with_digits(words, language)
        text = word_separator(language).join(word.text for word in words)
        return Turn(text, words[0].start_s, words[-1].stop_s, tuple(words), confidence, language)


def _committed_in(turn: _OpenTurn) -> Counter[str]:
    """How many words of the first pass are in which language."""
    return Counter(s.language for s in turn.segments for _ in s.committed)


def _is_done(turn: _OpenTurn) -> bool:
    return all(segment.is_done for segment in turn.segments)
