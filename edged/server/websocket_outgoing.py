"""What is to be sent over one WebSocket: bounded, in order, and closed after the last of it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from aiohttp import web

# Many programs send all of a file before they read the first answer, the vendor's own example
# among them: this much waits for them (20 minutes of speech) before their audio does.
MAX_UNSENT = 4 << 20  # characters
SEND_S = 30.0  # a client that neither takes nor sends anything for so long is gone
_REASON = 120  # bytes of a close frame's reason (RFC 6455 allows 123)


class Outgoing:
    """`put` and `is_full` are for any thread, the rest is the loop's."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        abort: Callable[[], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`abort` cuts the connection; `on_room` is called when it is no longer full."""
        self._socket = socket
        self._abort = abort
        self._on_room = on_room
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._texts: deque[str] = deque()
        self._unsent = 0  # characters
        self._was_full = False
        self._wake = asyncio.Event()
        self._broken = False
        self._close: tuple[int, str] | None = None
        self._heard_at = self._loop.time()

    def put(self, text: str) -> None:
        """It is the writer's duty not to go on while `is_full`."""
        with self._lock:
            if self._broken:
                return
            self._texts.append(text)
            self._unsent += len(text)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def is_full(self) -> bool:
        with self._lock:
            if self._unsent >= MAX_UNSENT:
                self._was_full = True
            return self._was_full

    def heard(self) -> None:
        """The client is alive: it has sent something."""
        self._heard_at = self._loop.time()

    def close(self, code: int, reason: str = "") -> None:
        """After what waits has been sent. The first call counts."""
        self._close = self._close or (code, reason)
        self._wake.set()

    def drop(self) -> None:
        """The client is gone: nothing more is sent."""
        with self._lock:
            self._broken = True
            self._texts.clear()
            self._unsent, self._was_full = 0, False
        self._wake.set()

    async def run(self) -> None:
        """Returns when all was sent and the socket closed, or the client was given up."""
        while not self._broken and (self._texts or self._close is None):
            if not self._texts:
                self._wake.clear()
                await self._wake.wait()
            elif not await self._send(self._texts[0]):
                self.drop()
                self._abort()
            else:
                self._sent()
        if self._close is not None and not self._broken:
            code, reason = self._close
            await self._socket.close(code=code, message=_cut(reason))

    def _sent(self) -> None:
        with self._lock:
            if not self._texts:
                return  # dropped meanwhile
            self._unsent -= len(self._texts.popleft())
            room = self._was_full and self._unsent < MAX_UNSENT // 2
            if room:
                self._was_full = False
        if room:
            self._on_room()

    async def _send(self, text: str) -> bool:
        """False: the client is gone, or as good as."""
        sending = asyncio.ensure_future(self._socket.send_str(text))
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=SEND_S)
                if not sending.done() and self._loop.time() - self._heard_at >= SEND_S:
                    return False
            sending.result()
        except (ConnectionError, RuntimeError):  # aiohttp's ways to say "gone"
            return False
        finally:
            sending.cancel()
        return True


def _cut(reason: str) -> bytes:
    return reason.encode()[:_REASON].decode(errors="ignore").encode()
