"""Executors that tests step by hand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class ManualExecutor(Executor):
    """Keeps jobs until the test runs them, in order, or something waits for one.

    jobs: those that wait. Cancelled ones are skipped when their turn comes.
    """

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = _ManualFuture(self)
        self.jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_next(self) -> bool:
        """Runs the oldest job that was not cancelled; False if there is none."""
        while self.jobs:
            future, job = self.jobs.pop(0)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)
            return True
        return False

    def run_all(self) -> None:
        """Runs jobs until none waits, those that jobs submit included."""
        while self.run_next():
            pass


class _ManualFuture(Future[T]):
    """Whoever waits for it runs the jobs."""

    def __init__(self, executor: ManualExecutor) -> None:
        super().__init__()
        self._executor = executor

    def exception(self, timeout: float | None = None) -> BaseException | None:
        while not self.done() and self._executor.run_next():
            pass
        return super().exception(0)


class FailingExecutor(Executor):
    """Every job fails, as with no memory left."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_exception(MemoryError())
        return future
