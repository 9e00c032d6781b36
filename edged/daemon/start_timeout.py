"""Extends systemd's start timeout while start-up makes progress.

How long the models take to load depends on the board, its memory card and what else starts at the
same time, so no fixed time is right. TimeoutStartSec= catches only a process that neither computes
nor reads.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

from edged.daemon.systemd import Notifier

Usage: TypeAlias = tuple[float, int, int]

EXTENSION_S = 120.0  # from the last progress; the TimeoutStartSec= of deploy/edged.service
MAX_START_S = 1800.0  # a start that computes for longer is taken for one that hangs
CHECK_INTERVAL_S = 10.0
_MIN_CPU_S = 0.1  # in CHECK_INTERVAL_S; the checks themselves use a thousandth of it


def usage() -> Usage:
    """What this process has used so far: CPU seconds, blocks read, pages read in."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_inblock, used.ru_majflt


@contextlib.contextmanager
def extending_start_timeout(
    notifier: Notifier, measure: Callable[[], Usage] = usage, interval_s: float = CHECK_INTERVAL_S
) -> Iterator[None]:
    """Extends the timeout now, and after each interval in which the body has worked.

    Args:
        measure: returns what the process has used so far.
        interval_s: seconds between measurements, of which there are at most
            MAX_START_S / CHECK_INTERVAL_S.
    """
    done = threading.Event()

    def watch() -> None:
        before = measure()
        for _ in range(round(MAX_START_S / CHECK_INTERVAL_S)):
            if done.wait(interval_s):
                return
            now = measure()
            if now[0] - before[0] >= _MIN_CPU_S or now[1:] != before[1:]:
                notifier.extend_start_timeout(EXTENSION_S)
            before = now

    notifier.extend_start_timeout(EXTENSION_S)
    thread = threading.Thread(target=watch, name="start-timeout", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(1.0)
