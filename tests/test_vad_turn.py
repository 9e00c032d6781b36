"""Smart Turn: when it is asked, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edged.models.loader import load
from edged.vad.turn import ASK_AFTER_S, Asker, SmartTurn

SENTENCE = Path(__file__).parents[1] / "models" / "samples" / "mister-hale.flac"
Floats = NDArray[np.float32]


class Scripted(SmartTurn):
    """Answers what the script says, or raises it."""

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)
        self.heard: list[int] = []

    def probability(self, x: Floats) -> float:
        self.heard.append(len(x))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Later(Executor):
    """Does the work when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        for future, job in self.waiting:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except Exception as problem:
                future.set_exception(problem)
        self.waiting.clear()


def audio() -> Floats:
    return np.zeros(1000, np.float32)


def pause(asker: Asker, seconds: float) -> float | None:
    """Pushes steps of silence up to `seconds`; the last answer."""
    answer = None
    for step in range(1, round(seconds / 0.08) + 1):
        answer = asker.push(step * 0.08, 1.0, audio)
    return answer


def test_it_is_asked_when_speech_has_just_stopped_and_again_while_the_pause_lasts() -> None:
    later, smart_turn = Later(), Scripted(0.9, 0.5)
    asker = Asker(smart_turn, later)
    assert asker.push(0.0, 1.0, audio) is None
    assert asker.push(ASK_AFTER_S[0] - 0.01, 1.0, audio) is None
    assert asker.asked == 0
    assert asker.push(ASK_AFTER_S[0], 1.0, audio) is None
    later.work()
    assert asker.push(0.4, 1.0, audio) == 0.9
    asker.push(ASK_AFTER_S[1], 1.0, audio)
    later.work()
    assert pause(asker, 5.0) == pytest.approx(0.7), "the mean of both answers"
    assert asker.asked == 2, "no more than that in one pause"


def test_an_answer_about_a_pause_that_is_over_is_thrown_away() -> None:
    later = Later()
    asker = Asker(Scripted(0.9, 0.2), later)
    asker.push(0.3, 1.0, audio)
    asker.push(0.0, 1.5, audio)
    later.work()
    assert asker.push(0.1, 1.5, audio) is None
    asker.push(0.3, 1.5, audio)
    later.work()
    assert asker.push(0.4, 1.5, audio) == 0.9, "the cancelled question was never run"


def test_never_more_than_one_question_is_open() -> None:
    later = Later()
    asker = Asker(Scripted(0.5, 0.5), later)
    pause(asker, 3.0)
    assert len(later.waiting) == 1


def test_nothing_is_asked_without_speech_and_without_a_model() -> None:
    smart_turn = Scripted()
    asker = Asker(smart_turn, Later())
    for silence in (None, 0.0, 0.5, 1.0):
        assert asker.push(silence, 0.0, audio) is None
    assert smart_turn.heard == []
    assert pause(Asker(None, Later()), 2.0) is None


def test_an_error_is_counted_and_no_answer() -> None:
    later = Later()
    asker = Asker(Scripted(RuntimeError("out of memory"), 0.6), later)
    asker.push(0.3, 1.0, audio)
    later.work()
    assert asker.push(0.4, 1.0, audio) is None
    assert asker.failures == 1
    asker.push(0.9, 1.0, audio)
    later.work()
    assert asker.push(1.0, 1.0, audio) == 0.6


def test_the_audio_it_gets_is_its_own() -> None:
    """The session's ring moves on while the question waits."""
    later = Later()
    kept: list[Floats] = []

    class Keeps(Scripted):
        def probability(self, x: Floats) -> float:
            kept.append(x)
            return 0.5

    ring = np.ones(100, np.float32)
    Asker(Keeps(), later).push(0.3, 1.0, lambda: ring)
    ring[:] = 7
    later.work()
    assert kept[0].max() == 1


def test_a_sentence_sounds_complete_at_its_end_and_not_in_its_middle() -> None:
    session = load().smart_turn
    assert session is not None
    smart_turn = SmartTurn(session)
    x, rate = soundfile.read(SENTENCE, dtype="float32")
    rest = np.zeros(rate // 5, np.float32)
    whole = smart_turn.probability(np.append(x, rest))
    broken = smart_turn.probability(np.append(x[: 3 * rate], rest))
    assert broken < 0.5 < whole
    assert smart_turn.run_time_s() > 0
