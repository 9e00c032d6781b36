"""One connection to the broker: one thread, one paho client, one report of its end.

paho's own network thread, reconnection and queue are not used. Its thread dies silently on an
exception, and its queue is resent in one burst after a reconnection, whatever the broker's Receive
Maximum. A `Link` drives paho through its interface for external event loops, so that whatever
whatever happens ends in a `Disconnected`, and the connection makes a new Link.
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
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connect_errors import explain
from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.link_events import (
    Acknowledged,
    Connected,
    Disconnected,
    LinkEvent,
    Outgoing,
    Received,
)
from edged.mqtt.tls import tls_context
from edged.mqtt.topics import Topics

_OUR_MAX_PACKET = 64 * 1024  # what the broker may send us
_KEEP = 16 * 1024  # bytes of a command that are kept: enough to see that it is too long
_SESSION_EXPIRY_S = 60
_AUTH = (134, 135, 138, 140)  # CONNACK: bad user or password, not authorized, banned, bad method
_BAD_VERSION = 132
_TAKEN_OVER = 142


class Link:
    """A connection from its first packet to its last; used once. `report` is called on its thread.

    `send` only queues: the caller keeps to the window that `Connected` allows. QoS 0 is dropped,
    and counted, while the socket is full.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        protocol: int,
        subscriptions: tuple[str, ...],
        report: Callable[[Link, LinkEvent], None],
        timing: Timing,
    ) -> None:
        self.dropped = 0
        self._broker = broker
        self._v5 = protocol >= 5
        self._subscriptions = deque(subscriptions)
        self._report = report
        self._timing = timing
        self._out: deque[Outgoing] = deque()
        self._tokens: dict[int, int] = {}
        self._close_by: float | None = None
        self._aborted = False
        self._up = False
        self._reached = False
        self._answered = False
        self._bad_version = False
        self._by_broker = False
        self._why: tuple[ConnectionStatus, str] | None = None
        self._last_error = ""
        self._wake: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="edged-mqtt-link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def send(self, message: Outgoing) -> None:
        self._out.append(message)
        self._wake_up()

    def subscribe(self, topic: str) -> None:
        """One more topic to listen to."""
        self._subscriptions.append(topic)
        self._wake_up()

    def close(self) -> None:
        """Sends what is queued, then says goodbye, within 2 s. The Will is then not published."""
        self._close_by = time.monotonic() + 2
        self._wake_up()

    def abort(self) -> None:
        """Drops the connection without a goodbye."""
        self._aborted = True
        self._wake_up()

    # Below: the link's own thread.

    def _wake_up(self) -> None:
        wake = self._wake
        if wake is not None:
            # Full: it will wake anyway. Closed: there is nobody to wake.
            with contextlib.suppress(OSError):
                wake.send(b"\0")

    def _run(self) -> None:
        client: Client | None = None
        try:
            ours, self._wake = socket.socketpair()
            ours.setblocking(False)
            self._wake.setblocking(False)
            with ours, self._wake:
                client = self._build()
                self._connect(client)
                self._loop(client, ours)
            kind, message = self._why or self._lost()
        except Exception as problem:
            kind, message = self._why or explain(self._broker, problem)
        finally:
            if client is not None:
                _forget(client)
        silent = self._reached and not self._answered and not self._aborted
        self._report(self, Disconnected(kind, message, self._by_broker, silent, self._bad_version))

    def _build(self) -> Client:
        broker = self._broker
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            clean_session=None if self._v5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timing.connect_s
        client.on_socket_open = _at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_log = self._on_log
        if broker.username is not None:
            password = broker.password.get_secret_value() if broker.password else None
            client.username_pw_set(broker.username, password)
        if broker.address.tls:
            client.tls_set_context(tls_context(broker))
            client.tls_insecure_set(broker.insecure)
        will = _properties(PacketTypes.WILLMESSAGE)
        will.WillDelayInterval = self._timing.will_delay_s
        topic = Topics(broker.base, broker.device)("availability")
        client.will_set(topic, b"offline", 1, True, will if self._v5 else None)
        return client

    def _connect(self, client: Client) -> None:
        host, port = self._broker.address.host, self._broker.address.port
        if not self._v5:
            client.connect(host, port, self._timing.keepalive_s)
            return
        asked = _properties(PacketTypes.CONNECT)
        asked.SessionExpiryInterval = _SESSION_EXPIRY_S
        asked.MaximumPacketSize = _OUR_MAX_PACKET
        # Never a clean start: it would end our own session and so publish the Will we wish to hide.
        client.connect(host, port, self._timing.keepalive_s, clean_start=False, properties=asked)

    def _loop(self, client: Client, wake: socket.socket) -> None:
        self._reached = True
        answer_by = time.monotonic() + self._timing.connect_s
        said_goodbye = False
        while (sock := client.socket()) is not None and not self._aborted:
            if not self._answered and time.monotonic() > answer_by:
                raise TimeoutError
            readable, writable = self._wait(client, sock, wake)
            rc = client.loop_read() if readable else MQTTErrorCode.MQTT_ERR_SUCCESS
            if self._up:
                self._subscribe(client)
                self._publish_queued(client)
            if rc == 0 and writable:
                rc = client.loop_write()
            if rc == 0:
                rc = client.loop_misc()
            if rc != 0:
                return
            if self._close_by is None:
                continue
            if time.monotonic() > self._close_by or not self._answered:
                return
            if not said_goodbye and not self._out and not client.want_write():
                said_goodbye = True
                self._why = (ConnectionStatus.STOPPED, "disconnected")
                client.disconnect()

    def _wait(self, client: Client, sock: Any, wake: socket.socket) -> tuple[bool, bool]:
        """Until something is to be done: (readable, writable)."""
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
        while self._out:
            message = self._out.popleft()
            if message.qos == 0 and client.want_write():
                self.dropped += 1
                continue
            info = client.publish(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                self._properties(message) if self._v5 else None,
            )
            if message.qos:
                self._tokens[info.mid] = message.token

    def _properties(self, message: Outgoing) -> Properties:
        said = _properties(PacketTypes.PUBLISH)
        if message.payload:
            said.PayloadFormatIndicator = 1
            said.ContentType = (
                "application/json" if message.payload[:1] in (b"{", b"[") else "text/plain"
            )
        if message.expiry_s is not None:
            said.MessageExpiryInterval = message.expiry_s
        if message.correlation is not None:
            said.CorrelationData = message.correlation
        said.UserProperty = [("schema", "1"), ("device", self._broker.device)]
        return said

    def _on_connect(
        self, client: Client, _: Any, flags: ConnectFlags, reason: ReasonCode, props: Any
    ) -> None:
        self._answered = True
        if reason.is_failure:
            host, port = self._broker.address.host, self._broker.address.port
            self._bad_version = reason.value == _BAD_VERSION
            kind = ConnectionStatus.AUTH if reason.value in _AUTH else ConnectionStatus.PROTOCOL
            who = self._broker.username or "without a user name"
            hint = f" (as {who})" if kind is ConnectionStatus.AUTH else ""
            self._why = (kind, f"{host}:{port} refused us{hint}: {str(reason).lower()}")
            return
        self._up = True
        self._subscribe(client)
        up = Connected(
            5 if self._v5 else 4,
            getattr(props, "ReceiveMaximum", 65535),
            getattr(props, "MaximumPacketSize", 268_435_455),
        )
        self._report(self, up)

    def _on_disconnect(
        self, client: Client, _: Any, flags: DisconnectFlags, reason: ReasonCode, props: Any
    ) -> None:
        self._by_broker = not self._aborted and self._close_by is None
        if flags.is_disconnect_packet_from_server and self._why is None:
            if reason.value == _TAKEN_OVER:
                self._why = (
                    ConnectionStatus.DUPLICATE,
                    f"another client connected as {self._broker.client_id}: "
                    "give each box its own EDGED_DEVICE",
                )
            else:
                self._why = (ConnectionStatus.NETWORK, f"the broker hung up: {str(reason).lower()}")
        elif str(reason) == "Keep alive timeout":
            self._by_broker = False

    def _on_publish(self, client: Client, _: Any, mid: int, reason: ReasonCode, props: Any) -> None:
        token = self._tokens.pop(mid, None)
        if token is not None:
            self._report(self, Acknowledged(token, reason.value, str(reason).lower()))

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        props = message.properties
        self._report(
            self,
            Received(
                message.topic,
                bytes(message.payload[:_KEEP]),
                message.retain,
                getattr(props, "ResponseTopic", None),
                getattr(props, "CorrelationData", None),
            ),
        )

    def _on_log(self, client: Client, _: Any, level: int, text: str) -> None:
        if "on socket" in text:  # the only place where paho tells why a socket failed
            self._last_error = text

    def _lost(self) -> tuple[ConnectionStatus, str]:
        host, port = self._broker.address.host, self._broker.address.port
        if self._aborted:
            return ConnectionStatus.NETWORK, f"{host}:{port} stopped answering"
        if self._broker.address.tls and "alert" in self._last_error:
            return (
                ConnectionStatus.TLS,
                f"{host}:{port} refused our TLS certificate: {self._last_error}",
            )
        if not self._answered:
            hint = "" if self._broker.address.tls else " (does it expect TLS, mqtts://?)"
            return ConnectionStatus.NETWORK, f"{host}:{port} hung up before it answered{hint}"
        return ConnectionStatus.NETWORK, f"the connection to {host}:{port} was lost"


def _at_once(_client: Client, _userdata: Any, sock: Any) -> None:
    """Nagle's algorithm would hold a small packet back until the one before it is acknowledged,
    which a broker that has nothing to say puts off for 40 ms."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


def _forget(client: Client) -> None:
    """Closes the socket without a goodbye, and without callbacks."""
    client.on_disconnect = None
    sock = client.socket()
    if sock is not None:
        sock.close()
