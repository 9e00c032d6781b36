"""The one set-up of paho: for the daemon's link, `edged doctor` and `edged listen`."""

from __future__ import annotations

import socket
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.incoming_limit import IncomingLimit
from edged.mqtt.tls import tls_context

MAX_INCOMING = 64 * 1024  # bytes of a packet
RECEIVE_MAXIMUM = 64  # messages that an MQTT 5 broker may send without an acknowledgement
_DISCARD_AT_ONCE = 64 * 1024
_ANSWERS = [PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.SUBACK, PacketTypes.DISCONNECT]


class PahoClient(Client):
    """A paho client that bounds incoming packets and sends small packets at once."""

    def __init__(self, *args: Any, max_incoming: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_incoming = max_incoming
        self._incoming = IncomingLimit(max_incoming)
        self._passed = b""
        self.on_socket_open = self._socket_opened

    def _socket_opened(self, _client: Client, _userdata: Any, sock: Any) -> None:
        # Nagle's algorithm would hold a small packet back until the one before is acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = IncomingLimit(self.max_incoming)
        self._passed = b""

    def _sock_recv(self, bufsize: int) -> bytes:
        """Every byte that paho reads comes through here."""
        while not self._passed:
            discarding = self._incoming.discarding
            size = min(discarding, _DISCARD_AT_ONCE) if discarding else bufsize
            data = super()._sock_recv(size)
            if not data:
                return data
            self._passed = self._incoming.feed(data)
        data, self._passed = self._passed[:bufsize], self._passed[bufsize:]
        return data


def make_client(
    broker: BrokerSettings,
    protocol: int,
    client_id: str,
    *,
    connect_timeout_s: float,
    max_incoming: int = MAX_INCOMING,
    manual_ack: bool = False,
) -> PahoClient:
    """Returns a client that is not connected yet; use `connect`.

    Args:
        protocol: 5 or 4 (MQTT 3.1.1).
        client_id: empty for one that the broker chooses.
        max_incoming: bytes; the payload of a larger message is cut.
        manual_ack: received messages are acknowledged by `ack` only.

    Raises ConfigError for a certificate file that cannot be used.
    """
    client = PahoClient(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if protocol >= 5 else True,
        protocol=MQTTProtocolVersion.MQTTv5 if protocol >= 5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=manual_ack,
        max_incoming=max_incoming,
    )
    client.connect_timeout = connect_timeout_s
    if broker.username is not None:
        password = broker.password.get_secret_value() if broker.password else None
        client.username_pw_set(broker.username, password)
    if broker.address.tls:
        client.tls_set_context(tls_context(broker))
        client.tls_insecure_set(broker.insecure)
    return client


def connect(
    client: PahoClient,
    broker: BrokerSettings,
    keepalive_s: int,
    session_expiry_s: int | None = None,
) -> None:
    """Connects and sends CONNECT. Raises OSError.

    `session_expiry_s` is for MQTT 5: the broker keeps the session for so long after a connection
    is lost. None: a clean session.
    """
    host, port = broker.address.host, broker.address.port
    if session_expiry_s is None:
        client.connect(host, port, keepalive_s)
        return
    asked = properties(PacketTypes.CONNECT)
    asked.SessionExpiryInterval = session_expiry_s
    asked.MaximumPacketSize = client.max_incoming
    asked.ReceiveMaximum = RECEIVE_MAXIMUM
    # A clean start would end the session of before, and so publish its Will at once.
    client.connect(host, port, keepalive_s, clean_start=False, properties=asked)


def properties(packet: int) -> Properties:
    """Returns an empty set of MQTT 5 properties for a packet type of PacketTypes."""
    return Properties(packet)  # type: ignore[no-untyped-call]


def _accept_all_reason_codes() -> None:
    """Gives every failure a name in every answer of a broker.

    paho takes a reason code that the standard does not list for a packet for a malformed packet,
    and disconnects. Mosquitto refuses a publish with 0x95, "Packet too large", which is one.
    """
    names = {code: dict(of_code) for code, of_code in ReasonCode.names.items()}
    for code in range(128, 256):
        of_code = names.setdefault(code, {f"Reason code {code:#04x}": []})
        first = next(iter(of_code))
        known = {packet for packets in of_code.values() for packet in packets}
        of_code[first] = [*of_code[first], *(p for p in _ANSWERS if p not in known)]
    ReasonCode.names = names


_accept_all_reason_codes()
