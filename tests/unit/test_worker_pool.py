"""The door's threads: turns, the microphone first, and a job that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from edged.server.worker_pool import WorkerPool
from tests.support.mosquitto import until


class Job:
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


@pytest.fixture
def crews() -> Iterator[Callable[..., WorkerPool]]:
    made: list[WorkerPool] = []

    def make(threads: int = 1, give_way: Callable[[], bool] = lambda: False) -> WorkerPool:
        made.append(WorkerPool(threads, give_way))
        made[-1].start()
        return made[-1]

    yield make
    for crew in made:
        crew.stop()


def test_jobs_take_turns_one_step_each(crews: Callable[..., WorkerPool]) -> None:
    log: list[str] = []
    a, b, c = (Job(name, log) for name in "abc")
    a.gate.clear()
    crew = crews()
    for job in (a, b, c):
        crew.wake(job)
    a.gate.set()
    until(lambda: len(log) == 15, "all steps")
    assert "".join(log) == "abc" * 5


def test_a_job_that_is_woken_while_it_works_is_looked_at_again(
    crews: Callable[..., WorkerPool],
) -> None:
    log: list[str] = []
    job = Job("a", log, steps=1)
    job.gate.clear()
    crew = crews(2)
    crew.wake(job)
    until(lambda: job.running == 1, "it works")
    crew.wake(job)
    crew.wake(job)
    job.gate.set()
    until(lambda: len(log) == 2, "a second look")
    until(lambda: not crew._states, "idle")
    assert len(log) == 2


def test_nothing_is_begun_while_the_microphone_waits(crews: Callable[..., WorkerPool]) -> None:
    waits = threading.Event()
    waits.set()
    log: list[str] = []
    crew = crews(2, waits.is_set)
    crew.wake(Job("a", log, steps=1))
    assert not threading.Event().wait(0.1)
    assert log == []
    waits.clear()
    until(lambda: log == ["a"], "its turn")


def test_a_job_that_fails_costs_the_others_nothing(crews: Callable[..., WorkerPool]) -> None:
    log: list[str] = []
    crew = crews()
    crew.wake(Job("bad", log, fails=True))
    crew.wake(Job("good", log, steps=2))
    until(lambda: log.count("good") == 2, "the other job")


def test_a_crew_ends_while_jobs_wait_for_the_microphone(crews: Callable[..., WorkerPool]) -> None:
    crew = crews(2, lambda: True)
    crew.wake(Job("a", []))
    crew.stop()
    assert not any(thread.is_alive() for thread in crew._threads)
