"""The broker's address, parsed once: everything that connects or checks uses `BrokerAddress`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_SYNTAX = "mqtt://host or mqtts://host (a :port may follow)"
_TLS_SCHEMES = ("ssl", "tls", "mqtt+ssl", "mqtt+tls", "mqtt+tcps")
_PLAIN_SCHEMES = ("tcp", "mqtt+tcp")
_WEB_SCHEMES = ("ws", "wss", "http", "https")
_ZONE = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker listens.

    Attributes:
        host: a name or an IP address, without brackets.
        port: 1 to 65535.
        tls: whether the connection is encrypted.
    """

    host: str = "localhost"
    port: int = 1883
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Parses `mqtt://host[:port]` or `mqtts://host[:port]`; the scheme is case-insensitive.

        Raises ValueError with one sentence that begins with "must" and says which part is wrong.
        The sentence never contains a password, even if the URL does.
        """
        if any(c.isspace() or not c.isprintable() for c in url):
            raise ValueError(f"must be {_SYNTAX}, without spaces or control characters")
        scheme, separator, rest = url.partition("://")
        if "@" in rest or (not separator and "@" in url):
            raise ValueError(
                "must not hold a user or password: use EDGED_MQTT_USERNAME and EDGED_MQTT_PASSWORD"
            )
        if not separator:
            raise ValueError(
                f"must begin with mqtt:// or mqtts:// (TLS), as in mqtt://{_host(url)}"
            )
        tls = _tls(scheme.lower(), _host(rest))
        host, port = _host_and_port(rest.removesuffix("/"))
        return cls(host, _PORTS["mqtts" if tls else "mqtt"] if port is None else port, tls)

    def __str__(self) -> str:
        """`host:port`, as messages show it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a URL; `parse` returns an equal object."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self}"


def _host(rest: str) -> str:
    """What stands for the host in an example; "hub.local" if nothing usable was written."""
    host = re.split(r"[/?#]", rest)[0].strip(":")
    return (
        host
        if re.fullmatch(r"[\w.-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?", host)
        else "hub.local"
    )


def _tls(scheme: str, host: str) -> bool:
    if scheme in _PORTS:
        return scheme == "mqtts"
    if scheme in _TLS_SCHEMES:
        raise ValueError(f"must begin with mqtts://, not {scheme}://: write mqtts://{host}")
    if scheme in _PLAIN_SCHEMES:
        raise ValueError(f"must begin with mqtt://, not {scheme}://: write mqtt://{host}")
    if scheme in _WEB_SCHEMES:
        raise ValueError(
            f"must begin with mqtt:// or mqtts:// (TLS), not {scheme}://: "
            "edged does not use WebSockets, so give the port of the broker's MQTT listener"
        )
    raise ValueError(f"must be {_SYNTAX}, not {scheme[:20]}://")


def _host_and_port(rest: str) -> tuple[str, int | None]:
    extra = re.search(r"[/?#]", rest)
    if extra is not None:
        raise ValueError(f"must end after the host and port: remove {rest[extra.start() :][:40]!r}")
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        if not bracket:
            raise ValueError("must have a closing ']' after the IPv6 address")
        _check_ipv6(host)
        if after and not after.startswith(":"):
            raise ValueError(f"must be {_SYNTAX}; after ']' only :port may follow")
        return host, _port(after[1:]) if after else None
    if rest.count(":") > 1:
        raise ValueError(f"must have an IPv6 address in brackets, as in mqtt://[{_ipv6(rest)}]")
    host, colon, port = rest.partition(":")
    if not host:
        raise ValueError(f"must be {_SYNTAX}; the host is missing")
    wrong = [c for c in host if not (c.isalnum() or c in "-._")]
    if wrong:
        raise ValueError(f"must be {_SYNTAX}; a host name has no {wrong[0]!r}")
    return host.lower(), _port(port) if colon else None


def _check_ipv6(host: str) -> None:
    address, percent, zone = host.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise ValueError(f"must have an IPv6 address in the brackets, not {host[:60]!r}") from None
    if percent and not _ZONE.fullmatch(zone):
        raise ValueError("must have the name of a network interface after the % in the brackets")


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return "::1"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise ValueError(f"must have a port from 1 to 65535 after the colon, not {text[:20]!r}")
    return int(text)
