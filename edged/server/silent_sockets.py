"""Accepted sockets whose clients have not sent anything yet.

They are kept apart from connections because they cost almost nothing: no TLS object, no buffers.
They are bounded too, and a new one replaces the oldest of the client that has the most. A client
that opens connections without using them can therefore never keep out one that sends its request at
once, even from the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable

from edged.server.connection_limits import client_of

MAX_SILENT = 256  # in all
MAX_SILENT_PER_ADDRESS = 128


class SilentSockets:
    """Waits for the first byte on each socket. All methods must be called on the event loop."""

    def __init__(self, on_data: Callable[[socket.socket, str], None]) -> None:
        """`on_data` takes over a socket, with the address of its client, once data arrived."""
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self._count = 0
        # For each client, the oldest socket first: address and time of acceptance.
        self._sockets: dict[str, OrderedDict[socket.socket, tuple[str, float]]] = {}

    def __len__(self) -> int:
        """The number of silent sockets."""
        return self._count

    def add(self, sock: socket.socket, address: str) -> None:
        """Waits for data on a non-blocking socket that was just accepted."""
        own = self._sockets.setdefault(client_of(address), OrderedDict())
        own[sock] = address, self._loop.time()
        self._count += 1
        self._loop.add_reader(sock, self._readable, sock, address)
        if len(own) > MAX_SILENT_PER_ADDRESS:
            self._close_oldest(own)
        elif self._count > MAX_SILENT:
            self._close_oldest(max(self._sockets.values(), key=len))

    def close_older_than(self, seconds: float) -> None:
        """Closes sockets that have been silent for so long."""
        before = self._loop.time() - seconds
        for own in list(self._sockets.values()):
            while own and next(iter(own.values()))[1] < before:
                self._close_oldest(own)

    def close(self) -> None:
        """Closes all of them."""
        for own in list(self._sockets.values()):
            while own:
                self._close_oldest(own)

    def _readable(self, sock: socket.socket, address: str) -> None:
        self._remove(sock, address)
        with contextlib.suppress(OSError):
            if sock.recv(1, socket.MSG_PEEK):
                self._on_data(sock, address)
                return
        sock.close()

    def _close_oldest(self, own: OrderedDict[socket.socket, tuple[str, float]]) -> None:
        sock, (address, _) = next(iter(own.items()))
        self._remove(sock, address)
        sock.close()

    def _remove(self, sock: socket.socket, address: str) -> None:
        self._loop.remove_reader(sock)
        client = client_of(address)
        own = self._sockets[client]
        del own[sock]
        self._count -= 1
        if not own:
            del self._sockets[client]
