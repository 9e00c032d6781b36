"""The retained topics: the last value of each, and which of them the broker does not have yet."""

from __future__ import annotations

from edged.mqtt.outbound import OutboundMessage

_FIRST = ("availability", "info")


class RetainedTopics:
    """The last message of each retained topic, by its key.

    Only one publish of a key is in flight at a time, so that an old value never overtakes a new
    one.
    """

    def __init__(self) -> None:
        self._messages: dict[str, OutboundMessage] = {}
        self._changed: dict[str, None] = {}  # keys in the order of change
        self._in_flight: set[str] = set()

    def set(self, message: OutboundMessage) -> None:
        """Takes a new value; one that is no change is not published again."""
        before = self._messages.get(message.key)
        if before is None or before.payload != message.payload:
            self._messages[message.key] = message
            self._changed[message.key] = None

    def publish_all(self) -> None:
        """Publishes everything, on a new connection; availability first."""
        self._in_flight.clear()
        keys = list(self._messages)
        self._changed = dict.fromkeys((*[k for k in _FIRST if k in keys], *keys))

    def publish_states(self) -> None:
        """Publishes everything after Home Assistant's birth message; discovery first."""
        keys = sorted(self._messages, key=lambda key: self._messages[key].topic is None)
        self._changed |= dict.fromkeys(keys)

    @property
    def pending(self) -> bool:
        """Whether the broker does not have everything yet."""
        return bool(self._changed or self._in_flight)

    def next(self) -> OutboundMessage | None:
        """Returns the next message to publish; `done` must follow."""
        for key in self._changed:
            if key not in self._in_flight:
                del self._changed[key]
                self._in_flight.add(key)
                return self._messages[key]
        return None

    def done(self, key: str) -> None:
        """The broker has answered, or the message was not sent."""
        self._in_flight.discard(key)

    def forget(self, key: str) -> None:
        """Drops a message that the broker never takes: only another value is sent again."""
        self._messages.pop(key, None)
        self._changed.pop(key, None)
        self._in_flight.discard(key)


def retained_message(name: str, payload: bytes) -> OutboundMessage:
    """Returns a retained message for the device's topic `name`."""
    return OutboundMessage(name, name, payload, retain=True, durable=False)
