"""What other threads hand to the MQTT thread. Each kind has its own bound."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from edged.mqtt.link import Link
from edged.mqtt.link_events import LinkEvent, Received
from edged.mqtt.message_buffer import MessageBuffer
from edged.mqtt.outbound import OutboundMessage

_MESSAGES = 4096  # minutes of speech, should the MQTT thread wait for a failing disk
_ANSWERS = 1024
_STEPS = 64
# The broker is asked to send at most 64 that need an acknowledgement, which mosquitto 2.0 exceeds
# several times over; messages with QoS 0 have no limit at all.
_RECEIVED_BYTES = 4 * 1024 * 1024
_OBJECT_BYTES = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """All that had come, by kind, each in its order."""

    calls: list[Callable[[], None]]
    link_events: list[tuple[Link, LinkEvent]]
    messages: list[OutboundMessage]
    steps: list[OutboundMessage]
    retained: dict[str, bytes]


class Inbox:
    """A bounded, thread-safe hand-over to the MQTT thread.

    Putting something never blocks. `dropped` counts by reason: the oldest message or step is
    dropped first, an answer before a durable message, and of received messages the newest.
    """

    def __init__(self) -> None:
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._calls: list[Callable[[], None]] = []
        self._link_events: list[tuple[Link, LinkEvent]] = []
        self._received: deque[tuple[Link, Received]] = deque()
        self._received_bytes = 0
        self._messages = MessageBuffer(_MESSAGES + _ANSWERS, _ANSWERS)
        self._taken = 0  # messages of the batch that is worked on
        self._steps: deque[OutboundMessage] = deque()
        self._retained: dict[str, bytes] = {}

    @property
    def dropped(self) -> Counter[str]:
        """How much was dropped, by reason."""
        with self._changed:
            return self._dropped.copy()

    def call(self, action: Callable[[], None]) -> None:
        """Runs `action` on the MQTT thread."""
        with self._changed:
            self._calls.append(action)
            self._changed.notify()

    def put_link_event(self, link: Link, event: LinkEvent) -> None:
        with self._changed:
            if isinstance(event, Received):
                size = self._received_bytes + _size(event)
                if size > _RECEIVED_BYTES:
                    self._dropped["commands"] += 1
                    link.acknowledge(event.token)
                    return
                self._received_bytes = size
                self._received.append((link, event))
            else:
                self._link_events.append((link, event))
            self._changed.notify()

    def put_message(self, message: OutboundMessage) -> None:
        with self._changed:
            self._messages.append(message)
            for dropped in self._messages.trim():
                self._dropped["inbox_full" if dropped.durable else "reply"] += 1
            self._changed.notify()

    def put_step(self, message: OutboundMessage) -> None:
        with self._changed:
            if len(self._steps) >= _STEPS:
                self._steps.popleft()
                self._dropped["steps"] += 1
            self._steps.append(message)
            self._changed.notify()

    def put_retained(self, name: str, payload: bytes) -> None:
        """The last value of a name wins."""
        with self._changed:
            self._retained[name] = payload
            self._changed.notify()

    def take(self, timeout_s: float, max_received: int = sys.maxsize) -> Batch:
        """Returns everything, after waiting at most `timeout_s` for the first thing.

        Of what links have received, it returns the oldest `max_received`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._anything(max_received), timeout_s)
            events = list(self._link_events)
            for _ in range(min(max_received, len(self._received))):
                link, received = self._received.popleft()
                self._received_bytes -= _size(received)
                events.append((link, received))
            batch = Batch(
                self._calls, events, list(self._messages), list(self._steps), self._retained
            )
            self._calls, self._link_events, self._retained = [], [], {}
            self._messages = MessageBuffer(_MESSAGES + _ANSWERS, _ANSWERS)
            self._steps.clear()
            self._taken = len(batch.messages)
            return batch

    def settled(self) -> None:
        """The batch that was taken is in the outbox."""
        self._taken = 0

    @property
    def waiting(self) -> int:
        """How many messages are not in the outbox yet."""
        return len(self._messages) + self._taken

    def _anything(self, max_received: int) -> bool:
        return bool(
            self._calls
            or self._link_events
            or (max_received > 0 and self._received)
            or len(self._messages)
            or self._steps
            or self._retained
        )


def _size(message: Received) -> int:
    """About how many bytes of memory a received message takes."""
    more = len(message.response_topic or "") + len(message.correlation or b"")
    return _OBJECT_BYTES + len(message.topic) + len(message.payload) + more
