"""Sends messages over one WebSocket: in order, bounded, and closes it after the last one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from aiohttp import web

# Many clients send a whole file before they read the first answer, the vendor's own example among
# them. This much waits for them (the answers to 20 minutes of speech) before they are held back.
MAX_UNSENT = 4 << 20  # characters
SEND_S = 30.0  # a client that neither reads nor sends anything for so long is dropped
MAX_REASON = 120  # bytes of a close frame's reason (RFC 6455 allows 123)


class WebSocketWriter:
    """`put` and `is_full` may be called from any thread, everything else on the event loop."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        abort: Callable[[], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`abort` drops the connection; `on_room` is called when it is no longer full."""
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
        self._client_active_at = self._loop.time()

    def put(self, text: str) -> None:
        """Queues a message. The caller must not go on while `is_full`."""
        with self._lock:
            if self._broken:
                return
            self._texts.append(text)
            self._unsent += len(text)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def is_full(self) -> bool:
        """True from MAX_UNSENT on, until half of that has been sent."""
        with self._lock:
            if self._unsent >= MAX_UNSENT:
                self._was_full = True
            return self._was_full

    @property
    def unsent(self) -> int:
        """Characters that wait to be sent."""
        return self._unsent

    def client_active(self) -> None:
        """The client has sent something, so it is still there."""
        self._client_active_at = self._loop.time()

    def close(self, code: int, reason: str = "") -> None:
        """Closes the socket once everything queued has been sent. Only the first call counts."""
        self._close = self._close or (code, reason)
        self._wake.set()

    def drop(self) -> None:
        """The client is gone: discards everything queued."""
        with self._lock:
            self._broken = True
            self._texts.clear()
            self._unsent, self._was_full = 0, False
        self._wake.set()

    async def run(self) -> None:
        """Sends until the socket is closed or the client is dropped."""
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
            await self._socket.close(code=code, message=_shortened(reason))

    def _sent(self) -> None:
        with self._lock:
            if not self._texts:
                return  # dropped in the meantime
            self._unsent -= len(self._texts.popleft())
            has_room = self._was_full and self._unsent < MAX_UNSENT // 2
            if has_room:
                self._was_full = False
        if has_room:
            self._on_room()

    async def _send(self, text: str) -> bool:
        """False if the client is gone or has not read for SEND_S."""
        sending = asyncio.ensure_future(self._socket.send_str(text))
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=SEND_S)
                if not sending.done() and self._loop.time() - self._client_active_at >= SEND_S:
                    return False
            sending.result()
        except (ConnectionError, RuntimeError):  # aiohttp's errors for "closed"
            return False
        finally:
            sending.cancel()
        return True


def _shortened(reason: str) -> bytes:
    return reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
