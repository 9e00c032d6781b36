"""Makes the connection to the broker, supervises it, and makes the next one.

Everything here runs on the MQTT thread.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

from edged.events import to_json
from edged.logs import log_event
from edged.mqtt import homeassistant
from edged.mqtt.backoff import Backoff
from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connect_options import ConnectOptions, ConnectOptionsSelector
from edged.mqtt.connection_status import NOT_CONNECTED_YET, ConnectionReport, ConnectionStatus
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.inflight_window import InflightWindow
from edged.mqtt.link import Link
from edged.mqtt.link_events import Acknowledged, Connected, Disconnected, LinkEvent, Received
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.outbox import Outbox
from edged.mqtt.retained_topics import retained_message
from edged.mqtt.takeover_detector import TakeoverDetector

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.5
_CONNECT_ATTEMPTS_S = 12  # times `connect_s`: then the name resolver hangs

MakeLink = Callable[
    [BrokerSettings, ConnectOptions, tuple[str, ...], Callable[[Link, LinkEvent], None], Timing],
    Link,
]


class ConnectionState(Enum):
    """What the connection does. The arrows: WAITING > CONNECTING > CONNECTED > WAITING, and from
    each of them to DISCONNECTED by `close`, which is the last."""

    WAITING = "waiting"
    """There is no link; the next one is made at a set time."""
    CONNECTING = "connecting"
    """A link was started, and the broker has not answered."""
    CONNECTED = "connected"
    """The broker accepted the link."""
    DISCONNECTED = "disconnected"
    """Closed for good, or about to be."""


class Connection:
    """One connection at a time. Call `handle` with what a link reports, then `tick`; `due_s` says
    when to call it again.

    Args:
        broker: where to connect, and as whom.
        outbox: what has to be sent.
        on_event: gets what a link reports, on the link's thread; it must come back to `handle`.
        on_status: called at each change of status.
        on_command: called with the name and the message of each command.
        report_error: publishes an `error` event.
        timing: waiting times.
        make_link: makes a link.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        outbox: Outbox,
        on_event: Callable[[Link, LinkEvent], None],
        on_status: Callable[[ConnectionReport], None],
        on_command: Callable[[str, Received], None],
        report_error: Callable[[str], None],
        timing: Timing,
        make_link: MakeLink = Link,
    ) -> None:
        self.report = NOT_CONNECTED_YET
        """The present status."""
        self.retry_at = 0.0
        """When the next attempt begins, if the state is WAITING; monotonic seconds."""
        self._broker = broker
        self._outbox = outbox
        self._on_event = on_event
        self._on_status = on_status
        self._on_command = on_command
        self._timing = timing
        self._make_link = make_link
        self._window = InflightWindow(broker.topics, outbox, report_error, timing.report_interval_s)
        self._options = ConnectOptionsSelector(ConnectOptions(broker.protocol))
        self._backoff = Backoff(timing)
        self._takeover = TakeoverDetector(broker.client_id)
        self._homeassistant: HomeAssistantSettings | None = None
        self._discovery_topic: str | None = None  # where the device was announced
        self._birth_answer_at: float | None = None
        self._state = ConnectionState.WAITING
        self._link: Link | None = None
        self._since = 0.0  # when the present state began
        self._orphaned = False  # the link's thread was seen dead once
        self._connected: Connected | None = None
        self._without_retain = False  # this was logged

    @property
    def state(self) -> ConnectionState:
        return self._state

    @property
    def busy(self) -> bool:
        """Whether something can still be sent over the present connection."""
        return self._state is ConnectionState.CONNECTED and self._window.busy

    @property
    def sent(self) -> int:
        """How many publishes the broker has acknowledged."""
        return self._window.sent

    @property
    def dropped(self) -> Counter[str]:
        """How many messages the connection did not send, by reason."""
        return self._window.dropped

    def link_healthy(self, now: float) -> bool:
        """Whether the link is known to work: connected, and no acknowledgement is overdue."""
        waited = self._window.oldest_wait_s(now)
        return self._state is ConnectionState.CONNECTED and waited < self._timing.ack_timeout_s

    def due_s(self, now: float) -> float:
        """Returns the seconds until `tick` has something to do by the clock."""
        due = now + min(_LOOK_EVERY_S, self._timing.ack_timeout_s / 2)
        if self._state is ConnectionState.WAITING:
            due = min(due, self.retry_at)
        if self._birth_answer_at is not None:
            due = min(due, self._birth_answer_at)
        return max(0.0, due - now)

    # What the publisher wants.

    def set_retained(self, name: str, payload: bytes) -> None:
        """Publishes the retained topic `name` of the device, now and at each connection."""
        self._window.set_retained(retained_message(name, payload))

    def publish_step(self, message: OutboundMessage, now: float) -> None:
        """Sends a step at once or never."""
        self._window.publish_step(message, now)

    def announce(self, settings: HomeAssistantSettings) -> None:
        """Announces the device to Home Assistant as `settings` say, or removes it."""
        before, self._homeassistant = self._homeassistant, settings
        self._window.live_event_copies = settings.enabled
        topic = homeassistant.discovery_topic(settings.prefix, self._broker.device)
        removed = {topic, self._discovery_topic or topic}
        if settings.enabled:
            self._discovery_topic = topic
            described = homeassistant.discovery(self._broker.topics, settings)
            self._set_discovery(topic, to_json(described).encode())
            removed.discard(topic)
        for old in removed:
            self._set_discovery(old, b"")
        self._window.expect_refusals(removed)  # the device may well have no rights there
        birth_topic = _ha_birth_topic(settings)
        if birth_topic is not None and birth_topic != _ha_birth_topic(before) and self._link:
            self._link.subscribe(birth_topic)

    def reconfigure(self, broker: BrokerSettings) -> None:
        """Connects anew; what the old broker has not acknowledged goes to the new one."""
        old, self._broker = self._broker, broker
        moved = (old.address, old.topics) != (broker.address, broker.topics)
        link, connected = self._link, self._state is ConnectionState.CONNECTED
        if link is not None:
            if connected and moved:
                link.send(retained_message("availability", b"offline"), old.topics("availability"))
                link.close()
            else:
                link.abort()  # to the same broker: the Will waits, so nobody sees it
            now = time.monotonic()
            message = "reconnecting with new settings"
            self._end(Disconnected(ConnectionStatus.CONNECTING, message), now)
        self._window.use_topics(broker.topics)
        self._options = ConnectOptionsSelector(ConnectOptions(broker.protocol))
        self._backoff.reset()
        self._takeover = TakeoverDetector(broker.client_id)
        self._without_retain = False
        if self._homeassistant is not None:
            self.announce(self._homeassistant)
        self.retry_at = 0.0

    def say_offline(self) -> None:
        """Publishes that the device goes; `retained_pending` tells when the broker has it."""
        self.set_retained("availability", b"offline")

    @property
    def retained_pending(self) -> bool:
        return self._window.retained_pending

    def close(self) -> None:
        """Sends what is queued and disconnects for good; `closed` tells when that is over."""
        self._state = ConnectionState.DISCONNECTED
        if self._link is not None:
            self._link.close()

    @property
    def closed(self) -> bool:
        return self._link is None or not self._link.alive

    # What a link reports.

    def handle(self, link: Link, event: LinkEvent, now: float) -> None:
        if isinstance(event, Received):
            try:
                self._received(event, now)
            finally:
                link.acknowledge(event.token)
        elif link is self._link:  # otherwise it was abandoned
            match event:
                case Connected():
                    self._accepted(link, event, now)
                case Acknowledged():
                    self._window.acknowledged(event, now)
                    self._set_report(self._working())
                case Disconnected():
                    self._end(event, now)

    def _accepted(self, link: Link, event: Connected, now: float) -> None:
        if self._state is ConnectionState.CONNECTING:
            self._enter(ConnectionState.CONNECTED, now)
        self._connected = event
        if not event.retain_available and not self._without_retain:
            self._without_retain = True
            message = (
                f"{self._broker.address} keeps no retained messages (retain_available): states, "
                "availability and Home Assistant's discovery reach only who is subscribed already"
            )
            log_event(_log, logging.WARNING, "mqtt-no-retain", message)
        self.set_retained("availability", b"online")
        self._window.open(link, event)
        self._set_report(self._working())

    def _working(self) -> ConnectionReport:
        refusal = self._window.refusal
        if refusal is not None:
            return ConnectionReport(True, ConnectionStatus.AUTH, refusal)
        connected = self._connected or Connected(self._broker.protocol)
        version = "MQTT 5" if connected.protocol >= 5 else "MQTT 3.1.1"
        retain = "" if connected.retain_available else ", without retained messages"
        message = f"connected to {self._broker.address} ({version}{retain})"
        return ConnectionReport(True, ConnectionStatus.CONNECTED, message)

    def _received(self, message: Received, now: float) -> None:
        command = self._broker.topics.command_of(message.topic)
        if command is not None:
            self._on_command(command, message)
        elif self._is_birth(message) and self._state is ConnectionState.CONNECTED:
            # All devices hear it at once: spread the answers, as Home Assistant asks.
            delay_s = random.uniform(0, self._timing.ha_birth_delay_s)
            self._birth_answer_at = now + delay_s

    def _is_birth(self, message: Received) -> bool:
        return (
            message.topic == _ha_birth_topic(self._homeassistant)
            and message.payload == b"online"
            and not message.retained
        )

    def _end(self, event: Disconnected, now: float) -> None:
        """The link has ended or was given up."""
        was_connected, lasted_s = self._connected is not None, now - self._since
        self._link = self._connected = None
        self._birth_answer_at = None  # the next connection publishes everything anyway
        self._window.close(now, disconnected_by_peer=event.disconnected_by_peer)
        if was_connected:
            if self._takeover.settled(lasted_s, self._timing.stable_after_s):
                self._backoff.reset()
            event = self._takeover.judge(event, lasted_s, self._window.message_suspected)
        wait_s = self._backoff.wait_s(event.status)
        if self._options.disconnected(event):
            self._backoff.reset()
            wait_s = 0.0
        self.retry_at = now + wait_s
        if self._state is not ConnectionState.DISCONNECTED:
            self._enter(ConnectionState.WAITING, now)
        self._set_report(ConnectionReport(False, event.status, event.message))

    def _enter(self, state: ConnectionState, now: float) -> None:
        self._state, self._since = state, now

    def _set_report(self, report: ConnectionReport) -> None:
        if report != self.report:
            self.report = report
            level = logging.WARNING if report.status.is_error else logging.INFO
            log_event(
                _log, level, "mqtt-status", f"broker: {report.message}", mqtt_status=report.status
            )
            self._on_status(report)

    # By the clock.

    def tick(self, now: float) -> None:
        """Connects, sends what the window allows, and gives up a dead link."""
        match self._state:
            case ConnectionState.WAITING:
                if now >= self.retry_at:
                    self._connect(now)
            case ConnectionState.CONNECTING | ConnectionState.CONNECTED:
                if self._thread_is_dead(now):
                    return
                if self._state is ConnectionState.CONNECTED:
                    self._supervise(now)
                elif now - self._since > _CONNECT_ATTEMPTS_S * self._timing.connect_s:
                    self._abort(now, "no connection came about")
            case ConnectionState.DISCONNECTED:
                pass

    def _thread_is_dead(self, now: float) -> bool:
        if self._link is None or self._link.alive:
            return False
        # Its last event is on its way to us, or will never come: look once more.
        if self._orphaned:
            message = "the connection ended unexpectedly"
            self._end(Disconnected(ConnectionStatus.NETWORK, message), now)
        self._orphaned = True
        return True

    def _supervise(self, now: float) -> None:
        waited = self._window.oldest_wait_s(now)
        if waited >= self._timing.keepalive_timeout_s and self._link is not None:
            self._link.abort()
        elif waited >= self._timing.ack_timeout_s:
            self._outbox.flush_to_disk()
        if self._birth_answer_at is not None and now >= self._birth_answer_at:
            self._birth_answer_at = None
            self._window.publish_states()
        self._window.fill(now)

    def _abort(self, now: float, message: str) -> None:
        if self._link is not None:
            self._link.abort()
        self._end(Disconnected(ConnectionStatus.NETWORK, message), now)

    def _connect(self, now: float) -> None:
        subscriptions = [self._broker.topics.commands]
        birth_topic = _ha_birth_topic(self._homeassistant)
        if birth_topic is not None:
            subscriptions.append(birth_topic)
        if self._broker.insecure and self._broker.address.tls:
            message = "the broker's certificate is not checked: EDGED_MQTT_INSECURE is on"
            log_event(_log, logging.WARNING, "mqtt-insecure", message)
        self._enter(ConnectionState.CONNECTING, now)
        self._orphaned = False
        self._link = self._make_link(
            self._broker,
            self._options.options,
            tuple(subscriptions),
            self._on_event,
            self._timing,
        )
        self._link.start()

    def _set_discovery(self, topic: str, payload: bytes) -> None:
        """Publishes the discovery message, or removes the device with b""."""
        message = OutboundMessage(topic, "", payload, retain=True, durable=False, topic=topic)
        self._window.set_retained(message)


def _ha_birth_topic(settings: HomeAssistantSettings | None) -> str | None:
    return settings.birth_topic if settings is not None and settings.enabled else None
