"""What is to be sent over one WebSocket: bounded, in order, and closed after the last of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import web

HIGH, LOW = 256, 64  # messages that wait: who writes stops at one and goes on at the other
SEND_S = 30.0  # a client that takes nothing for so long is gone
_REASON = 120  # bytes of a close frame's reason (RFC 6455 allows 123)


class Outgoing:
    """`put` and `is_full` are for any thread, the rest is the loop's."""

    def __init__(
        self, socket: web.WebSocketResponse, abort: Callable[[], None], on_room: Callable[[], None]
    ) -> None:
        """`abort` cuts the connection; `on_room` is called once what waits has gone down to LOW."""
        self._socket = socket
        self._abort = abort
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._texts: deque[str] = deque()
        self._wake = asyncio.Event()
        self._broken = False
        self._close: tuple[int, str] | None = None

    def put(self, text: str) -> None:
        """It is the writer's duty not to go on while `is_full`."""
        if self._broken:
            return
        self._texts.append(text)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def is_full(self) -> bool:
        return len(self._texts) >= HIGH

    def close(self, code: int, reason: str = "") -> None:
        """After what waits has been sent. The first call counts."""
        self._close = self._close or (code, reason)
        self._wake.set()

    def drop(self) -> None:
        """The client is gone: nothing more is sent."""
        self._broken = True
        self._texts.clear()
        self._wake.set()

    async def run(self) -> None:
        """Returns when all was sent and the socket closed, or the client was given up."""
        while not self._broken and (self._texts or self._close is None):
            if not self._texts:
                self._wake.clear()
                await self._wake.wait()
                continue
            text = self._texts.popleft()
            if not await self._send(text):
                self.drop()
                self._abort()
            elif len(self._texts) == LOW:
                self._on_room()
        if self._close is not None and not self._broken:
            code, reason = self._close
            await self._socket.close(code=code, message=_cut(reason))

    async def _send(self, text: str) -> bool:
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_str(text)
        except (TimeoutError, ConnectionError, RuntimeError):  # aiohttp's ways to say "gone"
            return False
        return True


def _cut(reason: str) -> bytes:
    return reason.encode()[:_REASON].decode(errors="ignore").encode()
