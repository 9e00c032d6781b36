"""Checks the broker: connects as the daemon does, publishes, and sees who else is there."""

from __future__ import annotations

import json
import queue
import time
from dataclasses import dataclass, field
from typing import Any

from edged.config.settings import Settings
from edged.doctor.finding import Finding
from edged.events import to_json
from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connect_options import ConnectOptions, ConnectOptionsSelector
from edged.mqtt.homeassistant import HomeAssistantSettings, discovery, discovery_topic
from edged.mqtt.link import PACKET_TOO_LARGE, Link, Will
from edged.mqtt.link_events import Acknowledged, Connected, Disconnected, LinkEvent, Received
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.topics import Topics

WHAT = "broker"
HOME = "Home Assistant"
CONNECT_S = 5.0
RETAINED_S = 1.0  # how long to wait for retained messages, which a broker sends at once
SLOW_S = 0.5
USUAL_BYTES = 4096  # a turn with all of its words
_NAME = "doctor"  # the topic below the device, and the end of the client id
_SMALL, _LARGE, _RETAINED = 0, 1, 2  # tokens


@dataclass
class Visit:
    """What was seen of a broker.

    Attributes:
        refused: why it refuses the login or a message, as a phrase; None: it does not.
        broken: why there was no connection, as a sentence; None: there was.
        round_trip_s: from a publish to its acknowledgement; None: none came.
        retained: what is retained, by topic; JSON is decoded.
        retain_available: whether it keeps retained messages.
        too_large: the size, in bytes, of a message that it does not take; None: it takes all.
    """

    refused: str | None = None
    broken: str | None = None
    round_trip_s: float | None = None
    retained: dict[str, Any] = field(default_factory=dict)
    retain_available: bool = True
    too_large: int | None = None


def visit(broker: BrokerSettings, topics: tuple[str, ...], largest: int = USUAL_BYTES) -> Visit:
    """Connects as the daemon does and reads what is retained at `topics`. Never raises.

    It uses the daemon's own link, with a retained Will, and publishes to
    `<base>/<device>/doctor`: a small message, one of `largest` bytes, and an empty retained one.
    It falls back to MQTT 3.1.1 and to no retained messages as the daemon does.
    """
    selector = ConnectOptionsSelector(ConnectOptions(broker.protocol), silences=1)
    while True:
        before = selector.options
        seen, end = _Visitor(broker, topics, largest, before).run()
        if end is None:
            return seen
        selector.disconnected(end)
        if selector.options in (before, ConnectOptions(broker.protocol)):
            return seen


class _Visitor:
    """One attempt, with one link."""

    def __init__(
        self,
        broker: BrokerSettings,
        topics: tuple[str, ...],
        largest: int,
        options: ConnectOptions,
    ) -> None:
        self._topic = broker.topics(_NAME)
        self._topics = topics
        self._largest = largest
        self._events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self._seen = Visit()
        self._sent_at = 0.0
        self._unanswered: set[int] = set()
        self._link = Link(
            broker,
            options,
            topics,
            lambda _, event: self._events.put(event),
            Timing(connect_s=CONNECT_S),
            Will(self._topic, b""),
            f"{broker.client_id}-{_NAME}",
        )

    def run(self) -> tuple[Visit, Disconnected | None]:
        """Returns what was seen, and how the attempt ended if the broker did not accept it."""
        self._link.start()
        first = self._events.get()
        if isinstance(first, Disconnected):
            name = "refused us"
            _, found, why = first.message.partition(name)
            if found:
                self._seen.refused = why.rpartition(": ")[2]
            else:
                self._seen.broken = first.message
            return self._seen, first
        assert isinstance(first, Connected)
        self._seen.retain_available = first.retain_available
        self._publish()
        self._listen(CONNECT_S, until_answered=True)
        self._listen(RETAINED_S, until_answered=False)
        self._link.close()
        return self._seen, None

    def _publish(self) -> None:
        self._sent_at = time.monotonic()
        for token, payload in (
            (_SMALL, b"hello"),
            (_LARGE, b" " * self._largest),
            (_RETAINED, b""),
        ):
            message = OutboundMessage(_NAME, _NAME, payload, retain=token == _RETAINED)
            if self._link.send(message, self._topic, token):
                self._unanswered.add(token)
            else:
                self._seen.too_large = len(payload)

    def _listen(self, timeout_s: float, *, until_answered: bool) -> None:
        deadline = time.monotonic() + timeout_s
        while self._unanswered or not until_answered:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            match event:
                case Acknowledged():
                    self._answered(event)
                case Received() if event.retained:
                    self._seen.retained[event.topic] = _value(event.payload)
                case Disconnected():
                    self._seen.broken = event.message
                    return

    def _answered(self, answer: Acknowledged) -> None:
        self._unanswered.discard(answer.token)
        if answer.token == _SMALL:
            self._seen.round_trip_s = time.monotonic() - self._sent_at
        if answer.reason == PACKET_TOO_LARGE:
            self._seen.too_large = self._largest
        elif answer.reason >= 128:
            self._seen.refused = f"publishing is {answer.reason_name}"


