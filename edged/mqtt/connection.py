"""Brings about the connection to the broker, watches it, and makes the next one.

Everything here runs on the MQTT thread.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

from edged.events import to_json
from edged.mqtt import homeassistant
from edged.mqtt.backoff import Backoff
from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connection_status import ConnectionReport, ConnectionStatus
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.inflight_window import Window
from edged.mqtt.link import Link
from edged.mqtt.link_events import (
    Acknowledged,
    Connected,
    Disconnected,
    LinkEvent,
    Outgoing,
    Received,
)
from edged.mqtt.outbox import Outbox
from edged.mqtt.retained import Retained
from edged.mqtt.topics import Topics

_log = logging.getLogger(__name__)
_LASTING_S = 60
_RECONCILED_S = 100  # of two boxes with one name each waits up to 72 s, and has the link as long


class Connection:
    """One at a time: `handle` what a link reports, then `tick`; `due_s` says when to come again."""

    def __init__(
        self,
        broker: BrokerSettings,
        outbox: Outbox,
        report: Callable[[Link, LinkEvent], None],
        on_state: Callable[[ConnectionReport], None],
        on_command: Callable[[str, Received], None],
        say: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self.retained = Retained()
        self.window = Window(Topics(broker.base, broker.device), outbox, self.retained, say)
        self.state = ConnectionReport(False, ConnectionStatus.CONNECTING, "not connected yet")
        self._broker = broker
        self._outbox = outbox
        self._report = report
        self._on_state = on_state
        self._on_command = on_command
        self._timing = timing
        self._protocol = broker.protocol
        self._silences = 0
        self._evictions = 0
        self._rivalled = False  # another client has taken our place lately
        self._backoff = Backoff(timing)
        self._homeassistant: HomeAssistantSettings | None = None
        self._birth_at: float | None = None
        self._link: Link | None = None
        self._link_since = 0.0
        self._orphaned = False
        self._up: Connected | None = None
        self._retry_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether something could still be sent over the present connection."""
        return self._up is not None and self.window.busy

    def proven(self, now: float) -> bool:
        """Whether the link is known to work: up, and nothing waits long for its answer."""
        waited = self.window.unanswered_s(now)
        return self._up is not None and waited < self._timing.ack_timeout_s

    def due_s(self, now: float) -> float:
        """Seconds until `tick` has something to do by the clock."""
        due = now + min(0.5, self._timing.ack_timeout_s / 2)
        if self._link is None:
            due = min(due, self._retry_at)
        if self._up is not None and self._birth_at is not None:
            due = min(due, self._birth_at)
        return max(0.0, due - now)

    # What others want.

    def homeassistant(self, settings: HomeAssistantSettings) -> None:
        """Announces the device as `settings` say; a device that was announced is removed."""
        before, self._homeassistant = self._homeassistant, settings
        self.window.live_copies = settings.enabled
        self.window.expected_refusals.clear()
        if before and before.enabled and before.prefix != settings.prefix:
            self._announce(before, b"")
        described = to_json(homeassistant.discovery(self.window.topics, settings)).encode()
        self._announce(settings, described if settings.enabled else b"")
        births = self._births(settings)
        if births is not None and births != self._births(before) and self._link is not None:
            self._link.subscribe(births)

    def reconfigure(self, broker: BrokerSettings) -> None:
        """Connects anew; what the old broker has not answered goes to the new one."""
        old, self._broker = self._broker, broker
        moved = (old.address, old.base, old.device) != (broker.address, broker.base, broker.device)
        offline = Outgoing(0, self.window.topics("availability"), b"offline", retain=True)
        self.window.topics = Topics(broker.base, broker.device)
        self._protocol = broker.protocol
        self._backoff.reset()
        if self._link is not None:
            if self._up is not None and moved:
                self._link.send(offline)
                self._link.close()
            else:
                self._link.abort()  # to the same broker: the Will waits, so nobody sees it
            self._ended(
                Disconnected(ConnectionStatus.CONNECTING, "reconnecting with new settings"),
                time.monotonic(),
            )
        if self._homeassistant is not None:
            self.homeassistant(self._homeassistant)
        self._rivalled = False  # the name may be another now
        self._evictions = 0
        self._retry_at = 0.0

    def disconnect(self) -> None:
        """Says goodbye. `gone` tells when it is over."""
        if self._link is not None:
            self._link.close()

    @property
    def gone(self) -> bool:
        return self._link is None or not self._link.alive

    # What a link reports.

    def handle(self, link: Link, report: LinkEvent, now: float) -> None:
        if link is not self._link:
            return  # an abandoned one
        match report:
            case Connected():
                self._connected(link, report, now)
            case Acknowledged():
                self.window.answered(report)
                self._became(self._working())
            case Received():
                self._incoming(report, now)
            case Disconnected():
                self._ended(report, now)

    def _connected(self, link: Link, up: Connected, now: float) -> None:
        self._up = up
        self._link_since = now
        self.retained.set("availability", b"online")
        self.window.open(link, up)
        self._became(self._working())

    def _working(self) -> ConnectionReport:
        refusal = self.window.refusal
        if refusal is not None:
            return ConnectionReport(True, ConnectionStatus.AUTH, refusal)
        host, port = self._broker.address.host, self._broker.address.port
        version = "5" if self._up is not None and self._up.protocol >= 5 else "3.1.1"
        return ConnectionReport(
            True, ConnectionStatus.CONNECTED, f"connected to {host}:{port} (MQTT {version})"
        )

    def _incoming(self, message: Received, now: float) -> None:
        command = self.window.topics.command_of(message.topic)
        if command is not None:
            self._on_command(command, message)
        elif self._is_birth(message):
            # All devices hear it at once: spread the answers, as Home Assistant asks.
            self._birth_at = now + random.uniform(0, self._timing.ha_birth_delay_s)

    def _is_birth(self, message: Received) -> bool:
        return (
            message.topic == self._births(self._homeassistant)
            and message.payload == b"online"
            and not message.retained
        )

    def _ended(self, down: Disconnected, now: float) -> None:
        up, self._up, self._link = self._up, None, None
        self._birth_at = None  # the next connection says everything anyway
        self.window.close(disconnected_by_peer=down.disconnected_by_peer)
        if up is not None:
            steady_s = _RECONCILED_S if self._rivalled else self._timing.stable_after_s
            if now - self._link_since >= steady_s:
                self._backoff.reset()
                self._rivalled = False
            down = self._judged(down, now)
            self._rivalled |= down.status is ConnectionStatus.DUPLICATE
        self._choose_protocol(down)
        self._retry_at = now + self._backoff.wait_s(down.status)
        self._became(ConnectionReport(False, down.status, down.message))

    def _judged(self, down: Disconnected, now: float) -> Disconnected:
        """Mosquitto 2.0 does not tell a client that another took its place: it just hangs up."""
        lasting_s = _RECONCILED_S if self._rivalled else _LASTING_S
        short = now - self._link_since < lasting_s and not self.window.suspicion.careful
        self._evictions = self._evictions + 1 if down.disconnected_by_peer and short else 0
        if self._evictions < 3 or down.status is not ConnectionStatus.NETWORK:
            return down
        who = self._broker.client_id
        sentence = (
            f"the broker hangs up on {who} again and again: if another box has that name, "
            "give each its own EDGED_DEVICE"
        )
        return replace(down, status=ConnectionStatus.DUPLICATE, message=sentence)

    def _choose_protocol(self, down: Disconnected) -> None:
        """MQTT 3.1.1 for brokers that refuse 5, be it by name or twice by silence."""
        if self._broker.protocol < 5:
            return
        if down.bad_version:
            self._protocol = 4
            self._backoff.reset()
        elif self._protocol >= 5:
            self._silences = self._silences + 1 if down.silent else 0
            if self._silences >= 2:
                self._protocol = 4
        elif self._silences:
            self._protocol, self._silences = 5, 1  # it may have been the network after all

    def _became(self, state: ConnectionReport) -> None:
        if state != self.state:
            calm = state.status in (
                ConnectionStatus.CONNECTED,
                ConnectionStatus.CONNECTING,
                ConnectionStatus.STOPPED,
            )
            level = logging.INFO if calm else logging.WARNING
            _log.log(level, "broker: %s", state.message, extra={"MQTT_STATE": state.status.value})
            self.state = state
            self._on_state(state)

    # By the clock.

    def tick(self, now: float) -> None:
        """Connects, sends what the window allows, and gives up what is dead."""
        if self._link is None:
            if now >= self._retry_at:
                self._connect(now)
            return
        if not self._link.alive:
            # Its last report is in the inbox by now, or it will never come: look once more.
            if self._orphaned:
                self._ended(
                    Disconnected(ConnectionStatus.NETWORK, "the connection ended unexpectedly"), now
                )
            self._orphaned = True
            return
        if self._up is None:
            if now - self._link_since > 12 * self._timing.connect_s:  # a resolver that hangs
                self._link.abort()
                self._ended(Disconnected(ConnectionStatus.NETWORK, "no connection came about"), now)
            return
        waited = self.window.unanswered_s(now)
        if waited >= self._timing.keepalive_timeout_s:
            self._link.abort()
        elif waited >= self._timing.ack_timeout_s:
            self._outbox.spill()
        if self._birth_at is not None and now >= self._birth_at:
            self._birth_at = None
            self.retained.states_again()
        self.window.fill(now)

    def _connect(self, now: float) -> None:
        subscriptions = [self.window.topics.commands]
        births = self._births(self._homeassistant)
        if births is not None:
            subscriptions.append(births)
        if self._broker.insecure and self._broker.address.tls:
            _log.warning("the broker's certificate is not checked: EDGED_MQTT_INSECURE is on")
        self._link_since = now
        self._orphaned = False
        self._link = Link(
            self._broker, self._protocol, tuple(subscriptions), self._report, self._timing
        )
        self._link.start()

    def _announce(self, settings: HomeAssistantSettings, payload: bytes) -> None:
        name = "/" + homeassistant.discovery_topic(settings.prefix, self._broker.device)
        self.retained.set(name, payload)
        if not payload:  # a device without Home Assistant may well have no rights there
            self.window.expected_refusals.add(name)

    @staticmethod
    def _births(settings: HomeAssistantSettings | None) -> str | None:
        return settings.birth_topic if settings is not None and settings.enabled else None
