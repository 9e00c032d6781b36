"""What is wrong with the store on disk, and when it is tried again."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from edged.logs import log_event
from edged.mqtt.clock import SYSTEM_CLOCK, Clock
from edged.mqtt.message_store import StoreError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiskRetry:
    """Waiting times in seconds.

    Attributes:
        retry_s: after a failure, until the next attempt.
        probe_every_s: while nothing has to be written, between two attempts to write.
        read_attempts: after so many failures to read in a row, the file is given up, because
            newer messages must not wait forever.
        longest_rest_s: longest pause for a disk that damages each new file.
        calm_s: after a rest and this long without damage, the next damage starts at no rest again.
    """

    retry_s: float = 5
    probe_every_s: float = 60
    read_attempts: int = 6
    longest_rest_s: float = 3600
    calm_s: float = 600


class DiskHealth:
    """Remembers the failures of one store and logs each episode once.

    Args:
        location: what the log lines call the store.
    """

    def __init__(
        self,
        location: str,
        retry: DiskRetry = DiskRetry(),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._location = location
        self._retry = retry
        self._now = clock.monotonic
        self._write_error: str | None = None
        self._read_error: str | None = None
        self._write_at = 0.0
        self._read_at = 0.0
        self._probe_at = 0.0
        self._read_failures = 0
        self._replaced_at = float("-inf")
        self._rest_s = 0.0

    @property
    def error(self) -> str | None:
        """What is wrong at present, as one sentence."""
        return self._read_error or self._write_error

    @property
    def may_write(self) -> bool:
        return self._now() >= self._write_at

    @property
    def may_read(self) -> bool:
        return self._now() >= self._read_at

    def write_failed(self, error: StoreError) -> None:
        self._write_at = max(self._write_at, self._now() + self._retry.retry_s)
        if self._write_error is None:
            message = f"the spool {self._location} cannot be used: {error}"
            log_event(_log, logging.WARNING, "spool-unusable", message)
        self._write_error = f"the spool {self._location} cannot be used: {error}"

    def write_succeeded(self) -> None:
        if self._write_error is not None:
            message = f"the spool {self._location} can be used again"
            log_event(_log, logging.INFO, "spool-usable", message)
        self._write_error = None

    def read_failed(self, error: StoreError) -> bool:
        """Notes a failure to read. Returns whether the file has to be given up."""
        if self._read_error is None:
            message = f"the spool {self._location} cannot be read: {error}"
            log_event(_log, logging.WARNING, "spool-unreadable", message)
        self._read_error = f"the spool {self._location} cannot be read: {error}"
        self._read_at = self._now() + self._retry.retry_s
        self._read_failures += 1
        return error.damaged or self._read_failures >= self._retry.read_attempts

    def read_succeeded(self) -> None:
        self._read_error, self._read_failures, self._read_at = None, 0, 0.0

    def file_replaced(self) -> None:
        """A damaged file was put aside. The new one is used at once the first time, then later
        and later: a disk that damages each new file would otherwise get one after the other."""
        now = self._now()
        calm = now - self._replaced_at >= self._rest_s + self._retry.calm_s
        longer = min(max(self._retry.probe_every_s, 2 * self._rest_s), self._retry.longest_rest_s)
        self._rest_s = 0.0 if calm else longer
        self._replaced_at, self._write_at = now, now + self._rest_s

    def try_now(self) -> None:
        """Allows an attempt to write at once: the last one, before the process ends."""
        self._write_at = 0.0

    def probe_due(self) -> bool:
        """Whether to find out if an error is over, because nothing else writes at present.

        With a healthy broker nothing is written, so that an error would be shown long after it.
        """
        now = self._now()
        if self._write_error is None or now < max(self._probe_at, self._write_at):
            return False
        self._probe_at = now + self._retry.probe_every_s
        return True
