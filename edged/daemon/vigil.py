"""Watches that every thread still turns. Of one that does not it is told, and the process ends, for
only a new one mends that: systemd's watchdog sees to it, and where there is none the daemon itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edged.daemon.health import Heartbeats
from edged.daemon.notify import Notifier, watchdog_interval_s
from edged.logs import say

GIVE_UP_S = 30.0  # of silence that was told of; what WatchdogSec= of deploy/edged.service says
HEARING = frozenset({"capture", "engine"})  # without these nothing that is said is heard

_log = logging.getLogger(__name__)


class Vigil:
    """Owned by the main thread, but for `heartbeats`, which may be asked from any."""

    def __init__(self, notifier: Notifier, on_change: Callable[[], None]) -> None:
        """`on_change` is called when other threads than before are silent."""
        self.heartbeats = Heartbeats()
        self.silent: tuple[str, ...] = ()
        self.given_up = False
        """Nobody else ends this process, and it has been silent for long enough."""
        self._notifier = notifier
        self._on_change = on_change
        self._silent_since = 0.0
        self._next_feed = 0.0

    @property
    def sentence(self) -> str:
        """Which threads are silent; empty if none is."""
        return f"no sign of life from: {', '.join(self.silent)}" if self.silent else ""

    @property
    def deaf(self) -> bool:
        """Whether what is said goes unheard."""
        return not HEARING.isdisjoint(self.silent)

    def look(self, now: float) -> None:
        before, self.silent = self.silent, tuple(self.heartbeats.stale())
        if self.silent and not before:
            self._silent_since = now
        interval_s = watchdog_interval_s()
        if self.silent and interval_s is None and now - self._silent_since >= GIVE_UP_S:
            self.given_up = True
        if not self.silent and interval_s is not None and now >= self._next_feed:
            self._notifier.watchdog()
            self._next_feed = now + interval_s / 3
        if self.silent != before:
            if set(self.silent) - set(before):
                say(_log, logging.ERROR, "heartbeat-missing", self.sentence)
            elif not self.silent:
                say(_log, logging.INFO, "heartbeat-back", "every thread gives a sign of life again")
            self._on_change()
