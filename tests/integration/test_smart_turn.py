"""Smart Turn: when it is asked, and what becomes of its answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edged import STEP_S
from edged.models.loader import load
from edged.vad.log_mel import RATE
from edged.vad.smart_turn import (
    ASK_AFTER_S,
    EVERY_S,
    HEARS_S,
    SAVED,
    UNSURE,
    SmartTurn,
    SmartTurnScheduler,
)

SENTENCE = Path(__file__).parents[2] / "models" / "samples" / "mister-hale.flac"
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
    return np.zeros(2 * RATE, np.float32)


def step(asker: SmartTurnScheduler, silence_s: float | None, settled: bool = False) -> float | None:
    return asker.push(silence_s, 1.0, settled, audio)


def pause(asker: SmartTurnScheduler, seconds: float, later: Later | None = None) -> float | None:
    """Pushes a step of speech and steps of silence up to `seconds`; the last answer."""
    answer = step(asker, 0.0)
    for number in range(1, round(seconds / STEP_S) + 1):
        if later:
            later.work()
        answer = step(asker, number * STEP_S)
    return answer


def test_it_is_asked_when_speech_has_just_stopped_and_again_while_the_pause_lasts() -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(0.3, 0.5), later)
    assert step(asker, 0.0) is None
    assert step(asker, ASK_AFTER_S[0] - 0.01) is None
    assert asker.asked == 0
    assert step(asker, ASK_AFTER_S[0]) is None
    later.work()
    assert step(asker, 0.4) == 0.3
    step(asker, ASK_AFTER_S[1])
    later.work()
    assert pause(asker, 0.0) is None, "somebody spoke: what was answered is forgotten"
    assert asker.asked == 2


@pytest.mark.parametrize("sure", [UNSURE[0] - 0.01, UNSURE[1] + 0.01])
def test_a_sure_answer_is_not_asked_about_again(sure: float) -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(sure), later)
    assert pause(asker, 5.0, later) == sure
    assert asker.asked == 1


def test_an_unsure_answer_counts_half_once_there_is_a_second_and_there_is_no_third() -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(0.3, 0.5), later)
    assert pause(asker, 5.0, later) == pytest.approx(0.4), "the mean of both answers"
    assert asker.asked == 2


def test_it_is_not_asked_what_other_evidence_says_already_nor_in_a_turn_that_is_closed() -> None:
    asker = SmartTurnScheduler(Scripted(0.5, 0.5), Later())
    assert step(asker, 0.5, settled=True) is None
    asker.turn_over()
    assert pause_goes_on(asker) == 0
    step(asker, 0.0)
    step(asker, 0.5)
    assert asker.asked == 1, "the next turn's first pause"


def pause_goes_on(asker: SmartTurnScheduler) -> int:
    for number in range(10):
        step(asker, 0.6 + number * STEP_S)
    return asker.asked


def test_questions_are_rationed_in_fast_speech_and_saved_up_in_silence() -> None:
    """Read speech pauses every two seconds; an answer costs 0.08 s of CPU."""
    later = Later()
    asker = SmartTurnScheduler(Scripted(*[0.9] * 200), later)
    pauses = 150  # of 0.8 s each
    for _ in range(pauses):
        pause(asker, 0.8, later)
    seconds = pauses * 11 * STEP_S
    assert seconds / EVERY_S - 2 <= asker.asked <= seconds / EVERY_S + SAVED
    before = asker.asked
    pause(asker, 60.0, later)
    for _ in range(4):
        pause(asker, 0.8, later)
    assert asker.asked - before <= SAVED + 1, "a rest saves up a few, not many"
    assert asker.asked - before >= SAVED


def test_an_answer_about_a_pause_that_is_over_is_thrown_away() -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(0.9, 0.2), later)
    step(asker, 0.3)
    step(asker, 0.0)
    later.work()
    assert step(asker, 0.1) is None
    step(asker, 0.3)
    later.work()
    assert step(asker, 0.4) == 0.9, "the cancelled question was never run"


def test_it_hears_little_of_the_silence_however_late_it_is_asked() -> None:
    """With a second of silence behind it, a sentence broken off in its middle sounded complete."""
    later, smart_turn = Later(), Scripted(0.3, 0.5)
    pause(SmartTurnScheduler(smart_turn, later), 0.9, later)
    for length, asked_s, hears_s in zip(smart_turn.heard, (0.32, 0.8), HEARS_S, strict=True):
        assert 2 - length / RATE == pytest.approx(asked_s - hears_s, abs=0.01)


def test_without_audio_it_is_not_asked() -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(), later)
    asker.push(0.5, 1.0, False, lambda: np.zeros(100, np.float32))
    assert (asker.asked, later.waiting) == (0, [])


def test_never_more_than_one_question_is_open() -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(0.5, 0.5), later)
    pause(asker, 3.0)
    assert len(later.waiting) == 1


def test_nothing_is_asked_without_speech_and_without_a_model() -> None:
    smart_turn = Scripted()
    asker = SmartTurnScheduler(smart_turn, Later())
    for silence in (None, 0.0, 0.5, 1.0):
        assert asker.push(silence, 0.0, False, audio) is None
    assert smart_turn.heard == []
    assert pause(SmartTurnScheduler(None, Later()), 2.0) is None


def test_an_error_is_counted_and_no_answer() -> None:
    later = Later()
    asker = SmartTurnScheduler(Scripted(RuntimeError("out of memory"), 0.6), later)
    step(asker, 0.3)
    later.work()
    assert step(asker, 0.4) is None
    assert asker.failures == 1
    step(asker, 0.9)
    later.work()
    assert step(asker, 1.0) == 0.6


def test_the_audio_it_gets_is_its_own() -> None:
    """The session's ring moves on while the question waits."""
    later = Later()
    kept: list[Floats] = []

    class Keeps(Scripted):
        def probability(self, x: Floats) -> float:
            kept.append(x)
            return 0.5

    ring = np.ones(RATE, np.float32)
    SmartTurnScheduler(Keeps(), later).push(0.3, 1.0, False, lambda: ring)
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


def test_an_answer_leaves_no_memory_behind() -> None:
    """Its arena, without which each of its tensors is mapped anew, would keep 15 MB for good."""
    script = """
import numpy as np, psutil
from edged.models.loader import load
from edged.vad.smart_turn import SAMPLES, SmartTurn
models = load()
smart_turn, rss = SmartTurn(models.smart_turn), psutil.Process().memory_info
before = rss().rss
for _ in range(3):
    smart_turn.probability(np.zeros(SAMPLES, np.float32))
print(rss().rss - before)
"""
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(ran.stdout) < 12e6
