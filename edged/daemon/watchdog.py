"""Monitors thread liveness.

If a thread stops sending heartbeats, the watchdog reports it, and the process ends, because only a
new one can help: systemd's watchdog ends it, or, where there is none, the daemon itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from edged.daemon.heartbeats import Heartbeats
from edged.daemon.systemd import Notifier, watchdog_interval_s
from edged.logs import log_event

EXIT_AFTER_S = 30.0  # since one thread was found hung; the WatchdogSec= of deploy/edged.service
MIN_REPORT_INTERVAL_S = 60.0  # threads that come and go must not fill the spool with errors
RECOGNITION_THREADS = frozenset({"capture", "engine", "recogniser"})

_log = logging.getLogger(__name__)


class Watchdog:
    """Feeds systemd's watchdog as long as every thread beats.

    Used by the main thread, except for `heartbeats`, which any thread may read.

    Attributes:
        heartbeats: the watched threads.
        must_exit: whether a thread has hung for EXIT_AFTER_S and systemd does not watch.
    """

    def __init__(
        self, notifier: Notifier, on_change: Callable[[], None], on_error: Callable[[str], None]
    ) -> None:
        """
        Args:
            on_change: called when the set of hung threads has changed.
            on_error: called with a sentence when a thread hangs that was not reported yet, at most
                once in MIN_REPORT_INTERVAL_S.
        """
        self.heartbeats = Heartbeats()
        self.must_exit = False
        self._hung_since: dict[str, float] = {}
        self._notifier = notifier
        self._on_change = on_change
        self._on_error = on_error
        self._unreported: set[str] = set()
        self._next_report = 0.0
        self._next_feed = 0.0

    @property
    def hung_threads(self) -> tuple[str, ...]:
        """The names of the threads that do not beat."""
        return tuple(self._hung_since)

    @property
    def message(self) -> str:
        """One sentence about the hung threads; empty if there are none."""
        names = ", ".join(self._hung_since)
        return f"no heartbeat from: {names}" if names else ""

    @property
    def recognition_stopped(self) -> bool:
        """Whether a thread hangs without which no speech is recognised."""
        return not RECOGNITION_THREADS.isdisjoint(self._hung_since)

    def check(self, now: float) -> None:
        """To be called about once a second. `now` is a time of the monotonic clock."""
        before = self._hung_since
        self._hung_since = {name: before.get(name, now) for name in self.heartbeats.stale()}
        oldest = min(self._hung_since.values(), default=now)
        interval_s = watchdog_interval_s()
        if interval_s is None and now - oldest >= EXIT_AFTER_S:
            self.must_exit = True
        if not self._hung_since and interval_s is not None and now >= self._next_feed:
            self._notifier.watchdog()
            self._next_feed = now + interval_s / 3
        if self._hung_since.keys() != before.keys():
            if self._hung_since.keys() - before.keys():
                log_event(_log, logging.ERROR, "heartbeat-missing", self.message)
            elif not self._hung_since:
                log_event(
                    _log, logging.INFO, "heartbeat-back", "every thread sends heartbeats again"
                )
            self._on_change()
        self._report(now, before)

    def _report(self, now: float, before: Mapping[str, float]) -> None:
        self._unreported |= self._hung_since.keys() - before.keys()
        self._unreported &= self._hung_since.keys()
        if self._unreported and now >= self._next_report:
            self._on_error(self.message)
            self._unreported.clear()
            self._next_report = now + MIN_REPORT_INTERVAL_S
