"""Bugs of ours on a thread that must go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)
_EPISODE_S = 600


class ExceptionLogThrottle:
    """Each kind of fault, by type and place, is logged once, and again after ten quiet minutes."""

    def __init__(self) -> None:
        self._seen: dict[tuple[type, str, int], float] = {}

    def guard(self, what: str, do: Callable[[], None]) -> bool:
        """Does it; whether that went well. `what` names it in the log."""
        try:
            do()
        except Exception as problem:
            self._log(what, problem)
            return False
        return True

    def _log(self, what: str, problem: Exception) -> None:
        trace, now = problem.__traceback__, time.monotonic()
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ("", 0)
        kind = (type(problem), *place)
        if now - self._seen.get(kind, -_EPISODE_S) >= _EPISODE_S:
            _log.error("a fault in the MQTT thread, in %s", what, exc_info=problem)
        self._seen[kind] = now
