"""A start may take as long as it needs while it gets on: systemd's TimeoutStartSec= is for one that
hangs.

How long the models take to load depends on the board, its card and what else starts with it, so no
fixed time is right. Whether this process computes or reads can be seen.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

from edged.daemon.systemd import Notifier

Progress: TypeAlias = tuple[float, int, int]

PATIENCE_S = 120.0  # from the last sign of work; what TimeoutStartSec= of deploy/edged.service says
LONGEST_S = 1800.0  # a start that computes for ever is one that hangs
EVERY_S = 10.0
_LEAST_CPU_S = 0.1  # in EVERY_S; looking takes a thousandth of it


def progress() -> Progress:
    """What this process has used so far: CPU seconds, blocks read, pages read in."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_inblock, used.ru_majflt


@contextlib.contextmanager
def while_it_gets_on(
    notifier: Notifier, look: Callable[[], Progress] = progress, every_s: float = EVERY_S
) -> Iterator[None]:
    """Asks systemd for more time, at once and then each `every_s` seconds in which the body worked,
    LONGEST_S / EVERY_S times at most."""
    done = threading.Event()

    def ask() -> None:
        before = look()
        for _ in range(round(LONGEST_S / EVERY_S)):
            if done.wait(every_s):
                return
            now = look()
            if now[0] - before[0] >= _LEAST_CPU_S or now[1:] != before[1:]:
                notifier.extend_start(PATIENCE_S)
            before = now

    notifier.extend_start(PATIENCE_S)
    thread = threading.Thread(target=ask, name="still-starting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(1.0)
