"""What goes between the link's thread and the courier: publishes one way, reports the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edged.mqtt.connection_status import ConnectionStatus


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One publish. `token` comes back in `Acknowledged` (QoS 1 only). `expiry_s` is MQTT 5's."""

    token: int
    topic: str
    payload: bytes
    qos: Literal[0, 1] = 1
    retain: bool = False
    expiry_s: int | None = None
    correlation: bytes | None = None

    @property
    def packet_bytes(self) -> int:
        """No less than the packet will take: with its fixed header and all properties."""
        return 128 + len(self.topic.encode()) + len(self.payload) + len(self.correlation or b"")


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took us. Its limits are for us to keep."""

    protocol: int
    receive_maximum: int
    maximum_packet: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A QoS 1 publish was answered; `reason` of 128 and more is a refusal."""

    token: int
    reason: int
    name: str


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The end of a link.

    `disconnected_by_peer`: it hung up on us. `silent`: it took our call and said nothing.
    """

    status: ConnectionStatus
    message: str
    disconnected_by_peer: bool = False
    silent: bool = False
    bad_version: bool = False


LinkEvent: TypeAlias = Connected | Acknowledged | Received | Disconnected
