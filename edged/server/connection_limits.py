"""How many connections may be open: in all, from one address, and in reserve for health checks.

Only connections that have sent something are counted here; see `edged.server.silent_sockets`.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from enum import Enum, auto

MAX_CONNECTIONS = 128  # each TLS connection takes 256 kB for asyncio's read buffer
MAX_PER_ADDRESS = 64  # enough for EDGED_MAX_STREAMS=48 with a reverse proxy in front
RESERVED = 16  # further connections, which are answered only if they ask for /healthz


class Admission(Enum):
    """How a new connection is treated."""

    ADMITTED = auto()
    HEALTH_ONLY = auto()
    REFUSED = auto()


class ConnectionLimits:
    """Counts the open connections of all listeners, TLS handshakes in progress included."""

    def __init__(self) -> None:
        self._by_client: Counter[str] = Counter()
        self._total = 0
        self._reserved = 0

    @property
    def total(self) -> int:
        """Connections that are open, without those in reserve."""
        return self._total

    def admit(self, address: str, health_checks: bool = True) -> Admission:
        """Counts a connection from `address`. Whatever is not REFUSED must be released.

        `health_checks` False: the listener serves no `/healthz`, so there is no reserve.
        """
        client = client_of(address)
        if self._total < MAX_CONNECTIONS and self._by_client[client] < MAX_PER_ADDRESS:
            self._total += 1
            self._by_client[client] += 1
            return Admission.ADMITTED
        if health_checks and self._reserved < RESERVED:
            self._reserved += 1
            return Admission.HEALTH_ONLY
        return Admission.REFUSED

    def release(self, address: str, admission: Admission) -> None:
        """The connection is closed."""
        if admission is Admission.HEALTH_ONLY:
            self._reserved -= 1
        elif admission is Admission.ADMITTED:
            client = client_of(address)
            self._total -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]


def client_of(address: str) -> str:
    """What is counted as one client: an IPv4 address, or the /64 network of an IPv6 address, all of
    which one host may use."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_link_local:  # the whole network has one prefix
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
