"""When Smart Turn runs, and what becomes of its answers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edged import STEP_S
from edged.audio.mel import RATE
from edged.vad.smart_turn import (
    MAX_TOKENS,
    RUN_AFTER_S,
    RUN_INTERVAL_S,
    SILENCE_KEPT_S,
    UNSURE,
    SmartTurn,
    SmartTurnScheduler,
)
from tests.support.executors import ManualExecutor

Floats = NDArray[np.float32]


class ScriptedSmartTurn(SmartTurn):
    """Gives the answers of a script, or raises them, and keeps its inputs."""

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)
        self.inputs: list[Floats] = []

    def probability(self, x: Floats) -> float:
        self.inputs.append(x)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def audio() -> Floats:
    return np.zeros(2 * RATE, np.float32)


def push(
    scheduler: SmartTurnScheduler, silence_s: float | None, conclusive: bool = False
) -> float | None:
    return scheduler.push(silence_s, 1.0, conclusive, audio)


def push_pause(
    scheduler: SmartTurnScheduler, seconds: float, executor: ManualExecutor | None = None
) -> float | None:
    """Pushes a step of speech, then silence for `seconds`; returns the last answer."""
    answer = push(scheduler, 0.0)
    for number in range(1, round(seconds / STEP_S) + 1):
        if executor:
            executor.run_all()
        answer = push(scheduler, number * STEP_S)
    return answer


def test_it_runs_when_speech_has_just_stopped_and_again_while_the_pause_lasts() -> None:
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(0.3, 0.5), executor)
    assert push(scheduler, 0.0) is None
    assert push(scheduler, RUN_AFTER_S[0] - 0.01) is None
    assert scheduler.runs == 0
    assert push(scheduler, RUN_AFTER_S[0]) is None
    executor.run_all()
    assert push(scheduler, 0.4) == 0.3
    push(scheduler, RUN_AFTER_S[1])
    executor.run_all()
    assert push_pause(scheduler, 0.0) is None, "speech ends the pause and discards its answers"
    assert scheduler.runs == 2


@pytest.mark.parametrize("sure", [UNSURE[0] - 0.01, UNSURE[1] + 0.01])
def test_a_sure_answer_is_not_followed_by_a_second_run(sure: float) -> None:
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(sure), executor)
    assert push_pause(scheduler, 5.0, executor) == sure
    assert scheduler.runs == 1


def test_after_an_unsure_answer_the_mean_of_two_counts_and_there_is_no_third_run() -> None:
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(0.3, 0.5), executor)
    assert push_pause(scheduler, 5.0, executor) == pytest.approx(0.4)
    assert scheduler.runs == 2


def test_it_does_not_run_where_other_evidence_is_conclusive_or_the_turn_is_closed() -> None:
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(0.5, 0.5), ManualExecutor())
    assert push(scheduler, 0.5, conclusive=True) is None
    scheduler.turn_closed()
    for number in range(10):
        push(scheduler, 0.6 + number * STEP_S)
    assert scheduler.runs == 0
    push(scheduler, 0.0)
    push(scheduler, 0.5)
    assert scheduler.runs == 1, "the next turn's first pause"


def test_it_does_not_run_while_switched_off() -> None:
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(0.5), ManualExecutor())
    scheduler.enabled = False
    push_pause(scheduler, 2.0)
    assert scheduler.runs == 0
    scheduler.enabled = True
    push_pause(scheduler, 2.0)
    assert scheduler.runs == 1


def test_runs_are_limited_in_fast_speech_and_a_few_are_saved_up_in_silence() -> None:
    """Read speech pauses every two seconds, and a run costs 0.08 s of CPU."""
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(*[0.9] * 200), executor)
    pauses = 150  # of 0.8 s each
    for _ in range(pauses):
        push_pause(scheduler, 0.8, executor)
    seconds = pauses * 11 * STEP_S
    assert seconds / RUN_INTERVAL_S - 2 <= scheduler.runs <= seconds / RUN_INTERVAL_S + MAX_TOKENS
    before = scheduler.runs
    push_pause(scheduler, 60.0, executor)
    for _ in range(4):
        push_pause(scheduler, 0.8, executor)
    assert MAX_TOKENS <= scheduler.runs - before <= MAX_TOKENS + 1


def test_an_answer_about_a_pause_that_is_over_is_discarded() -> None:
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(0.9, 0.2), executor)
    push(scheduler, 0.3)
    push(scheduler, 0.0)
    executor.run_all()
    assert push(scheduler, 0.1) is None
    push(scheduler, 0.3)
    executor.run_all()
    assert push(scheduler, 0.4) == 0.9, "the cancelled run never happened"


def test_its_input_has_little_of_the_silence_however_late_it_runs() -> None:
    """With a second of silence after it, a sentence that broke off sounded complete."""
    executor, smart_turn = ManualExecutor(), ScriptedSmartTurn(0.3, 0.5)
    push_pause(SmartTurnScheduler(smart_turn, executor), 0.9, executor)
    for x, ran_at_s, kept_s in zip(smart_turn.inputs, (0.32, 0.8), SILENCE_KEPT_S, strict=True):
        assert 2 - len(x) / RATE == pytest.approx(ran_at_s - kept_s, abs=0.01)


def test_it_does_not_run_without_audio() -> None:
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(), executor)
    scheduler.push(0.5, 1.0, False, lambda: np.zeros(100, np.float32))
    assert (scheduler.runs, executor.jobs) == (0, [])


def test_at_most_one_run_is_pending() -> None:
    executor = ManualExecutor()
    push_pause(SmartTurnScheduler(ScriptedSmartTurn(0.5, 0.5), executor), 3.0)
    assert len(executor.jobs) == 1


def test_it_does_not_run_without_speech_or_without_a_model() -> None:
    smart_turn = ScriptedSmartTurn()
    scheduler = SmartTurnScheduler(smart_turn, ManualExecutor())
    for silence in (None, 0.0, 0.5, 1.0):
        assert scheduler.push(silence, 0.0, False, audio) is None
    assert smart_turn.inputs == []
    assert push_pause(SmartTurnScheduler(None, ManualExecutor()), 2.0) is None


def test_a_failure_is_counted_and_is_no_answer() -> None:
    executor = ManualExecutor()
    scheduler = SmartTurnScheduler(ScriptedSmartTurn(RuntimeError("no memory"), 0.6), executor)
    push(scheduler, 0.3)
    executor.run_all()
    assert push(scheduler, 0.4) is None
    assert scheduler.failures == 1
    push(scheduler, 0.9)
    executor.run_all()
    assert push(scheduler, 1.0) == 0.6


def test_its_input_is_a_copy() -> None:
    """The session's history moves on while the run waits."""
    executor, smart_turn = ManualExecutor(), ScriptedSmartTurn(0.5)
    history = np.ones(RATE, np.float32)
    SmartTurnScheduler(smart_turn, executor).push(0.3, 1.0, False, lambda: history)
    history[:] = 7
    executor.run_all()
    assert smart_turn.inputs[0].max() == 1
