"""Executors for work that takes longer than a step of 80 ms."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

NICENESS = 5  # added to the niceness of the process
MAX_WAITING = 32  # jobs of up to 1 MB of audio each; one turn has two or three


class InlineExecutor(Executor):
    """Runs each job in the caller before `submit` returns, which makes a run repeatable."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ConditionalExecutor(Executor):
    """Runs a job inline while a condition holds, and on another executor otherwise."""

    def __init__(self, executor: Executor, inline: Callable[[], bool]) -> None:
        """inline: asked at each job."""
        self._executor = executor
        self._inline = inline
        self._inline_executor = InlineExecutor()

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        executor = self._inline_executor if self._inline() else self._executor
        return executor.submit(fn, *args, **kwargs)


class BackgroundWorker(Executor):
    """One daemon thread that runs jobs in order, one at a time.

    Unlike a ThreadPoolExecutor it is bounded, and a job that hangs does not keep the process from
    ending. The thread starts with the first job.
    """

    def __init__(
        self,
        name: str = "background",
        max_waiting: int = MAX_WAITING,
        initializer: Callable[[], None] | None = None,
        before_job: Callable[[], None] | None = None,
    ) -> None:
        """name: of the thread. max_waiting: most jobs that wait. initializer: called first on the
        thread. before_job: called before each job; may block, to let something else go first."""
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._initializer = initializer
        self._before_job = before_job
        self._start_lock = threading.Lock()
        self._job_started_at: float | None = None
        self._busy_s = 0.0
        self._closed = False

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Queues a job.

        Returns a failed future instead of raising if the queue is full (a job in front hangs) or
        the worker was shut down, so that the caller's own work goes on.
        """
        future: Future[Any] = Future()
        if self._closed:
            future.set_exception(RuntimeError("the background worker was shut down"))
            return future
        try:
            self._jobs.put_nowait(partial(_run_job, future, partial(fn, *args, **kwargs)))
        except queue.Full:
            future.set_exception(RuntimeError("the background worker is stuck: its queue is full"))
            return future
        with self._start_lock:
            if self._thread.ident is None:
                self._thread.start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Accepts no more jobs and ends the thread after those that wait.

        `wait` and `cancel_futures` are part of the Executor interface and have no effect: the
        thread is a daemon thread, and nobody waits for it.
        """
        self._closed = True
        with contextlib.suppress(queue.Full):  # it hangs, and ends with the process
            self._jobs.put_nowait(None)

    @property
    def idle(self) -> bool:
        """Whether no job is running or waiting."""
        return self._jobs.unfinished_tasks == 0

    @property
    def waiting(self) -> int:
        """Jobs that wait, without the one that runs."""
        return self._jobs.qsize()

    @property
    def age_s(self) -> float:
        """Seconds since the running job started; 0 if none runs."""
        started_at = self._job_started_at
        return 0.0 if started_at is None else time.monotonic() - started_at

    @property
    def busy_s(self) -> float:
        """Seconds that jobs have taken so far, the running one included."""
        return self._busy_s + self.age_s

    def _run(self) -> None:
        if self._initializer is not None:
            self._initializer()
        while True:
            job = self._jobs.get()
            if job is None:
                self._jobs.task_done()
                return
            if self._before_job is not None:
                self._before_job()
            self._job_started_at = time.monotonic()
            job()
            del job  # with the audio that it holds: the next job may be long in coming
            self._busy_s += self.age_s
            self._job_started_at = None
            self._jobs.task_done()


def _run_job(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def lower_priority() -> None:
    """Lowers the priority of the calling thread alone; on Linux each thread has its own."""
    with contextlib.suppress(OSError):
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, nice + NICENESS))
