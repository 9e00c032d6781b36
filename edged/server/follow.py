"""`GET /api/events`: the microphone's own events, for whoever wants to watch. Read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType, web

from edged.events import Error, Event, Ready, to_json
from edged.server.outgoing import Outgoing

MAX_FOLLOWERS = 16


class Followers:
    """Everybody who watches. `tell` is for the engine's thread, the rest is the loop's."""

    def __init__(self) -> None:
        self._followers: set[Outgoing] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def count(self) -> int:
        return len(self._followers)

    def tell(self, events: Sequence[Event]) -> None:
        """Never blocks. Who does not keep up is told so and sent away: a gap would be a lie."""
        if not self._followers or self._loop.is_closed():
            return
        texts = [to_json(event.wire()) for event in events]
        self._loop.call_soon_threadsafe(self._hand_out, texts)

    async def serve(
        self, socket: web.WebSocketResponse, ready: Ready, abort: Callable[[], None]
    ) -> None:
        """Until the client goes or says something."""
        outgoing = Outgoing(socket, abort)
        writer = asyncio.create_task(outgoing.run())
        if len(self._followers) >= MAX_FOLLOWERS:
            _send_away(outgoing, f"{MAX_FOLLOWERS} are following already", 1011)
        else:
            outgoing.put(to_json(ready.wire()))
            self._followers.add(outgoing)
        try:
            message = await socket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                _send_away(outgoing, "this stream is read-only", 1008)
            else:
                outgoing.drop()
        finally:
            self._followers.discard(outgoing)
            await writer

    def stop(self) -> None:
        for outgoing in list(self._followers):
            _send_away(outgoing, "edged is stopping", 1011)

    def _hand_out(self, texts: list[str]) -> None:
        for outgoing in list(self._followers):
            if outgoing.is_full:
                self._followers.discard(outgoing)
                _send_away(outgoing, "too slow to follow", 1008)
                continue
            for text in texts:
                outgoing.put(text)


def _send_away(outgoing: Outgoing, sentence: str, code: int) -> None:
    outgoing.put(to_json(Error(sentence, code).wire()))
    outgoing.close(code, sentence)
