"""Collects the segments of a turn; gives the `turn` once each was decoded a second time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from edged.events import Turn, Word
from edged.stt.commit import UNSURE, mean_probability
from edged.stt.second_pass import Transcript

RATE = 16_000


class Inline(Executor):
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
    transcript: Future[Transcript]


@dataclass(slots=True)
class _OpenTurn:
    pieces: list[_Piece] = field(default_factory=list)


class Turns:
    """Bounded: a turn has as many pieces as its cap allows, and few turns wait at a time."""

    def __init__(self, beside: Executor, dropped: Counter[str]) -> None:
        """`dropped` counts words that were withheld, by reason; it is the caller's."""
        self._beside = beside
        self._dropped = dropped
        self._open = _OpenTurn()
        self._ended: deque[_OpenTurn] = deque()

    @property
    def has_speech(self) -> bool:
        return bool(self._open.pieces)

    def add(self, start: int, work: Callable[[], Transcript]) -> None:
        """A segment that started at `start` (16 kHz) belongs to the open turn."""
        self._open.pieces.append(_Piece(start, self._beside.submit(work)))

    def close(self) -> None:
        """The speaker has finished."""
        if self._open.pieces:
            self._ended.append(self._open)
            self._open = _OpenTurn()

    def ready(self, wait: bool = False) -> list[Turn]:
        """Turns whose second pass is done, in order. Turns without a word are left out."""
        done = []
        while self._ended and (
            wait or all(piece.transcript.done() for piece in self._ended[0].pieces)
        ):
            turn = self._joined(self._ended.popleft())
            if turn is not None:
                done.append(turn)
        return done

    def _joined(self, turn: _OpenTurn) -> Turn | None:
        words: list[Word] = []
        probability: list[float] = []
        for piece in turn.pieces:
            transcript = piece.transcript.result()
            if mean_probability(transcript.probability) < UNSURE:
                self._dropped["unsure_in_turn"] += len(transcript.words)
                continue
            origin = piece.start / RATE
            words += [Word(w.text, origin + w.start_s, origin + w.stop_s) for w in transcript.words]
            probability += transcript.probability
        if not words:
            return None
        text = " ".join(word.text for word in words)
        confidence = mean_probability(probability)
        return Turn(text, words[0].start_s, words[-1].stop_s, tuple(words), confidence)
