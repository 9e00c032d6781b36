"""The announcement of the Wyoming server by multicast DNS."""

from __future__ import annotations

import asyncio
import logging
import socket

import ifaddr
import pytest
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from edged.server.zeroconf_announcement import SERVICE_TYPE, ZeroconfAnnouncement


def test_an_announced_server_is_found_though_the_unit_forbids_netlink_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`RestrictAddressFamilies=` in the unit has no AF_NETLINK, by which interfaces are listed."""

    def forbidden(*_: object, **__: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    async def run() -> None:
        announcement = ZeroconfAnnouncement("edged test", "127.0.0.1", 10300)
        with monkeypatch.context() as patched:
            patched.setattr(ifaddr, "get_adapters", forbidden)
            await announcement.open()
        browser = AsyncZeroconf(interfaces=["127.0.0.1"])
        name = f"edged test.{SERVICE_TYPE}"
        try:
            found: ServiceInfo | None = await browser.async_get_service_info(SERVICE_TYPE, name)
            assert found is not None
            assert found.port == 10300
            assert found.addresses == [socket.inet_aton("127.0.0.1")]
        finally:
            await announcement.close()
            await browser.async_close()

    asyncio.run(run())


def test_a_failure_is_logged_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        announcement = ZeroconfAnnouncement("edged test", "not an address", 10300)
        await announcement.open()
        await announcement.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "could not be announced" in caplog.text
