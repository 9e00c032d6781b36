"""What one WebSocket says: messages, within a patience, from a client that is still there.

aiohttp's own heartbeat and time-outs do not do here. Its receive timeout starts anew at every ping
(the `websockets` library sends one each 20 s), and its heartbeat takes a client that is held back,
whose pong waits behind audio, for a dead one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from edged.events import Error, to_json

MAX_MESSAGE = 4 << 20  # bytes: 65 s of 24 kHz PCM in base64
HEARTBEAT_S = 60.0  # a client that answers no ping for half of that is gone
REFUSED_MESSAGE = 1 << 16  # bytes, of a client that is not let in: it could fill the memory else
CLOSE_S = 5.0  # for the client's half of the closing handshake
LINGER_S = 1.0
PONG_S = 30.0  # a client that does not take so small an answer is gone

_GONE = WSMessage(WSMsgType.CLOSED, None, None)
_WHY = {
    WSCloseCode.MESSAGE_TOO_BIG: f"a message may have {MAX_MESSAGE >> 20} MB at most",
    WSCloseCode.INVALID_TEXT: "text frames must be UTF-8",
    WSCloseCode.PROTOCOL_ERROR: "that is no WebSocket frame (RFC 6455)",
}


class Socket(web.WebSocketResponse):
    """Without compression: a small message must not unpack to a large one."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        super().__init__(max_msg_size=max_message, timeout=CLOSE_S, compress=False, autoping=False)

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """aiohttp closes by itself where a frame breaks the protocol: here it says why, and what
        the client was about to send is let go by, so that it can hear."""
        if not message and not self.closed and (why := _WHY.get(WSCloseCode(code))):
            message = why.encode()
            with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
                async with asyncio.timeout(LINGER_S):
                    await self.send_str(to_json(Error(why, 1008).wire()))
                    await asyncio.sleep(LINGER_S)
        return await super().close(code=code, message=message, drain=drain)


class Incoming:
    """Owned by the loop."""

    def __init__(self, socket: Socket, abort: Callable[[], None]) -> None:
        """`abort` cuts the connection."""
        self._socket = socket
        self._abort = abort
        self._loop = asyncio.get_running_loop()

    async def receive(self, patience_s: float | None = None) -> WSMessage:
        """The next text or binary message, or one that says that the connection is over.

        Raises TimeoutError if nothing but pings came in `patience_s` (None: no limit).
        """
        now = heard_at = self._loop.time()
        deadline = None if patience_s is None else now + max(0.0, patience_s)
        asked = False  # whether it is there, by a ping
        while True:
            until = heard_at + HEARTBEAT_S * (1.5 if asked else 1.0)
            first = until if deadline is None else min(until, deadline)
            try:
                message = await self._socket.receive(timeout=max(0.001, first - now))
            except TimeoutError:
                now = self._loop.time()
                if deadline is not None and now >= deadline:
                    raise
                if asked or not await self._answered(self._socket.ping()):
                    self._abort()
                    return _GONE
                asked = True
                continue
            now = heard_at = self._loop.time()
            asked = False
            if message.type is WSMsgType.PING:
                if not await self._answered(self._socket.pong(message.data)):
                    self._abort()
                    return _GONE
            elif message.type is not WSMsgType.PONG:
                return message
            if deadline is not None and now >= deadline:
                raise TimeoutError

    async def _answered(self, sending: Awaitable[None]) -> bool:
        """False: the client does not take it."""
        try:
            async with asyncio.timeout(PONG_S):
                await sending
        except (TimeoutError, ConnectionError, RuntimeError):  # aiohttp's ways to say "gone"
            return False
        return True
