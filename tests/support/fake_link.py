"""A connection whose link and clock are the test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connect_options import ConnectOptions
from edged.mqtt.connection import Connection
from edged.mqtt.connection_status import ConnectionReport
from edged.mqtt.link_events import Acknowledged, Connected, Disconnected, LinkEvent, Received
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool_settings import SpoolSettings


@dataclass(frozen=True)
class Sent:
    """One publish that the link was given."""

    message: OutboundMessage
    payload: bytes
    topic: str
    token: int


class FakeLink:
    """Stands for a link: keeps what it is given, and never ends by itself."""

    def __init__(self, options: ConnectOptions = ConnectOptions(), max_packet: int = 10**6) -> None:  # noqa: B008
        self.options = options
        self.max_packet = max_packet
        self.sent: list[Sent] = []
        self.dropped = 0
        self.alive = True
        self.aborted = False

    def start(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.alive = False

    def subscribe(self, topic: str) -> None:
        pass

    def acknowledge(self, token: int | None) -> None:
        pass

    def send(self, message: OutboundMessage, topic: str, token: int = 0) -> bool:
        if len(message.payload) > self.max_packet:
            return False
        self.sent.append(Sent(message, message.payload, topic, token))
        return True

    def on(self, name: str) -> list[bytes]:
        """The payloads for the device's topic `name`."""
        return [sent.payload for sent in self.sent if sent.topic == f"edged/kitchen/{name}"]


class Driver:
    """A connection that is driven by hand: links are fakes, `now` is given to each call."""

    def __init__(self, folder: Path, timing: Timing = Timing(), max_packet: int = 10**6) -> None:  # noqa: B008
        self.outbox = Outbox(SpoolSettings(folder / "spool", journal_dir=folder / "journal"))
        self.outbox.open()
        self.errors: list[str] = []
        self.reports: list[ConnectionReport] = []
        self.links: list[FakeLink] = []
        self.max_packet = max_packet
        self.connection = Connection(
            BrokerSettings(device="kitchen"),
            self.outbox,
            lambda link, event: None,
            self.reports.append,
            lambda name, message: None,
            self.errors.append,
            timing,
            self._make_link,
        )

    def _make_link(
        self,
        broker: BrokerSettings,
        options: ConnectOptions,
        subscriptions: tuple[str, ...],
        on_event: Callable[[Any, LinkEvent], None],
        timing: Timing,
    ) -> Any:
        self.links.append(FakeLink(options, self.max_packet))
        return self.links[-1]

    @property
    def link(self) -> FakeLink:
        return self.links[-1]

    @property
    def retry_in_s(self) -> float:
        """How long until the next attempt, counted from `now` of the last event."""
        return self.connection.retry_at - self._now

    def connect(self, now: float) -> FakeLink:
        """Lets the next attempt begin at `now`, and succeed."""
        self.connection.retry_at = min(self.connection.retry_at, now)
        self.connection.tick(now)
        self.hear(Connected(5, 20), now)
        return self.link

    def hear(self, event: Connected | Acknowledged | Received | Disconnected, now: float) -> None:
        self._now = now
        self.connection.handle(self.link, event, now)  # type: ignore[arg-type]
