"""What a link reports to the connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edged.mqtt.connection_status import ConnectionStatus


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted the connection.

    Attributes:
        protocol: 5 or 4 (MQTT 3.1.1).
        receive_maximum: how many unacknowledged publishes the broker takes.
        retain_available: whether it keeps retained messages.
    """

    protocol: int
    receive_maximum: int = 65535
    retain_available: bool = True


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker answered a QoS 1 publish.

    Attributes:
        token: the one that `Link.send` was given.
        reason: the reason code; 128 and more is a refusal.
        reason_name: its name in lower case.
    """

    token: int
    reason: int
    reason_name: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message for this client.

    Attributes:
        payload: the beginning of it, if it is long.
        token: for `Link.acknowledge`; None for QoS 0, which needs no acknowledgement.
    """

    topic: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The end of a link.

    Attributes:
        status, message: why, for people.
        disconnected_by_peer: the broker closed a working connection.
        silent: the broker accepted the TCP connection and answered nothing.
        bad_version: it does not know this version of MQTT.
        retain_refused: it refused the Will because it keeps no retained messages.
    """

    status: ConnectionStatus
    message: str
    disconnected_by_peer: bool = False
    silent: bool = False
    bad_version: bool = False
    retain_refused: bool = False


LinkEvent: TypeAlias = Connected | Acknowledged | Received | Disconnected
