"""A few threads that take turns over all streams of the door, one step of each at a time.

Turns make it fair: whoever sends a file as fast as it can gets no more than who speaks live. The
microphone goes before all of them: these threads run at a lower priority, and none begins a step
while audio of the microphone waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

NICENESS = 5  # added to the daemon's own
_LOOK_AGAIN_S = 0.005

_log = logging.getLogger(__name__)


class Job(Protocol):
    """Something with steps to do. Compared by identity."""

    def work(self) -> bool:
        """One step; True if more is to be done at once. Never called by two threads at once."""


class _State(Enum):
    QUEUED = auto()
    RUNNING = auto()
    RUNNING_AND_WOKEN = auto()


class WorkerPool:
    """Bounded by its jobs: each stands in the queue once."""

    def __init__(self, threads: int, give_way: Callable[[], bool] | None) -> None:
        """`give_way` is True while the microphone's audio waits; None: there is none."""
        self._give_way = give_way
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._states: dict[Job, _State] = {}  # a job that is not here is idle
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._since: dict[int, float] = {}  # when each thread that works began its step
        self._threads = [
            threading.Thread(target=self._run, name=f"api-{n}", daemon=True) for n in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """No further step is begun."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    @property
    def longest_s(self) -> float:
        """How long the longest step has been going on; 0 if none is."""
        began = list(self._since.values())
        return time.monotonic() - min(began) if began else 0.0

    def wake(self, job: Job) -> None:
        """The job has something to do. From any thread."""
        with self._lock:
            state = self._states.get(job)
            if state is None:
                self._states[job] = _State.QUEUED
                self._queue.put(job)
            elif state is _State.RUNNING:
                self._states[job] = _State.RUNNING_AND_WOKEN

    def _must_wait(self) -> bool:
        return self._give_way is not None and self._give_way()

    def _run(self) -> None:
        if self._give_way is not None:
            be_nice()
        while not self._stopping.is_set():
            job = self._queue.get()
            while self._must_wait() and not self._stopping.wait(_LOOK_AGAIN_S):
                pass
            if job is None or self._stopping.is_set():
                return
            with self._lock:
                self._states[job] = _State.RUNNING
            more = False
            self._since[threading.get_ident()] = time.monotonic()
            try:
                more = job.work()
            except Exception:  # the job's own bug must not cost the others their thread
                _log.exception("a stream of the door failed", extra={"EDGED_CODE": "api-stream"})
            self._since.pop(threading.get_ident(), None)
            with self._lock:
                if more or self._states[job] is _State.RUNNING_AND_WOKEN:
                    self._states[job] = _State.QUEUED
                    self._queue.put(job)
                else:
                    del self._states[job]


def be_nice() -> None:
    """Lowers the priority of the calling thread alone (Linux has one per thread)."""
    with contextlib.suppress(OSError):
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, nice + NICENESS))
