"""One connection to the broker: one thread, one paho client, one report of its end.

paho's own network thread, reconnection and queue are not used: its thread dies silently on an
exception, and its queue is resent in one burst after a reconnection, whatever the broker's Receive
Maximum. A `Link` drives paho through its interface for external event loops, so that whatever
happens ends in a `Disconnected`, and the connection makes a new Link. Only the link's thread
touches paho.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connect_options import ConnectOptions
from edged.mqtt.connection_failure import describe_failure
from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.incoming_limit import remaining_length
from edged.mqtt.link_events import Acknowledged, Connected, Disconnected, LinkEvent, Received
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.paho_client import PahoClient, connect, make_client, properties

MAX_PACKET = 256 * 1024  # bytes that are sent at most, whatever the broker takes
_KEPT_PAYLOAD = 16 * 1024  # bytes of a command that are kept: enough to see that it is too long
_SESSION_EXPIRY_S = 60
_GOODBYE_S = 2.0
# Reason codes of MQTT 5 (OASIS, section 2.4).
_AUTH = (134, 135, 138, 140)  # bad user or password, not authorized, banned, bad method
_BAD_VERSION = 132
_TAKEN_OVER = 142
PACKET_TOO_LARGE = 149
_RETAIN_NOT_SUPPORTED = 154
_QOS_NOT_SUPPORTED = 155
_QOS_NEEDED = (
    "the broker takes no messages with QoS 1, which edged needs to lose none: "
    "allow QoS 1 in its settings"
)


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes at QoS 1, retained, for a client that vanished."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Queued:
    message: OutboundMessage
    payload: bytes  # as it was measured: the outbox may mark the message as delayed meanwhile
    topic: str
    token: int
    properties: Properties | None


class Link:
    """A connection from its first packet to its last; used once.

    Args:
        broker: where to connect, and as whom.
        options: the version of MQTT, and whether to retain.
        subscriptions: topic filters to subscribe to, with QoS 1.
        on_event: called on the link's thread; the last event is a Disconnected.
        timing: waiting times.
        will: by default `offline` on the device's `availability`.
        client_id: by default the device's.

    `send` only queues: the caller keeps to the Receive Maximum that `Connected` names. While the
    socket is full, messages with QoS 0 are dropped and counted in `dropped`.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        options: ConnectOptions,
        subscriptions: tuple[str, ...],
        on_event: Callable[[Link, LinkEvent], None],
        timing: Timing,
        will: Will | None = None,
        client_id: str | None = None,
    ) -> None:
        self.dropped = 0
        self.max_packet = MAX_PACKET
        """The largest packet, in bytes, that may be sent."""
        self._broker = broker
        self._options = options
        self._v5 = options.protocol >= 5
        self._retain = options.retain
        self._subscriptions = deque(subscriptions)
        self._on_event = on_event
        self._timing = timing
        self._will = will or Will(broker.topics("availability"), b"offline")
        self._client_id = client_id or broker.client_id
        self._queue: deque[_Queued] = deque()
        self._acknowledgements: deque[int] = deque()
        self._tokens: dict[int, int] = {}  # by packet identifier
        self._close_by: float | None = None
        self._aborted = False
        self._reached = False
        self._answered = False
        self._connected = False
        self._disconnected_by_peer = False
        self._bad_version = False
        self._retain_refused = False
        self._failure: tuple[ConnectionStatus, str] | None = None
        self._socket_error = ""
        self._wake: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="edged-mqtt-link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def send(self, message: OutboundMessage, topic: str, token: int = 0) -> bool:
        """Queues one publish. Returns False if its packet is larger than `max_packet`.

        `token` comes back in Acknowledged, for a message with QoS 1.
        """
        own = self._properties(message) if self._v5 else None
        if _packet_bytes(message, topic, own) > self.max_packet:
            return False
        self._queue.append(_Queued(message, message.payload, topic, token, own))
        self._wake_up()
        return True

    def acknowledge(self, token: int | None) -> None:
        """Acknowledges a received message. Until then the broker holds further ones back."""
        if token is not None:
            self._acknowledgements.append(token)
            self._wake_up()

    def subscribe(self, topic: str) -> None:
        """Subscribes to one more topic filter."""
        self._subscriptions.append(topic)
        self._wake_up()

    def close(self) -> None:
        """Sends what is queued, then DISCONNECT, within 2 s. The Will is then not published."""
        self._close_by = time.monotonic() + _GOODBYE_S
        self._wake_up()

    def abort(self) -> None:
        """Closes the connection without DISCONNECT, so that the Will is published."""
        self._aborted = True
        self._wake_up()

    # Below: the link's own thread, except for _properties and _wake_up.

    def _wake_up(self) -> None:
        wake = self._wake
        if wake is not None:
            # Full: it will wake anyway. Closed: there is nobody to wake.
            with contextlib.suppress(OSError):
                wake.send(b"\0")

    def _run(self) -> None:
        client: PahoClient | None = None
        try:
            ours, self._wake = socket.socketpair()
            ours.setblocking(False)
            self._wake.setblocking(False)
            with ours, self._wake:
                client = self._make_client()
                expiry_s = _SESSION_EXPIRY_S if self._v5 else None
                connect(client, self._broker, self._timing.keepalive_s, expiry_s)
                self._loop(client, ours)
            status, message = self._failure or self._lost()
        except Exception as error:
            status, message = self._failure or describe_failure(self._broker, error)
        finally:
            if client is not None:
                _close_socket(client)
        silent = self._reached and not self._answered and not self._aborted
        self._on_event(
            self,
            Disconnected(
                status,
                message,
                self._disconnected_by_peer,
                silent,
                self._bad_version,
                self._retain_refused,
            ),
        )

    def _make_client(self) -> PahoClient:
        client = make_client(
            self._broker,
            self._options.protocol,
            self._client_id,
            connect_timeout_s=self._timing.connect_s,
            manual_ack=True,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_log = self._on_log
        own = None
        if self._v5:
            own = properties(PacketTypes.WILLMESSAGE)
            own.WillDelayInterval = self._timing.will_delay_s
        client.will_set(self._will.topic, self._will.payload, 1, self._retain, own)
        return client

    def _loop(self, client: Client, wake: socket.socket) -> None:
        self._reached = True
        answer_by = time.monotonic() + self._timing.connect_s
        said_goodbye = False
        while (sock := client.socket()) is not None and not self._aborted:
            if not self._answered and time.monotonic() > answer_by:
                raise TimeoutError
            readable, writable = self._wait(client, sock, wake)
            code = client.loop_read() if readable else MQTTErrorCode.MQTT_ERR_SUCCESS
            if self._failure is not None:
                return
            if self._connected:
                self._subscribe(client)
                while self._acknowledgements:
                    client.ack(self._acknowledgements.popleft(), 1)
                self._publish_queued(client)
            if code == 0 and writable:
                code = client.loop_write()
            if code == 0:
                code = client.loop_misc()
            if code != 0:
                return
            if self._close_by is None:
                continue
            if time.monotonic() > self._close_by or not self._answered:
                return
            if not said_goodbye and not self._queue and not client.want_write():
                said_goodbye = True
                client.disconnect()

    def _wait(self, client: Client, sock: Any, wake: socket.socket) -> tuple[bool, bool]:
        """Waits until something is to be done; returns (readable, writable)."""
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        found = dict(poll.poll(0 if pending else 1000))
        if wake.fileno() in found:
            wake.recv(4096)
        events = found.get(sock.fileno(), 0)
        broken = events & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
        return pending or bool(events & select.POLLIN or broken), bool(events & select.POLLOUT)

    def _subscribe(self, client: Client) -> None:
        while self._subscriptions:
            topic = self._subscriptions.popleft()
            # Retain as published: a retained command is then known even while we are connected.
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            client.subscribe(topic, options=options) if self._v5 else client.subscribe(topic, 1)

    def _publish_queued(self, client: Client) -> None:
        while self._queue:
            queued = self._queue.popleft()
            message = queued.message
            if message.qos == 0 and client.want_write():
                self.dropped += 1
                continue
            info = client.publish(
                queued.topic,
                queued.payload,
                message.qos,
                message.retain and self._retain,
                queued.properties,
            )
            if message.qos:
                self._tokens[info.mid] = queued.token

    def _properties(self, message: OutboundMessage) -> Properties:
        own = properties(PacketTypes.PUBLISH)
        if message.payload:
            own.PayloadFormatIndicator = 1
            own.ContentType = (
                "application/json" if message.payload[:1] in (b"{", b"[") else "text/plain"
            )
        if message.expiry_s is not None:
            own.MessageExpiryInterval = message.expiry_s
        if message.correlation is not None:
            own.CorrelationData = message.correlation
        own.UserProperty = [("schema", "1"), ("device", self._broker.device)]
        return own

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, props: Any
    ) -> None:
        self._answered = True
        if reason.is_failure:
            self._refused(reason)
            return
        if getattr(props, "MaximumQoS", 2) < 1:
            self._failure = (ConnectionStatus.PROTOCOL, _QOS_NEEDED)
            return
        retain_available = bool(getattr(props, "RetainAvailable", 1)) and self._retain
        self._retain = retain_available
        self.max_packet = min(MAX_PACKET, getattr(props, "MaximumPacketSize", MAX_PACKET))
        self._connected = True
        self._on_event(
            self,
            Connected(
                self._options.protocol,
                getattr(props, "ReceiveMaximum", 65535),
                retain_available,
            ),
        )

    def _refused(self, reason: ReasonCode) -> None:
        self._bad_version = reason.value == _BAD_VERSION
        self._retain_refused = reason.value == _RETAIN_NOT_SUPPORTED
        if reason.value == _QOS_NOT_SUPPORTED:
            self._failure = (ConnectionStatus.PROTOCOL, _QOS_NEEDED)
            return
        status = ConnectionStatus.AUTH if reason.value in _AUTH else ConnectionStatus.PROTOCOL
        user = self._broker.username or "without a user name"
        hint = f" (as {user})" if status is ConnectionStatus.AUTH else ""
        message = f"{self._broker.address} refused us{hint}: {str(reason).lower()}"
        self._failure = (status, message)

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, reason: ReasonCode, _: Any
    ) -> None:
        self._disconnected_by_peer = not self._aborted and self._close_by is None
        if flags.is_disconnect_packet_from_server and self._failure is None:
            if reason.value == _TAKEN_OVER:
                self._failure = (
                    ConnectionStatus.DUPLICATE,
                    f"another client connected as {self._client_id}: "
                    "give each device its own EDGED_DEVICE",
                )
            else:
                self._failure = (
                    ConnectionStatus.NETWORK,
                    f"the broker closed the connection: {str(reason).lower()}",
                )
        elif str(reason) == "Keep alive timeout":
            self._disconnected_by_peer = False

    def _on_publish(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _props: Any
    ) -> None:
        token = self._tokens.pop(mid, None)
        if token is not None:
            self._on_event(self, Acknowledged(token, reason.value, str(reason).lower()))

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        props = message.properties
        self._on_event(
            self,
            Received(
                message.topic,
                bytes(message.payload[:_KEPT_PAYLOAD]),
                message.retain,
                getattr(props, "ResponseTopic", None),
                getattr(props, "CorrelationData", None),
                message.mid if message.qos else None,
            ),
        )

    def _on_log(self, _client: Client, _userdata: Any, _level: int, text: str) -> None:
        if "on socket" in text:  # the only place where paho says why a socket failed
            self._socket_error = text

    def _lost(self) -> tuple[ConnectionStatus, str]:
        where = self._broker.address
        if self._close_by is not None and self._answered:
            return ConnectionStatus.STOPPED, "disconnected"
        if self._aborted:
            return ConnectionStatus.NETWORK, f"{where} stopped answering"
        if where.tls and "alert" in self._socket_error:
            message = f"{where} refused our TLS certificate: {self._socket_error}"
            return ConnectionStatus.TLS, message
        if not self._answered:
            hint = "" if where.tls else " (does it expect TLS, mqtts://?)"
            message = f"{where} closed the connection before it answered{hint}"
            return ConnectionStatus.NETWORK, message
        return ConnectionStatus.NETWORK, f"the connection to {where} was lost"


def _packet_bytes(message: OutboundMessage, topic: str, own: Properties | None) -> int:
    """The size of the PUBLISH packet (OASIS MQTT 5.0, section 3.3)."""
    length = 2 + len(topic.encode()) + len(message.payload) + (2 if message.qos else 0)
    if own is not None:
        length += len(own.pack())  # type: ignore[no-untyped-call]
    return 1 + len(remaining_length(length)) + length


def _close_socket(client: Client) -> None:
    """Closes the socket without DISCONNECT and without callbacks."""
    client.on_disconnect = None
    sock = client.socket()
    if sock is not None:
        sock.close()
