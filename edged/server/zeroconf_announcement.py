"""Announces the Wyoming server in the local network, so that Home Assistant discovers it."""

from __future__ import annotations

import logging
import socket

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edged.logs import log_event

SERVICE_TYPE = "_wyoming._tcp.local."
_MDNS_ADDRESS = ("224.0.0.251", 5353)

_log = logging.getLogger(__name__)


class ZeroconfAnnouncement:
    """One service, announced until `close`. Used on the event loop."""

    def __init__(self, name: str, host: str, port: int) -> None:
        """`host` is the address on which the server listens; for 0.0.0.0 or ::, the address of this
        device in the local network is announced."""
        self._name = name
        self._host = host
        self._port = port
        self._zeroconf: AsyncZeroconf | None = None

    async def open(self) -> None:
        """Announces the service. A failure is logged, and changes nothing else."""
        try:
            any_address = self._host in ("0.0.0.0", "::")
            address = _local_address() if any_address else socket.gethostbyname(self._host)
            service = AsyncServiceInfo(
                SERVICE_TYPE,
                f"{self._name}.{SERVICE_TYPE}",
                addresses=[socket.inet_aton(address)],
                port=self._port,
            )
            # With no interface named, the package lists all of them by a netlink socket, which the
            # systemd unit forbids.
            self._zeroconf = AsyncZeroconf(interfaces=[address], ip_version=IPVersion.V4Only)
            await self._zeroconf.async_register_service(service, allow_name_change=True)
        except Exception as problem:  # the package raises many types
            log_event(
                _log,
                logging.WARNING,
                "api-not-announced",
                f"the Wyoming server could not be announced by zeroconf: {problem!r}",
            )

    async def close(self) -> None:
        """Withdraws the announcement."""
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()


def _local_address() -> str:
    """The IPv4 address from which this device sends multicast DNS. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_MDNS_ADDRESS)
        return str(probe.getsockname()[0])
