"""Finds the message because of which the broker closes the connection."""

from __future__ import annotations

from collections.abc import Sequence

_ALONE = 3
_STEP_AT_ONCE_S = 0.5


class PoisonMessageDetector:
    """Finds the message because of which the broker closes the connection.

    An MQTT 3.1.1 broker has no other way to refuse a message, and would be sent it forever. If it
    disconnects twice with the same oldest unacknowledged message, the next ones are sent one at a
    time (`one_at_a_time`). If it then disconnects three times over one message, that is the one.

    Steps have no acknowledgement: if the broker disconnects three times right after the first step
    of a connection, with nothing unacknowledged, it is the steps (`steps_refused`).
    """

    def __init__(self) -> None:
        self.one_at_a_time = False
        self.steps_refused = False
        self._suspect: str | None = None
        self._times = 0
        self._step_disconnects = 0

    @property
    def suspects_something(self) -> bool:
        """Whether a message, and not another client, may be why the broker disconnects."""
        return self.one_at_a_time or self._step_disconnects > 0

    def disconnected(self, unacknowledged: Sequence[str]) -> str | None:
        """The broker disconnected with these keys unacknowledged, oldest first.

        Returns the key of the message to give up.
        """
        if not unacknowledged:
            return None
        if unacknowledged[0] != self._suspect:
            self._suspect, self._times = unacknowledged[0], 0
        self._times += 1
        if not self.one_at_a_time:
            if self._times >= 2:
                self.one_at_a_time, self._times = True, 0
            return None
        if self._times < _ALONE or len(unacknowledged) > 1:
            return None
        self._suspect, self._times = None, 0
        return unacknowledged[0]

    def disconnected_after_step(self, seconds: float | None) -> bool:
        """The broker disconnected with nothing unacknowledged, so long after the connection's
        first step; None: there was none. Returns whether this proves that steps are the cause."""
        if seconds is None or seconds > _STEP_AT_ONCE_S:
            self._step_disconnects = 0
            return False
        self._step_disconnects += 1
        self.steps_refused = self._step_disconnects >= _ALONE
        return self.steps_refused

    def acknowledged(self, key: str) -> None:
        if key == self._suspect:
            self._suspect, self._times = None, 0

    def all_acknowledged(self) -> None:
        self.one_at_a_time = False
