"""Unexpected exceptions on a thread that has to go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edged.logs import log_exception

_log = logging.getLogger(__name__)
_EPISODE_S = 600


class ExceptionLogThrottle:
    """Logs each kind of exception, by type and place, once, and again after ten quiet minutes."""

    def __init__(self) -> None:
        self._seen: dict[tuple[type, str, int], float] = {}

    def guard(self, what: str, action: Callable[[], None]) -> bool:
        """Runs `action`, which `what` names in the log. Returns whether it raised nothing."""
        try:
            action()
        except Exception as error:
            self._log(what, error)
            return False
        return True

    def _log(self, what: str, error: Exception) -> None:
        trace, now = error.__traceback__, time.monotonic()
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ("", 0)
        kind = (type(error), *place)
        if now - self._seen.get(kind, -_EPISODE_S) >= _EPISODE_S:
            message = f"the MQTT thread failed in {what} and goes on"
            log_exception(_log, "mqtt-exception", message, error)
        self._seen[kind] = now
