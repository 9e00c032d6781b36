"""Runs the periodic checks of the main loop, so that one that fails does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edged.logs import log_exception

_log = logging.getLogger(__name__)

Check = Callable[[float], None]


class Supervisor:
    """A list of checks. An exception of a check is logged once, until the check succeeds again."""

    def __init__(self, *checks: Check) -> None:
        """checks: called with the time of the monotonic clock, in this order."""
        self._checks = checks
        self._failing: set[int] = set()

    def run(self, now: float) -> None:
        """Calls every check once."""
        for number, check in enumerate(self._checks):
            try:
                check(now)
            except Exception:
                if number not in self._failing:
                    message = "a check of the supervision failed; it is repeated every second"
                    log_exception(_log, "supervision-failed", message)
                self._failing.add(number)
            else:
                self._failing.discard(number)
