"""A few threads that process all streams in turn, one step of each at a time.

Taking turns makes it fair: a client that sends a file as fast as it can gets no more than one that
speaks live. The microphone goes before all of them: these threads run at a lower priority, and none
begins a step while audio of the microphone waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from edged.engine.background_worker import lower_priority
from edged.logs import log_exception

_POLL_S = 0.005  # while the microphone's audio waits

_log = logging.getLogger(__name__)


class Job(Protocol):
    """Something that has steps to do. Jobs are compared by identity."""

    def work(self) -> bool:
        """Does one step and returns True if there is more to do at once. Never called by two
        threads at the same time."""


class _JobState(Enum):
    QUEUED = auto()
    RUNNING = auto()
    RUNNING_AND_WOKEN = auto()


class WorkerPool:
    """Threads that run jobs. Each job is in the queue at most once, which bounds the queue."""

    def __init__(self, threads: int, microphone_waits: Callable[[], bool] | None) -> None:
        """`microphone_waits` is true while audio of the microphone waits; None: there is no
        microphone."""
        self._microphone_waits = microphone_waits
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._states: dict[Job, _JobState] = {}  # jobs that are not in here are idle
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._started_at: dict[int, float] = {}  # of the step that each busy thread is doing
        self._threads = [
            threading.Thread(target=self._run, name=f"api-{n}", daemon=True) for n in range(threads)
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Begins no further step, and waits for each thread up to `timeout_s`."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    @property
    def longest_s(self) -> float:
        """For how long the oldest step in progress has been running; 0 if there is none."""
        started = list(self._started_at.values())
        return time.monotonic() - min(started) if started else 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no job is queued or running."""
        return not self._states

    @property
    def is_alive(self) -> bool:
        """Whether any of the threads runs."""
        return any(thread.is_alive() for thread in self._threads)

    def wake(self, job: Job) -> None:
        """The job has something to do. May be called from any thread."""
        with self._lock:
            state = self._states.get(job)
            if state is None:
                self._states[job] = _JobState.QUEUED
                self._queue.put(job)
            elif state is _JobState.RUNNING:
                self._states[job] = _JobState.RUNNING_AND_WOKEN

    def wait_for_microphone(self) -> None:
        """Blocks while audio of the microphone waits, unless the pool is being stopped."""
        while self._must_wait() and not self._stopping.wait(_POLL_S):
            pass

    def _must_wait(self) -> bool:
        return self._microphone_waits is not None and self._microphone_waits()

    def _run(self) -> None:
        if self._microphone_waits is not None:
            lower_priority()
        while not self._stopping.is_set():
            job = self._queue.get()
            self.wait_for_microphone()
            if job is None or self._stopping.is_set():
                return
            with self._lock:
                self._states[job] = _JobState.RUNNING
            more = False
            self._started_at[threading.get_ident()] = time.monotonic()
            try:
                more = job.work()
            except Exception:  # a bug in one job must not end the thread
                log_exception(_log, "api-job-failed", "an API stream failed unexpectedly")
            self._started_at.pop(threading.get_ident(), None)
            with self._lock:
                if more or self._states[job] is _JobState.RUNNING_AND_WOKEN:
                    self._states[job] = _JobState.QUEUED
                    self._queue.put(job)
                else:
                    del self._states[job]