def _value(payload: bytes) -> Any:
    text = payload.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def largest_message(settings: Settings) -> int:
    """Returns the size, in bytes, of the largest message that the daemon usually publishes."""
    if not settings.homeassistant:
        return USUAL_BYTES
    about = HomeAssistantSettings(prefix=settings.homeassistant_prefix)
    found = discovery(Topics(settings.mqtt_base, settings.device), about)
    return max(USUAL_BYTES, len(to_json(found).encode()))


def watched(settings: Settings) -> tuple[str, ...]:
    """Returns the retained topics that show whether the daemon and Home Assistant are running."""
    topics = Topics(settings.mqtt_base, settings.device)
    prefix = settings.homeassistant_prefix
    return (
        topics("availability"),
        topics("state/mic"),
        topics("state/health"),
        f"{prefix}/status",
        discovery_topic(prefix, settings.device),
    )


def check_broker(broker: BrokerSettings, seen: Visit) -> list[Finding]:
    """Judges the broker itself."""
    where = broker.address
    if seen.broken:
        remedy = "Check that the broker runs and that EDGED_MQTT_URL is right (mqtts:// for TLS)."
        return [Finding("fail", WHAT, seen.broken, remedy)]
    if seen.refused:
        user = broker.username or "an anonymous client (EDGED_MQTT_USERNAME is not set)"
        remedy = (
            "Check EDGED_MQTT_USERNAME, EDGED_MQTT_PASSWORD and the access rules of the broker."
        )
        return [Finding("fail", WHAT, f"{where} refuses {user}: {seen.refused}", remedy)]
    if seen.round_trip_s is None:
        remedy = "Look at the log and the disk of the broker."
        return [Finding("fail", WHAT, f"{where} does not acknowledge messages", remedy)]
    text = f"{where} acknowledges in {seen.round_trip_s * 1000:.0f} ms"
    if seen.round_trip_s > SLOW_S:
        remedy = "Check the network (Wi-Fi signal) and the load of the broker."
        findings = [Finding("warn", WHAT, text, remedy)]
    else:
        findings = [Finding("ok", WHAT, text)]
    if seen.too_large is not None:
        text = f"{where} refuses messages of {seen.too_large} bytes, so that edged drops them"
        remedy = "Raise max_packet_size and message_size_limit of the broker to 262144."
        findings.append(Finding("warn", WHAT, text, remedy))
    if not seen.retain_available:
        text = f"{where} keeps no retained messages: clients that connect later see no states"
        remedy = "Allow retained messages (mosquitto: retain_available true)."
        findings.append(Finding("warn", WHAT, text, remedy))
    return findings


def check_home_assistant(settings: Settings, seen: Visit) -> list[Finding]:
    """Checks whether the device is announced to Home Assistant.

    Home Assistant's `status` topic is not retained by default, so its absence proves nothing.
    """
    if not settings.homeassistant:
        return [Finding("ok", HOME, "not announced, because EDGED_HOMEASSISTANT is off")]
    prefix = settings.homeassistant_prefix
    announced = bool(seen.retained.get(discovery_topic(prefix, settings.device)))
    here = seen.retained.get(f"{prefix}/status") == "online"
    if not announced:
        text = f"{settings.device} is not announced yet"
        remedy = "Start edged (sudo systemctl start edged); it announces itself when it connects."
        return [Finding("warn", HOME, text, remedy)]
    text = f"{settings.device} is announced" + (" and Home Assistant is online" if here else "")
    remedy = (
        ""
        if here
        else "If Home Assistant shows no device, add its MQTT integration (Settings, Devices)."
    )
    return [Finding("ok", HOME, text, remedy)]


def daemon_is_running(settings: Settings, seen: Visit) -> bool:
    """Whether a daemon with this device name is connected to the broker."""
    return (
        seen.retained.get(Topics(settings.mqtt_base, settings.device)("availability")) == "online"
    )


def check_running(settings: Settings, seen: Visit) -> list[Finding]:
    """Reports the microphone state of the running daemon, which has the microphone open."""
    topics = Topics(settings.mqtt_base, settings.device)
    mic, health = (seen.retained.get(topics(f"state/{name}")) for name in ("mic", "health"))
    findings = [Finding("ok", "daemon", f"edged is running as {settings.device}")]
    if isinstance(mic, dict):
        good = mic.get("ok") is True
        remedy = (
            "" if good else "Stop edged (sudo systemctl stop edged) and run `edged doctor` again."
        )
        level = health.get("level_dbfs") if isinstance(health, dict) else None
        loud = "" if level is None else f", level {level} dBFS"
        text = f"{mic.get('message')}{loud}"
        findings.append(Finding("ok" if good else "fail", "microphone", text, remedy))
    return findings
