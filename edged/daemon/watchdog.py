"""Watches that every thread still turns. Of one that does not it is told, and the process ends, for
only a new one mends that: systemd's watchdog sees to it, and where there is none the daemon itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from edged.daemon.health import Heartbeats
from edged.daemon.systemd import Notifier, watchdog_interval_s
from edged.logs import log_event

GIVE_UP_S = 30.0  # of one thread's silence; what WatchdogSec= of deploy/edged.service says
ALARM_EVERY_S = 60.0  # at most: threads that come and go must not fill a spool
HEARING = frozenset({"capture", "engine"})  # without these nothing that is said is heard

_log = logging.getLogger(__name__)


class Watchdog:
    """Owned by the main thread, but for `heartbeats`, which may be asked from any."""

    def __init__(
        self, notifier: Notifier, on_change: Callable[[], None], alarm: Callable[[str], None]
    ) -> None:
        """`on_change` is called when other threads than before are silent, `alarm` with the
        sentence when one fell silent of which it was not told."""
        self.heartbeats = Heartbeats()
        self._since: dict[str, float] = {}  # when which thread was first seen to be silent
        self.given_up = False
        """Nobody else ends this process, and it has been silent for long enough."""
        self._notifier = notifier
        self._on_change = on_change
        self._alarm = alarm
        self._untold: set[str] = set()
        self._next_alarm = 0.0
        self._next_feed = 0.0

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(self._since)

    @property
    def sentence(self) -> str:
        """Which threads are silent; empty if none is."""
        return f"no sign of life from: {', '.join(self.silent)}" if self.silent else ""

    @property
    def deaf(self) -> bool:
        """Whether what is said goes unheard."""
        return not HEARING.isdisjoint(self.silent)

    def look(self, now: float) -> None:
        before = self._since
        self._since = {name: before.get(name, now) for name in self.heartbeats.stale()}
        oldest = min(self._since.values(), default=now)
        interval_s = watchdog_interval_s()
        if interval_s is None and now - oldest >= GIVE_UP_S:
            self.given_up = True
        if not self.silent and interval_s is not None and now >= self._next_feed:
            self._notifier.watchdog()
            self._next_feed = now + interval_s / 3
        if self._since.keys() != before.keys():
            if self._since.keys() - before.keys():
                log_event(_log, logging.ERROR, "heartbeat-missing", self.sentence)
            elif not self.silent:
                log_event(
                    _log, logging.INFO, "heartbeat-back", "every thread gives a sign of life again"
                )
            self._on_change()
        self._tell(now, before)

    def _tell(self, now: float, before: Mapping[str, float]) -> None:
        self._untold |= self._since.keys() - before.keys()
        self._untold &= self._since.keys()
        if self._untold and now >= self._next_alarm:
            self._alarm(self.sentence)
            self._untold.clear()
            self._next_alarm = now + ALARM_EVERY_S
