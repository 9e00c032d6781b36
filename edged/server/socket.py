"""`GET /api/speech/asr`: one WebSocket, and the requests that share it."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType, web

from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event, Ready, to_json
from edged.options import Options
from edged.server.messages import Audio, End, Flush, Id, MessageError, Setup, parse
from edged.server.metrics import Metrics
from edged.server.outgoing import Outgoing
from edged.server.stream import Stream
from edged.server.streams import BusyError, Streams

SETUP_S = 15.0  # from connecting to `setup`
IDLE_S = 300.0  # without any message
MAX_RETRY_S = 60.0  # `retry_for_s` waits no longer for a free stream
MAX_REQUESTS = 64  # on one socket
MAX_SENTENCE = 300  # characters of an error
CALLERS_FAULT = 1008
_RETRY_EVERY_S = 0.1


class Request:
    """One logical request: what its stream tells goes out marked as its own."""

    def __init__(self, client_req_id: Id | None, closes: bool, connection: Connection) -> None:
        self.client_req_id = client_req_id
        self.closes = closes  # the socket, when this request ends
        self.stream: Stream | None = None
        self._connection = connection

    def wire(self, event: Event) -> str:
        message = event.wire()
        if self.client_req_id is not None:
            message["client_req_id"] = self.client_req_id
        return to_json(message)

    # -- edged.server.stream.Client, on a thread of the crew

    def events(self, events: Sequence[Event]) -> None:
        outgoing, last = self._connection.outgoing, events[-1]
        for event in events:
            outgoing.put(self.wire(event))
        if isinstance(last, EndOfStream | Error):
            self._connection.soon(self._connection.ended, self, last)

    def is_full(self) -> bool:
        return self._connection.outgoing.is_full

    def room(self) -> None:
        self._connection.soon(self._connection.room.set)


class Connection:
    """Owned by the loop, but for what `Request` says."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        streams: Streams,
        metrics: Metrics,
        admit: Callable[[], bool],
        abort: Callable[[], None],
    ) -> None:
        """`admit` is asked at each `setup` whether this client may begin another request; `abort`
        cuts the connection."""
        self._socket = socket
        self._streams = streams
        self._metrics = metrics
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Id | None, Request] = {}
        self._failed: deque[Id | None] = deque(maxlen=MAX_REQUESTS)
        self._begun = False  # there was a request
        self._last = False  # the socket closes once all requests are done
        self._closing = False
        self.room = asyncio.Event()
        self.outgoing = Outgoing(socket, abort, self._wake_streams)

    async def serve(self) -> None:
        """Until the client goes or everything it asked for is done."""
        writer = asyncio.create_task(self.outgoing.run())
        writer.add_done_callback(lambda _: self._sent())
        try:
            await self._read()
        finally:
            for request in list(self._requests.values()):
                self._forget(request)
            if not self._closing:
                self.outgoing.drop()
            await writer

    def refuse(
        self, sentence: str, code: int = CALLERS_FAULT, request_id: Id | None = None
    ) -> None:
        """An error that ends the socket."""
        event = Error(sentence[:MAX_SENTENCE], code)
        self._metrics.errors.labels(str(code)).inc()
        self.outgoing.put(Request(request_id, True, self).wire(event))
        self._close(code, event.message)

    def stop(self) -> None:
        """The door is closed."""
        self.refuse("edged is stopping", 1011)

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """On the loop, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def ended(self, request: Request, last: Event) -> None:
        """A request is over: it said so, or it failed. An error is the end of its request alone if
        others go on, else of the socket too."""
        if self._requests.get(request.client_req_id) is not request:
            return
        self._forget(request)
        if isinstance(last, Error):
            self._metrics.errors.labels(str(last.code)).inc()
            self._failed.append(request.client_req_id)
            if not self._requests:
                self._close(last.code, last.message)
        elif (request.closes or self._last) and not self._requests:
            self._close(1000)

    # -- inside

    async def _read(self) -> None:
        setup_by = self._loop.time() + SETUP_S
        while not self._closing:
            begun = self._begun
            patience = IDLE_S if begun else setup_by - self._loop.time()
            try:
                message = await self._socket.receive(timeout=max(0.001, patience))
            except TimeoutError:
                self.refuse(
                    f"nothing was received for {IDLE_S:.0f} s" if begun else "no setup was received"
                )
                return
            self.outgoing.heard()
            if message.type is WSMsgType.TEXT:
                await self._hear(message.data)
            elif message.type is WSMsgType.BINARY:
                self.refuse("messages are JSON in text frames, audio in them as base64")
            else:  # closed by the client, by us, or broken
                return

    async def _hear(self, text: str) -> None:
        try:
            message = parse(text)
            match message:
                case Setup():
                    await self._setup(message)
                case Audio() | Flush():
                    await self._pass_on(message)
                case End():
                    self._end(message)
        except MessageError as problem:
            self._fail(str(problem), problem.code, problem.client_req_id)

    async def _setup(self, setup: Setup) -> None:
        name = setup.client_req_id
        if name in self._requests:
            raise MessageError("this client_req_id is in use: end its request first", name)
        if len(self._requests) >= MAX_REQUESTS:
            raise MessageError(f"a socket carries {MAX_REQUESTS} requests at most", name)
        if not self._admit():
            raise MessageError("too many new sessions in a short time: try again later", name)
        request = Request(name, setup.close_ws_on_eos, self)
        try:
            request.stream, options = await self._open(setup, request)
        except RequestError as problem:
            self._fail(str(problem), problem.code, name)
            return
        if name in self._failed:
            self._failed.remove(name)
        self._requests[name] = request
        self._begun = True
        ready = Ready(str(uuid.uuid4()), setup.model_name, options.delay_in_frames)
        self.outgoing.put(request.wire(ready))

    async def _open(self, setup: Setup, request: Request) -> tuple[Stream, Options]:
        give_up = self._loop.time() + min(setup.retry_for_s, MAX_RETRY_S)
        while True:
            try:
                return self._streams.open(setup, request, "socket")
            except BusyError:
                if self._loop.time() >= give_up or self._closing:
                    raise
                await asyncio.sleep(_RETRY_EVERY_S)

    async def _pass_on(self, message: Audio | Flush) -> None:
        request = self._find(message.client_req_id)
        if request is None or request.stream is None:
            return
        stream = request.stream
        stream.submit(message)
        while stream.is_full and not self._closing:  # hold the client back, lose nothing
            self.room.clear()
            if stream.is_full:
                await self.room.wait()

    def _end(self, message: End) -> None:
        for_all = message.client_req_id is None and None not in self._requests
        if for_all and self._begun and len(self._requests) != 1:  # of a socket that was kept open
            self._last = True
            if not self._requests:
                self._close(1000)
            return
        request = self._find(message.client_req_id)
        if request is not None and request.stream is not None:
            request.stream.submit(message)

    def _find(self, name: Id | None) -> Request | None:
        """Whom a message is for. None: for a request that has failed, which may not know it yet.

        Raises MessageError for data before setup. A message without an id is for the request
        without one, or for the only one.
        """
        if name is None and None not in self._requests and len(self._requests) == 1:
            return next(iter(self._requests.values()))
        if name in self._requests:
            return self._requests[name]
        if name in self._failed:
            return None
        raise MessageError("the first message of a request must be setup", name)

    def _fail(self, sentence: str, code: int, name: Id | None) -> None:
        """Something the client did. It costs the request that it is about; without one, or if no
        other goes on, the socket."""
        request = self._requests.get(name)
        others = len(self._requests) - (request is not None)
        if name is None or not others:
            self.refuse(sentence, code, name)
            return
        event = Error(sentence[:MAX_SENTENCE], code)
        self._metrics.errors.labels(str(code)).inc()
        self.outgoing.put(Request(name, False, self).wire(event))
        self._failed.append(name)
        if request is not None:
            self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._requests[request.client_req_id]
        if request.stream is not None:
            self._streams.release(request.stream)
        self.room.set()

    def _wake_streams(self) -> None:
        for request in self._requests.values():
            if request.stream is not None:
                self._streams.wake(request.stream)

    def _sent(self) -> None:
        """Nothing more can be sent: nobody should wait for this client."""
        self._closing = True
        self.room.set()

    def _close(self, code: int, reason: str = "") -> None:
        self._closing = True
        self.room.set()
        self.outgoing.close(code, reason)
