"""Checks in one short connection whether the broker works, and which other clients it knows."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.config.settings import Settings
from edged.doctor.finding import Finding
from edged.errors import ConfigError
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connect_errors import explain
from edged.mqtt.homeassistant import discovery_topic
from edged.mqtt.tls import tls_context
from edged.mqtt.topics import Topics

WHAT = "broker"
HOME = "Home Assistant"
CONNECT_S = 5.0
RETAINED_S = 1.0  # how long to wait for retained messages, which a broker sends at once
SLOW_S = 0.5
BAD_VERSION = "unsupported protocol version"


@dataclass
class Visit:
    """What a connection to the broker showed.

    refused: why the broker refused the connection or a message; None if it did not.
    broken: why there was no working connection; None if there was one.
    silent: the broker accepted the connection but did not answer.
    round_trip_s: time from publishing to the acknowledgement, seconds.
    retained: retained messages by topic, decoded from JSON where possible.
    """

    refused: str | None = None
    broken: str | None = None
    silent: bool = False
    round_trip_s: float | None = None
    retained: dict[str, Any] = field(default_factory=dict)


def visit(broker: BrokerSettings, topics: tuple[str, ...]) -> Visit:
    """Connects, publishes one message to `<base>/<device>/doctor` and reads retained `topics`.

    Tries MQTT 3.1.1 if the broker does not know MQTT 5. Never raises for a bad broker.
    """
    seen = _visit(broker, topics, broker.protocol)
    if broker.protocol >= 5 and (seen.silent or seen.refused == BAD_VERSION):
        return _visit(broker, topics, 4)
    return seen


def _visit(broker: BrokerSettings, topics: tuple[str, ...], protocol: int) -> Visit:
    seen = Visit()
    acked, connected = threading.Event(), threading.Event()

    def on_connect(client: Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            seen.refused = str(reason).lower()
        connected.set()

    def on_publish(_: Client, __: Any, ___: int, reason: ReasonCode, ____: Properties) -> None:
        if reason.is_failure:
            seen.refused = f"publishing is {str(reason).lower()}"
        acked.set()

    def on_message(_: Client, __: Any, message: MQTTMessage) -> None:
        with contextlib.suppress(UnicodeDecodeError):
            seen.retained[message.topic] = _value(bytes(message.payload).decode())

    try:
        with _client(broker, protocol) as client:
            client.on_connect, client.on_publish = on_connect, on_publish
            client.on_message = on_message
            host, port = broker.address.host, broker.address.port
            client.connect(host, port, 30)
            client.loop_start()
            if not connected.wait(CONNECT_S):
                seen.broken = f"{host}:{port} accepts connections but does not answer"
                seen.silent = True
                return seen
            if seen.refused:
                return seen
            started = time.monotonic()
            client.publish(Topics(broker.base, broker.device)("doctor"), b"hello", 1)
            if acked.wait(CONNECT_S):
                seen.round_trip_s = time.monotonic() - started
            client.subscribe([(topic, 1) for topic in topics])
            time.sleep(RETAINED_S)
    except (OSError, ConfigError) as problem:
        seen.broken = explain(broker, problem)[1]
    return seen


@contextlib.contextmanager
def _client(broker: BrokerSettings, protocol: int) -> Iterator[Client]:
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"{broker.client_id}-doctor",
        protocol=MQTTProtocolVersion.MQTTv5 if protocol >= 5 else MQTTProtocolVersion.MQTTv311,
    )
    client.connect_timeout = CONNECT_S
    if broker.username is not None:
        password = broker.password.get_secret_value() if broker.password else None
        client.username_pw_set(broker.username, password)
    if broker.address.tls:
        client.tls_set_context(tls_context(broker))
        client.tls_insecure_set(broker.insecure)
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


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
    """Judges the connection itself."""
    host, port = broker.address.host, broker.address.port
    where = f"{host}:{port}"
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
        return [
            Finding(
                "warn", WHAT, text, "Check the network (Wi-Fi signal) and the load of the broker."
            )
        ]
    return [Finding("ok", WHAT, text)]


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
