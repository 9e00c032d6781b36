"""`GET /api/events`: the microphone's own events, for whoever wants to watch. Read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import WSMsgType

from edged.events import Error, Event, Ready, to_json
from edged.server.websocket_incoming import Incoming, Socket
from edged.server.websocket_outgoing import Outgoing

MAX_FOLLOWERS = 16


class Subscribers:
    """Everybody who watches. `tell` and `tell_state` are for any thread, the rest is the loop's.

    Who asks for them (`?states=on`: a page) also gets `state` messages, the last of each at once.
    """

    def __init__(self) -> None:
        self._followers: set[Outgoing] = set()
        self._with_states: set[Outgoing] = set()
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

    def tell_state(self, state: str) -> None:
        """One `state` message, as JSON."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out, [state], self._with_states)

    async def serve(
        self,
        socket: Socket,
        ready: Ready,
        abort: Callable[[], None],
        states: Sequence[str] | None,
    ) -> None:
        """Until the client goes or says something. `states`: those of now; None: it wants none."""
        outgoing = Outgoing(socket, abort)
        writer = asyncio.create_task(outgoing.run())
        if len(self._followers) >= MAX_FOLLOWERS:
            _send_away(outgoing, f"{MAX_FOLLOWERS} are following already", 1011)
        else:
            outgoing.put(to_json(ready.wire()))
            self._followers.add(outgoing)
            if states is not None:
                self._with_states.add(outgoing)
                for state in states:
                    outgoing.put(state)
        try:
            message = await Incoming(socket, abort).receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                _send_away(outgoing, "this stream is read-only", 1008)
            else:
                outgoing.drop()
        finally:
            self._forget(outgoing)
            await writer

    def stop(self) -> None:
        for outgoing in list(self._followers):
            _send_away(outgoing, "edged is stopping", 1011)

    def _hand_out(self, texts: list[str], to: set[Outgoing] | None = None) -> None:
        for outgoing in list(self._followers if to is None else to):
            if outgoing.is_full:
                self._forget(outgoing)
                _send_away(outgoing, "too slow to follow", 1008)
                continue
            for text in texts:
                outgoing.put(text)

    def _forget(self, outgoing: Outgoing) -> None:
        self._followers.discard(outgoing)
        self._with_states.discard(outgoing)


def state_message(name: str, value: Mapping[str, Any] | str) -> str:
    """Ours, like `turn`: what MQTT has as the retained `state/<name>`."""
    return to_json({"type": "state", "name": name, "value": value})


def _send_away(outgoing: Outgoing, sentence: str, code: int) -> None:
    outgoing.put(to_json(Error(sentence, code).wire()))
    outgoing.close(code, sentence)
