"""Which broker to connect to, as whom, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.topics import Topics


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker and one device on it.

    Attributes:
        address: host, port and whether to use TLS.
        base: the first levels of every topic.
        device: the level after `base`; also part of the client id.
        username, password: None for a broker that takes anonymous clients.
        ca_file: certificate of the authority that signed the broker's; None: the system's.
        cert_file, key_file: the certificate and key of this client; None: it has none.
        insecure: does not check the broker's certificate.
        protocol: 5 or 4 (MQTT 3.1.1). With 5, the connection falls back to 4 by itself.

    Raises ConfigError for a base or device that cannot be part of a topic.
    """

    address: BrokerAddress = BrokerAddress()  # noqa: RUF009  (frozen)
    base: str = "edged"
    device: str = "edged"
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False
    protocol: int = 5

    def __post_init__(self) -> None:
        Topics(self.base, self.device)

    @property
    def topics(self) -> Topics:
        return Topics(self.base, self.device)

    @property
    def client_id(self) -> str:
        return f"edged-{self.device}"


@dataclass(frozen=True, slots=True)
class Timing:
    """Waiting times in seconds. Tests make them short.

    Attributes:
        connect_s: longest wait for the TCP and TLS connection, and again for the CONNACK.
        keepalive_s: the keep-alive interval that CONNECT asks for.
        ack_timeout_s: if a publish waits this long for its acknowledgement, messages go to disk.
        keepalive_timeout_s: if it waits this long, the connection is closed.
        retry: first and longest wait before the next attempt after a network error.
        retry_refused: the same after a refusal, for instance of the credentials.
        stable_after_s: a connection that lasted this long resets the wait.
        ha_birth_delay_s: longest random wait after Home Assistant's birth message.
        will_delay_s: how long an MQTT 5 broker waits before it publishes the Will.
        report_interval_s: least time between two `error` events about the same failure.
    """

    connect_s: float = 5
    keepalive_s: int = 30
    ack_timeout_s: float = 1
    keepalive_timeout_s: float = 15
    retry: tuple[float, float] = (1, 30)
    retry_refused: tuple[float, float] = (5, 60)
    stable_after_s: float = 5
    ha_birth_delay_s: float = 5
    will_delay_s: int = 10
    report_interval_s: float = 30
