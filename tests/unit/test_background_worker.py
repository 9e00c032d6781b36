"""Executors: order, failures, bounds, and the end of the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

from edged.engine.background_worker import (
    BackgroundWorker,
    ConditionalExecutor,
    InlineExecutor,
)
from tests.support.executors import ManualExecutor
from tests.support.mosquitto import until


def test_jobs_run_in_order_and_a_failure_affects_its_own_job_only() -> None:
    worker, done = BackgroundWorker(), list[int]()
    assert worker.idle
    first = worker.submit(done.append, 1)
    failed = worker.submit(lambda: 1 / 0)
    last = worker.submit(done.append, 2)
    assert last.result(5) is None
    assert first.done()
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert done == [1, 2]
    until(lambda: worker.idle, "the worker is idle again")


def test_a_full_queue_fails_the_job_instead_of_growing() -> None:
    """Each job holds a megabyte of audio: a second pass that hangs must not fill the memory. The
    33rd job once raised inside the step that submitted it, and the recogniser restarted again and
    again."""
    worker, go = BackgroundWorker(max_waiting=2), threading.Event()
    worker.submit(go.wait)
    until(lambda: worker.waiting == 0, "the first job runs")
    worker.submit(list)
    worker.submit(list)
    assert not worker.idle
    refused = worker.submit(list)
    assert "stuck" in str(refused.exception(0))
    go.set()
    until(lambda: worker.idle, "the other jobs are done")
    worker.submit(list).result(5)


def test_a_job_that_is_done_is_forgotten_with_what_it_held() -> None:
    """The thread kept its last job until the next one came: the last words before the microphone
    was muted, and 4 MB for each recogniser of a closed stream."""

    class Audio:
        def read(self) -> None: ...

    worker, audio = BackgroundWorker(), Audio()
    kept = weakref.ref(audio)
    worker.submit(audio.read).result(5)
    until(lambda: worker.idle, "the job is done")
    del audio
    gc.collect()
    assert kept() is None


def test_a_job_that_never_returns_is_seen_by_its_age() -> None:
    """Nobody watched this thread: after a second pass that hung there were no more turns, and
    nothing was reported."""
    worker, go = BackgroundWorker(), threading.Event()
    assert worker.age_s == 0
    worker.submit(go.wait)
    until(lambda: worker.age_s > 0.05, "the age grows")
    go.set()
    until(lambda: worker.idle, "the job is done")
    assert worker.age_s == 0


def test_after_a_shutdown_waiting_jobs_are_done_and_new_ones_fail() -> None:
    worker, go, done = BackgroundWorker(), threading.Event(), list[int]()
    worker.submit(go.wait)
    waiting = worker.submit(done.append, 1)
    worker.shutdown()
    assert "shut down" in str(worker.submit(done.append, 2).exception(0))
    go.set()
    waiting.result(5)
    until(lambda: worker.idle, "the thread is done")
    assert done == [1]


def test_the_initializer_runs_first_on_the_workers_thread() -> None:
    threads: list[str] = []
    worker = BackgroundWorker(
        "worker-name", initializer=lambda: threads.append(threading.current_thread().name)
    )
    assert worker.submit(lambda: list(threads)).result(5) == ["worker-name"]


def test_a_job_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """The interpreter waits for a ThreadPoolExecutor's threads at exit, however long."""
    code = "import threading; from edged.engine.background_worker import BackgroundWorker; "
    code += "BackgroundWorker().submit(threading.Event().wait)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_inline_jobs_are_done_before_submit_returns() -> None:
    assert InlineExecutor().submit(lambda: 3).result(0) == 3
    assert isinstance(InlineExecutor().submit(lambda: 1 / 0).exception(0), ZeroDivisionError)


def test_a_conditional_executor_asks_its_condition_at_each_job() -> None:
    inline, manual = True, ManualExecutor()
    executor = ConditionalExecutor(manual, lambda: inline)
    assert executor.submit(time.monotonic).done()
    inline = False
    later = executor.submit(time.monotonic)
    assert not later.done()
    manual.run_all()
    assert later.done()
