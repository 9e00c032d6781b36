"""One thread for what is too long for a step of 80 ms: the second pass and the turn model."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

WAITING = 32  # jobs of up to 1 MB of audio each; there are two or three a turn


class Beside(Executor):
    """In order, one at a time. Unlike a ThreadPoolExecutor it is bounded, and a job that hangs
    does not keep the process from ending."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._starting = threading.Lock()

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Raises RuntimeError if too many jobs wait: then one of them hangs."""
        future: Future[Any] = Future()
        try:
            self._jobs.put_nowait(partial(_do, future, partial(fn, *args, **kwargs)))
        except queue.Full:
            raise RuntimeError("the work beside the steps is stuck") from None
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()
        return future

    @property
    def idle(self) -> bool:
        """Nothing is being done, and nothing waits."""
        return self._jobs.unfinished_tasks == 0

    def _run(self) -> None:
        while True:
            self._jobs.get()()
            self._jobs.task_done()


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as problem:
        future.set_exception(problem)
