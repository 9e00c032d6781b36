"""Tells consumers, in `error` events, what was lost and that the disk fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from edged.logs import log_event

_log = logging.getLogger(__name__)
_REASONS = {
    "spool_full": "because the spool was full (the oldest first)",
    "too_old": "because they had waited too long",
    "memory_full": "because memory was full and the disk could not be written",
    "disk": "because the disk could not be written",
    "damaged": "because the spool on disk was damaged",
    "inbox_full": "because the MQTT thread was stuck",
    "malformed": "because they could not be written as JSON",
}


class LossReporter:
    """Publishes one `error` event for each episode.

    An error event is a message itself, which a full spool or a failing disk may lose again:
    after each one there is a pause of `interval_s` seconds.
    """

    def __init__(self, report_error: Callable[[str], None], interval_s: float) -> None:
        self._report_error = report_error
        self._interval_s = interval_s
        self._reported: Counter[str] = Counter()
        self._losses_at = 0.0
        self._disk_at = 0.0
        self._disk_reported = False
        self._damaged_reported = 0

    def report_losses(self, now: float, dropped: Mapping[str, int]) -> None:
        """Reports messages that were lost since the last report. Call it when the rest is sent."""
        lost = {
            reason: dropped[reason] - self._reported[reason]
            for reason in _REASONS
            if dropped.get(reason, 0) > self._reported[reason]
        }
        if not lost or now < self._losses_at:
            return
        self._losses_at = now + self._interval_s
        self._reported.update(lost)
        parts = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in lost.items())
        log_event(_log, logging.WARNING, "mqtt-lost", f"messages were lost: {parts}")
        self._report_error(f"messages were lost: {parts}")

    def report_disk(self, now: float, error: str | None, damaged: int) -> None:
        """Reports an error of the disk, at once: somebody may still free the disk in time."""
        if error is None:
            self._disk_reported = False
        if now < self._disk_at:
            return
        if damaged > self._damaged_reported:
            self._report_error("a damaged spool was put aside: what cannot be read of it is lost")
        elif error is not None and not self._disk_reported:
            self._disk_reported = True
            self._report_error(error)
        else:
            return
        self._damaged_reported = damaged
        self._disk_at = now + self._interval_s
