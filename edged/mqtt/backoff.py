"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random

from edged.mqtt.broker_settings import Timing
from edged.mqtt.connection_status import ConnectionStatus


class Backoff:
    """Doubles the wait from the first to the longest, with 20 % of jitter for fleets.

    After a refusal, for instance of the credentials, it waits longer: that does not go away by
    itself, and brokers ban clients that insist.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._attempts = 0
        self._refused: bool | None = None

    def reset(self) -> None:
        self._attempts = 0

    def wait_s(self, status: ConnectionStatus) -> float:
        """Returns the seconds to wait after a connection ended with `status`."""
        if status.is_refusal != self._refused:
            self._refused, self._attempts = status.is_refusal, 0
        first, longest = self._timing.retry_refused if self._refused else self._timing.retry
        wait = min(longest, first * 2.0 ** min(self._attempts, 20))
        self._attempts += 1
        return wait * random.uniform(0.8, 1.2)
