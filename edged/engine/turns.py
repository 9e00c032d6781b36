"""Collects the segments of a turn; gives the `turn` once each was decoded a second time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field

from edged.events import Turn, Word
from edged.stt.commit import low_confidence, mean_probability
from edged.stt.edge_words import with_edge_words
from edged.stt.second_pass import Transcript

RATE = 16_000


class InlineExecutor(Executor):
    """Runs work at once in the caller, so that a run can be repeated exactly."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as problem:
            future.set_exception(problem)
        return future


@dataclass(slots=True)
class _Piece:
    start: int
    said: tuple[Word, ...]  # as committed
    voice_uncertainty: float  # that there was a voice
    transcript: Future[Transcript]


@dataclass(slots=True)
class _OpenTurn:
    pieces: list[_Piece] = field(default_factory=list)
    said: list[Word] = field(default_factory=list)  # as committed, should time run out
    in_pieces: int = 0  # of them, those of `pieces`; the rest is of the segment still open


class Turns:
    """Bounded: a turn has as many pieces as its cap allows, and few turns wait at a time."""

    def __init__(self, beside: Executor, dropped: Counter[str]) -> None:
        """`dropped` counts words that were withheld, and second passes that failed; it is the
        caller's."""
        self._beside = beside
        self._dropped = dropped
        self._open = _OpenTurn()
        self._ended: deque[_OpenTurn] = deque()

    @property
    def is_whole(self) -> bool:
        """All that was said of the open turn is of segments that have ended."""
        return self._open.in_pieces == len(self._open.said)

    def add(
        self, start: int, work: Callable[[], Transcript], voice_uncertainty: float = 0.0
    ) -> None:
        """A segment that started at `start` (16 kHz) belongs to the open turn: all of it has
        been said. doubt: that there was a voice (`edged.vad.gate.Gate.doubt`)."""
        turn = self._open
        said = tuple(turn.said[turn.in_pieces :])
        turn.in_pieces = len(turn.said)
        turn.pieces.append(_Piece(start, said, voice_uncertainty, self._beside.submit(work)))

    def say(self, words: Sequence[Word]) -> None:
        """Words of the open turn as they were committed."""
        self._open.said += words

    def close(self) -> None:
        """The speaker has finished."""
        if self._open.pieces:
            self._ended.append(self._open)
        self._open = _OpenTurn()

    def ready(self) -> list[Turn]:
        """Turns whose second pass is done, in order. Turns without a word are left out."""
        done = []
        while self._ended and _is_done(self._ended[0]):
            turn = self._joined(self._ended.popleft())
            if turn is not None:
                done.append(turn)
        return done

    def all(self, timeout_s: float | None = None) -> list[Turn]:
        """Every turn that has ended: at the end of all. Those whose second pass is not done in
        that time (None: however long it takes) have the words as they were committed."""
        wait([piece.transcript for turn in self._ended for piece in turn.pieces], timeout_s)
        turns = [self._joined(t) if _is_done(t) else _as_said(t) for t in self._ended]
        self._ended.clear()
        return [turn for turn in turns if turn is not None]

    def _joined(self, turn: _OpenTurn) -> Turn | None:
        words: list[Word] = []
        probability: list[float] = []
        for piece in turn.pieces:
            if piece.transcript.exception() is not None:
                self._dropped["failed_in_turn"] += 1
                words += piece.said
                continue
            transcript = piece.transcript.result()
            origin = piece.start / RATE
            heard = [Word(w.text, origin + w.start_s, origin + w.stop_s) for w in transcript.words]
            if low_confidence(transcript.probability, piece.voice_uncertainty):
                # what the first pass was sure of stands
                self._dropped["unsure_in_turn"] += len(heard)
                words += piece.said
            else:
                words += with_edge_words(piece.said, heard)
                probability += transcript.probability
        if not words:
            return None
        text = " ".join(word.text for word in words)
        confidence = mean_probability(probability) if probability else None
        return Turn(text, words[0].start_s, words[-1].stop_s, tuple(words), confidence)


def _is_done(turn: _OpenTurn) -> bool:
    return all(piece.transcript.done() for piece in turn.pieces)


def _as_said(turn: _OpenTurn) -> Turn | None:
    words = tuple(turn.said)
    if not words:
        return None
    return Turn(" ".join(w.text for w in words), words[0].start_s, words[-1].stop_s, words)
