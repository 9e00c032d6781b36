"""The events of the microphone for any number of read-only WebSockets (`GET /api/events`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import WSMsgType

from edged.events import Error, Event, Ready, to_json
from edged.server.websocket_reader import WebSocket, WebSocketReader
from edged.server.websocket_writer import WebSocketWriter

MAX_SUBSCRIBERS = 16


class Subscribers:
    """Everybody who receives the microphone's events.

    `publish` and `publish_state` may be called from any thread, everything else on the event loop.
    Subscribers with `?states=on` (the captions page) also get `state` messages: the latest of each
    name at once, and each change.
    """

    def __init__(self) -> None:
        self._all: set[WebSocketWriter] = set()
        self._with_states: set[WebSocketWriter] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def count(self) -> int:
        """The number of subscribers."""
        return len(self._all)

    def publish(self, events: Sequence[Event]) -> None:
        """Sends events to everybody. Never blocks. A subscriber that does not keep up is
        disconnected, because a gap would go unnoticed."""
        if not self._all or self._loop.is_closed():
            return
        texts = [to_json(event.wire()) for event in events]
        self._loop.call_soon_threadsafe(self._send, texts, self._all)

    def publish_state(self, message: str) -> None:
        """Sends one `state` message, as JSON text, to those who want states."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send, [message], self._with_states)

    async def serve(
        self,
        socket: WebSocket,
        ready: Ready,
        abort: Callable[[], None],
        states: Sequence[str] | None,
    ) -> None:
        """Serves one subscriber until it disconnects or sends something.

        `abort` drops its connection. `states` are the current `state` messages; None: it does not
        want them.
        """
        writer = WebSocketWriter(socket, abort)
        sending = asyncio.create_task(writer.run())
        if len(self._all) >= MAX_SUBSCRIBERS:
            _disconnect(writer, f"there are {MAX_SUBSCRIBERS} subscribers already", 1011)
        else:
            writer.put(to_json(ready.wire()))
            self._all.add(writer)
            if states is not None:
                self._with_states.add(writer)
                for state in states:
                    writer.put(state)
        try:
            message = await WebSocketReader(socket, abort).receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                _disconnect(writer, "this stream is read-only", 1008)
            else:
                writer.drop()
        finally:
            self._remove(writer)
            await sending

    def stop(self) -> None:
        """Disconnects everybody."""
        for writer in list(self._all):
            _disconnect(writer, "edged is stopping", 1011)

    def _send(self, texts: list[str], receivers: set[WebSocketWriter]) -> None:
        for writer in list(receivers):
            if writer.is_full:
                self._remove(writer)
                _disconnect(writer, "this client reads too slowly", 1008)
                continue
            for text in texts:
                writer.put(text)

    def _remove(self, writer: WebSocketWriter) -> None:
        self._all.discard(writer)
        self._with_states.discard(writer)


def state_message(name: str, value: Mapping[str, Any] | str) -> str:
    """A `state` message: what MQTT has as the retained topic `state/<name>`."""
    return to_json({"type": "state", "name": name, "value": value})


def _disconnect(writer: WebSocketWriter, message: str, code: int) -> None:
    writer.put(to_json(Error(message, code).wire()))
    writer.close(code, message)
