"""The worker threads of the API server: turns, the microphone first, and a job that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from edged.server.worker_pool import WorkerPool
from tests.support.mosquitto import until


class ScriptedJob:
    """Adds its name to a log at each step; waits for `gate` first."""

    def __init__(self, name: str, log: list[str], steps: int = 5, fails: bool = False) -> None:
        self.name, self.log, self.left, self.fails = name, log, steps, fails
        self.running = 0
        self.gate = threading.Event()
        self.gate.set()

    def work(self) -> bool:
        self.running += 1
        assert self.running == 1
        self.gate.wait(5)
        self.log.append(self.name)
        self.left -= 1
        self.running -= 1
        if self.fails:
            raise ZeroDivisionError
        return self.left > 0


MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    made: list[WorkerPool] = []

    def make(threads: int = 1, microphone_waits: Callable[[], bool] = lambda: False) -> WorkerPool:
        made.append(WorkerPool(threads, microphone_waits))
        made[-1].start()
        return made[-1]

    yield make
    for pool in made:
        pool.stop()


def test_jobs_take_turns_one_step_each(make_pool: MakePool) -> None:
    log: list[str] = []
    a, b, c = (ScriptedJob(name, log) for name in "abc")
    a.gate.clear()
    pool = make_pool()
    for job in (a, b, c):
        pool.wake(job)
    a.gate.set()
    until(lambda: len(log) == 15, "all steps")
    assert "".join(log) == "abc" * 5


def test_a_job_that_is_woken_while_it_runs_runs_once_more(make_pool: MakePool) -> None:
    log: list[str] = []
    job = ScriptedJob("a", log, steps=1)
    job.gate.clear()
    pool = make_pool(2)
    pool.wake(job)
    until(lambda: job.running == 1, "it runs")
    pool.wake(job)
    pool.wake(job)
    job.gate.set()
    until(lambda: len(log) == 2, "a second step")
    until(lambda: pool.is_idle, "idle")
    assert len(log) == 2


def test_no_step_begins_while_the_microphone_waits(make_pool: MakePool) -> None:
    waits = threading.Event()
    waits.set()
    log: list[str] = []
    pool = make_pool(2, waits.is_set)
    pool.wake(ScriptedJob("a", log, steps=1))
    assert not threading.Event().wait(0.1)
    assert log == []
    waits.clear()
    until(lambda: log == ["a"], "its step")


def test_a_job_that_fails_does_not_affect_the_others(make_pool: MakePool) -> None:
    log: list[str] = []
    pool = make_pool()
    pool.wake(ScriptedJob("bad", log, fails=True))
    pool.wake(ScriptedJob("good", log, steps=2))
    until(lambda: log.count("good") == 2, "the other job")


def test_a_pool_stops_while_jobs_wait_for_the_microphone(make_pool: MakePool) -> None:
    pool = make_pool(2, lambda: True)
    pool.wake(ScriptedJob("a", []))
    pool.stop()
    assert not pool.is_alive
