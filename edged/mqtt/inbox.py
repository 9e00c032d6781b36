"""What other threads hand to the MQTT thread. Each kind has its own bound."""

from __future__ import annotations

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
_RECEIVED = 64
_ROOM_S = 1.0  # how long the link waits for room for one more received message


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

    Putting something never blocks, except that a link waits a second for room for a received
    message: TCP then slows the broker down. `dropped` counts by reason; the oldest message or
    step is dropped first, and an answer before a durable message.
    """

    def __init__(self) -> None:
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._calls: list[Callable[[], None]] = []
        self._link_events: list[tuple[Link, LinkEvent]] = []
        self._received: list[tuple[Link, LinkEvent]] = []
        self._overloaded = False  # received messages are dropped at once
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
            self._changed.notify_all()

    def put_link_event(self, link: Link, event: LinkEvent) -> None:
        with self._changed:
            if isinstance(event, Received):
                self._put_received(link, event)
            else:
                self._link_events.append((link, event))
            self._changed.notify_all()

    def put_message(self, message: OutboundMessage) -> None:
        with self._changed:
            self._messages.append(message)
            for dropped in self._messages.trim():
                self._dropped["inbox_full" if dropped.durable else "reply"] += 1
            self._changed.notify_all()

    def put_step(self, message: OutboundMessage) -> None:
        with self._changed:
            if len(self._steps) >= _STEPS:
                self._steps.popleft()
                self._dropped["steps"] += 1
            self._steps.append(message)
            self._changed.notify_all()

    def put_retained(self, name: str, payload: bytes) -> None:
        """The last value of a name wins."""
        with self._changed:
            self._retained[name] = payload
            self._changed.notify_all()

    def take(self, timeout_s: float, *, received: bool = True) -> Batch:
        """Returns everything, after waiting at most `timeout_s` for the first thing.

        Without `received`, what a link has received stays where it is.
        """
        with self._changed:
            if not self._anything(received):
                self._changed.wait_for(lambda: self._anything(received), timeout_s)
            events = self._link_events
            if received:
                events = events + self._received
                self._received, self._overloaded = [], False
                self._changed.notify_all()
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

    def _put_received(self, link: Link, event: Received) -> None:
        if len(self._received) >= _RECEIVED and not self._overloaded:
            self._overloaded = not self._changed.wait_for(
                lambda: len(self._received) < _RECEIVED, _ROOM_S
            )
        if len(self._received) >= _RECEIVED:
            self._dropped["commands"] += 1
        else:
            self._received.append((link, event))

    def _anything(self, received: bool) -> bool:
        return bool(
            self._calls
            or self._link_events
            or (received and self._received)
            or len(self._messages)
            or self._steps
            or self._retained
        )
