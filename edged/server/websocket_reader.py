"""Receives WebSocket messages within a time limit, from a client that is still connected.

aiohttp's heartbeat and timeouts are not used: its receive timeout restarts at each ping (the
`websockets` library sends one every 20 s), and its heartbeat drops clients that are held back and
whose pongs wait behind audio.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from edged.events import Error, to_json

MAX_MESSAGE = 4 << 20  # bytes: 65 s of 24 kHz PCM in base64
MAX_REFUSED_MESSAGE = 1 << 16  # bytes, from clients that are refused or have nothing to send
HEARTBEAT_S = 60.0  # silence after which a client is pinged; it has half as long to answer
CLOSE_S = 5.0  # for the client's half of the closing handshake
LINGER_S = 1.0  # between an error and the close frame, while the client may still be sending
PONG_S = 30.0  # for sending a ping or pong to a client that does not read

_CLOSED = WSMessage(WSMsgType.CLOSED, None, None)
_REASONS = {
    WSCloseCode.MESSAGE_TOO_BIG: f"a message may have {MAX_MESSAGE >> 20} MB at most",
    WSCloseCode.INVALID_TEXT: "text frames must be UTF-8",
    WSCloseCode.PROTOCOL_ERROR: "not a valid WebSocket frame (RFC 6455)",
}


class WebSocket(web.WebSocketResponse):
    """A server-side WebSocket without compression, so that small messages cannot expand."""

    def __init__(
        self,
        max_message: int = MAX_MESSAGE,
        error_text: Callable[[str], str] = lambda reason: to_json(Error(reason, 1008).wire()),
        protocols: tuple[str, ...] = (),
    ) -> None:
        """`error_text` renders an error message as the protocol spoken on this socket does;
        `protocols` are the WebSocket subprotocols that it accepts."""
        super().__init__(
            max_msg_size=max_message,
            timeout=CLOSE_S,
            compress=False,
            autoping=False,
            protocols=protocols,
        )
        self._error_text = error_text

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Closes the socket. Where aiohttp closes it because of an invalid frame, the reason is
        sent first, and what the client still sends is read, so that the reason reaches it."""
        if not message and not self.closed and (reason := _REASONS.get(WSCloseCode(code))):
            message = reason.encode()
            with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
                async with asyncio.timeout(LINGER_S):
                    await self.send_str(self._error_text(reason))
                    await asyncio.sleep(LINGER_S)
        return await super().close(code=code, message=message, drain=drain)


class WebSocketReader:
    """Reads one socket. Must be used on the event loop."""

    def __init__(self, socket: WebSocket, abort: Callable[[], None]) -> None:
        """`abort` drops the connection."""
        self._socket = socket
        self._abort = abort
        self._loop = asyncio.get_running_loop()

    async def receive(self, timeout_s: float | None = None) -> WSMessage:
        """Returns the next text or binary message, or one that says that the socket is closed.

        Raises TimeoutError if nothing except pings arrived in `timeout_s`; None waits for ever.
        A client that answers no ping is dropped.
        """
        now = received_at = self._loop.time()
        deadline = None if timeout_s is None else now + max(0.0, timeout_s)
        pinged = False
        while True:
            alive_by = received_at + HEARTBEAT_S * (1.5 if pinged else 1.0)
            wait_until = alive_by if deadline is None else min(alive_by, deadline)
            try:
                message = await self._socket.receive(timeout=max(0.001, wait_until - now))
            except TimeoutError:
                now = self._loop.time()
                if deadline is not None and now >= deadline:
                    raise
                if pinged or not await self._was_sent(self._socket.ping()):
                    self._abort()
                    return _CLOSED
                pinged = True
                continue
            now = received_at = self._loop.time()
            pinged = False
            if message.type is WSMsgType.PING:
                if not await self._was_sent(self._socket.pong(message.data)):
                    self._abort()
                    return _CLOSED
            elif message.type is not WSMsgType.PONG:
                return message
            if deadline is not None and now >= deadline:
                raise TimeoutError

    async def _was_sent(self, sending: Awaitable[None]) -> bool:
        """False if the client does not read."""
        try:
            async with asyncio.timeout(PONG_S):
                await sending
        except (TimeoutError, ConnectionError, RuntimeError):  # aiohttp's errors for "closed"
            return False
        return True
