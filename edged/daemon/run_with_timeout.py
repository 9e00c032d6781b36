"""Long work that the main thread waits for without standing still: it feeds the watchdog on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from edged.errors import ConfigError

LONGEST_S = 900.0  # what never ends must not be waited for, and be fed for, for ever
_EVERY_S = 1.0

_NAME = "meanwhile"

_T = TypeVar("_T")


class EndingError(ConfigError):
    """Whoever wanted the work ends: nothing was wrong with it."""


def has_orphaned_work() -> bool:
    """Whether there is work that is still being done."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def run_with_timeout(
    work: Callable[[], _T],
    look: Callable[[], None],
    every_s: float = _EVERY_S,
    longest_s: float = LONGEST_S,
) -> _T:
    """`work` on a thread of its own, its result or its error here; `look` here each `every_s`
    seconds. An error of `look` ends the wait and leaves the work behind; so does `longest_s`,
    with a ConfigError."""
    done: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def do() -> None:
        try:
            done.put((work(), None))
        except BaseException as problem:
            done.put((None, problem))

    threading.Thread(target=do, name=_NAME, daemon=True).start()
    for _ in range(round(longest_s / every_s)):
        try:
            result, problem = done.get(timeout=every_s)
        except queue.Empty:
            look()
            continue
        if problem is not None:
            raise problem
        return result  # type: ignore[return-value]
    raise ConfigError(f"it was not ready after {longest_s:.0f} s")
