"""One thread for what is too long for a step of 80 ms: the second pass and the turn model."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

WAITING = 32  # jobs of up to 1 MB of audio each; there are two or three a turn


class BackgroundWorker(Executor):
    """In order, one at a time. Unlike a ThreadPoolExecutor it is bounded, and a job that hangs
    does not keep the process from ending."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._starting = threading.Lock()
        self._began: float | None = None  # the job that is being done

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """If too many jobs wait, one of them hangs: the future has failed then, for whoever asked
        goes on without it."""
        future: Future[Any] = Future()
        try:
            self._jobs.put_nowait(partial(_do, future, partial(fn, *args, **kwargs)))
        except queue.Full:
            future.set_exception(RuntimeError("the work beside the steps is stuck"))
            return future
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()
        return future

    @property
    def idle(self) -> bool:
        """Nothing is being done, and nothing waits."""
        return self._jobs.unfinished_tasks == 0

    @property
    def age_s(self) -> float:
        """For how long the job that is being done has been; 0 if there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def _run(self) -> None:
        while True:
            work = self._jobs.get()
            self._began = time.monotonic()
            work()
            self._began = None
            self._jobs.task_done()


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as problem:
        future.set_exception(problem)
