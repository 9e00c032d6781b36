"""What other threads hand to the MQTT thread. Putting never blocks; each kind has its own bound."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from edged.events import Event
from edged.mqtt.link import Link
from edged.mqtt.link_events import LinkEvent, Received

_EVENTS = 4096  # minutes of speech, should the MQTT thread hang on a dying card
_STEPS = 64
_INCOMING = 64  # commands; a flood beyond is dropped and counted


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event with its place in the session. `seq` is 0 for a step, which has none."""

    event: Event
    seq: int
    ts: str
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a command."""

    payload: bytes
    topic: str
    correlation: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """All that had come, by kind, each in its order."""

    orders: list[Callable[[], None]]
    reports: list[tuple[Link, LinkEvent]]
    events: list[Numbered | Answer]
    steps: list[Numbered]
    retained: dict[str, bytes]


class Inbox:
    """Bounded, thread-safe. `dropped` counts by kind; the oldest event or step goes first."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self._ready = threading.Condition()
        self._orders: list[Callable[[], None]] = []
        self._reports: list[tuple[Link, LinkEvent]] = []
        self._incoming = 0
        self._events: deque[Numbered | Answer] = deque()
        self._taken = 0  # events of the batch at work
        self._steps: deque[Numbered] = deque()
        self._retained: dict[str, bytes] = {}

    def order(self, do: Callable[[], None]) -> None:
        """Something to be done on the MQTT thread."""
        with self._ready:
            self._orders.append(do)
            self._ready.notify()

    def report(self, link: Link, report: LinkEvent) -> None:
        with self._ready:
            if isinstance(report, Received):
                if self._incoming >= _INCOMING:
                    self.dropped["commands"] += 1
                    return
                self._incoming += 1
            self._reports.append((link, report))
            self._ready.notify()

    def event(self, item: Numbered | Answer) -> None:
        with self._ready:
            if len(self._events) >= _EVENTS:
                self._events.popleft()
                self.dropped["inbox_full"] += 1
            self._events.append(item)
            self._ready.notify()

    def step(self, item: Numbered) -> None:
        with self._ready:
            if len(self._steps) >= _STEPS:
                self._steps.popleft()
                self.dropped["steps"] += 1
            self._steps.append(item)
            self._ready.notify()

    def retain(self, name: str, payload: bytes) -> None:
        """The last value wins."""
        with self._ready:
            self._retained[name] = payload
            self._ready.notify()

    def take(self, timeout_s: float) -> Batch:
        """Everything, after waiting for the first thing at most so long."""
        with self._ready:
            if not self._anything():
                self._ready.wait(timeout_s)
            batch = Batch(
                self._orders,
                self._reports,
                list(self._events),
                list(self._steps),
                self._retained,
            )
            self._orders, self._reports, self._retained = [], [], {}
            self._events.clear()
            self._steps.clear()
            self._incoming = 0
            self._taken = len(batch.events)
            return batch

    def settled(self) -> None:
        """The batch that was taken is in the outbox."""
        self._taken = 0

    @property
    def events(self) -> int:
        """How many events are not in the outbox yet."""
        return len(self._events) + self._taken

    def _anything(self) -> bool:
        return bool(self._orders or self._reports or self._events or self._steps or self._retained)
