"""How long to wait before the next connection, and which message makes the broker hang up."""

from __future__ import annotations

import random
from collections.abc import Sequence

from edged.mqtt.broker_settings import Timing
from edged.mqtt.connection_status import ConnectionStatus

_REFUSED = (
    ConnectionStatus.AUTH,
    ConnectionStatus.DUPLICATE,
    ConnectionStatus.TLS,
    ConnectionStatus.CONFIG,
    ConnectionStatus.PROTOCOL,
)


class Backoff:
    """Doubles from the first wait to the longest; +-20 %, so that a fleet does not come at once.

    Wrong credentials and the like wait longer: they do not mend themselves, and brokers ban.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._tries = 0
        self._refused: bool | None = None

    def reset(self) -> None:
        self._tries = 0

    def wait_s(self, kind: ConnectionStatus) -> float:
        refused = kind in _REFUSED
        if refused != self._refused:
            self._refused, self._tries = refused, 0
        first, longest = self._timing.retry_refused if refused else self._timing.retry
        wait = min(longest, first * 2.0 ** min(self._tries, 20))
        self._tries += 1
        return wait * random.uniform(0.8, 1.2)


class PoisonMessageDetector:
    """Finds the message over which the broker hangs up, and gives it up.

    An MQTT 3.1.1 broker has no other way to refuse a message, and would be sent it for ever. Twice
    the same oldest unanswered message: go on one at a time. Then three times alone: it is that one.
    """

    _ALONE = 3

    def __init__(self) -> None:
        self.careful = False
        self._suspect: str | None = None
        self._times = 0

    def hung_up(self, unanswered: Sequence[str]) -> str | None:
        """The broker hung up with these keys unanswered, oldest first: the one to give up."""
        if not unanswered:
            return None
        if unanswered[0] != self._suspect:
            self._suspect, self._times = unanswered[0], 0
        self._times += 1
        if not self.careful:
            if self._times >= 2:
                self.careful, self._times = True, 0
            return None
        if self._times < self._ALONE or len(unanswered) > 1:
            return None
        self._suspect, self._times = None, 0
        return unanswered[0]

    def answered(self, key: str) -> None:
        if key == self._suspect:
            self._suspect, self._times = None, 0

    def all_sent(self) -> None:
        self.careful = False
