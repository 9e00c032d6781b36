"""The clock and the threads of a simulated slow device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.bench.simulated_device import SimulatedDevice


class Work:
    """Jobs of a known CPU time; notes when they ran."""

    def __init__(self, factor: float) -> None:
        self.cpu_s = 0.0
        self.device = SimulatedDevice(factor, lambda: self.cpu_s)
        self.ran: list[tuple[str, float]] = []

    def job(self, name: str, cpu_s: float) -> Callable[[], str]:
        def run() -> str:
            self.cpu_s += cpu_s
            self.ran.append((name, self.device.now))
            return name

        return run


def test_a_job_takes_its_cpu_time_times_the_factor() -> None:
    work = Work(4.0)
    thread = work.device.thread()
    future = thread.submit(work.job("a", 0.1))
    work.device.run_until(0.39)
    assert not future.done()
    work.device.run_until(0.41)
    assert future.result() == "a"
    assert thread.busy_s == pytest.approx(0.4)
    assert work.device.now == 0.41


def test_jobs_of_a_thread_run_in_order_and_those_of_others_at_the_same_time() -> None:
    work = Work(2.0)
    one, other = work.device.thread(), work.device.thread()
    for thread, name in ((one, "a"), (one, "b"), (other, "c")):
        thread.submit(work.job(name, 0.1))
    work.device.run_all()
    assert sorted(work.ran) == [("a", 0.0), ("b", pytest.approx(0.2)), ("c", 0.0)]
    assert work.device.now == pytest.approx(0.4)


def test_what_is_submitted_when_a_job_ends_starts_then() -> None:
    work = Work(1.0)
    thread = work.device.thread()
    thread.submit(work.job("a", 0.5)).add_done_callback(
        lambda _: thread.submit(work.job("b", 0.5)) and None
    )
    work.device.run_until(2.0)
    assert work.ran == [("a", 0.0), ("b", pytest.approx(0.5))]


def test_whoever_waits_for_a_job_lets_the_time_pass() -> None:
    work = Work(3.0)
    future = work.device.thread().submit(work.job("a", 0.2))
    assert future.exception(10) is None
    assert work.device.now == pytest.approx(0.6)


def test_a_job_that_fails_has_failed_when_its_time_is_over() -> None:
    work = Work(1.0)
    future = work.device.thread().submit(lambda: 1 / 0)
    work.device.run_all()
    with pytest.raises(ZeroDivisionError):
        future.result()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 0.3), st.floats(0, 0.5)), min_size=1, max_size=30
    ),
    st.floats(1, 10),
)
def test_time_never_runs_back_and_no_thread_does_two_jobs_at_once(
    jobs: list[tuple[int, float, float]], factor: float
) -> None:
    work = Work(factor)
    threads = [work.device.thread() for _ in range(3)]
    busy_until = [0.0] * 3
    for index, cpu_s, pause_s in jobs:
        starts_at = max(busy_until[index], work.device.now)
        busy_until[index] = starts_at + cpu_s * factor
        threads[index].submit(work.job(str(index), cpu_s))
        before = work.device.now
        work.device.run_until(before + pause_s)
        assert work.device.now == pytest.approx(before + pause_s)
    work.device.run_all()
    assert len(work.ran) == len(jobs)
    assert work.device.now >= max(busy_until) - 1e-6
