"""Which broker, as whom, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from edged.errors import ConfigError
from edged.mqtt.topics import Topics

_PORTS = {"mqtt": 1883, "mqtts": 8883}


def address(url: str) -> tuple[str, int]:
    """Host and port of `mqtt://host[:port]` or `mqtts://...`; ConfigError for anything else."""
    try:
        parts = urlsplit(url)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
        odd = parts.path not in ("", "/") or parts.query or parts.fragment
        secret = parts.username is not None or parts.password is not None
    except ValueError:
        host, port, scheme, odd, secret = None, None, "", True, False
    if secret:
        raise ConfigError(
            "EDGED_MQTT_URL must not hold a user or password: "
            "use EDGED_MQTT_USERNAME and EDGED_MQTT_PASSWORD"
        )
    if scheme not in _PORTS or not host or port == 0 or odd:
        raise ConfigError(
            f"EDGED_MQTT_URL must be mqtt://host or mqtts://host (a :port may follow), not {url!r}"
        )
    return host, port or _PORTS[scheme]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker and one device on it. Raises ConfigError for what can never work.

    `protocol` is 5 or 4 (MQTT 3.1.1); 5 falls back to 4 by itself. `insecure` skips the check of
    the broker's certificate.
    """

    url: str = "mqtt://localhost"
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
        address(self.url)
        Topics(self.base, self.device)

    @property
    def address(self) -> tuple[str, int]:
        return address(self.url)

    @property
    def tls(self) -> bool:
        return self.url.startswith("mqtts:")

    @property
    def client_id(self) -> str:
        return f"edged-{self.device}"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Tests make them short.

    connect_s: to reach the broker, and again for its answer. unproven_s: without an
    acknowledgement for this long, messages go to disk. dead_s: and for this long, the connection
    is given up. retry: first and longest wait after network trouble; retry_refused: after wrong
    credentials and the like. steady_s: a connection this old was a good one. birth_s: longest
    random wait after Home Assistant's birth message. will_delay_s: how long the broker (MQTT 5)
    hides that we are gone, so that a short Wi-Fi drop does not show. announce_s: least time between
    two errors that tell of dropped messages.
    """

    connect_s: float = 5
    keepalive_s: int = 30
    unproven_s: float = 1
    dead_s: float = 15
    retry: tuple[float, float] = (1, 30)
    retry_refused: tuple[float, float] = (5, 60)
    steady_s: float = 5
    birth_s: float = 5
    will_delay_s: int = 10
    announce_s: float = 30
