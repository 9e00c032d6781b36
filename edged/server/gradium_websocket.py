"""`GET /api/speech/asr`: one WebSocket, and the requests that share it."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType

from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event, Ready, to_json
from edged.options import Options
from edged.server.gradium_messages import Audio, End, Flush, Id, MessageError, Setup, parse
from edged.server.metrics import Metrics
from edged.server.stream import Command, Stream, size_of
from edged.server.streams import BusyError, Streams
from edged.server.websocket_incoming import Incoming, Socket
from edged.server.websocket_outgoing import Outgoing

SETUP_S = 15.0  # from connecting to `setup`
IDLE_S = 300.0  # without any message
MAX_EARLY = 1 << 20  # bytes that wait for a free stream
MAX_RETRY_S = 60.0  # `retry_for_s` waits no longer for a free stream
MAX_REQUESTS = 64  # on one socket
MAX_SENTENCE = 300  # characters of an error
CALLERS_FAULT = 1008
TOO_MANY = "too many new sessions in a short time: try again later"
_RETRY_EVERY_S = 0.1


class Request:
    """One logical request: what its stream tells goes out marked as its own."""

    def __init__(self, client_req_id: Id | None, closes: bool, connection: Connection) -> None:
        self.client_req_id = client_req_id
        self.closes = closes  # the socket, when this request ends
        self.stream: Stream | None = None  # while it waits for a free one
        self.waits_for_one: asyncio.Task[None] | None = None
        self.early: list[Command] = []  # what came meanwhile
        self._early_bytes = 0
        self._connection = connection

    def wire(self, event: Event) -> str:
        message = event.wire()
        if self.client_req_id is not None:
            message["client_req_id"] = self.client_req_id
        return to_json(message)

    @property
    def waits(self) -> bool:
        """It is our turn."""
        return self.stream is None or self.stream.waits

    def submit(self, command: Command) -> None:
        if self.stream is not None:
            self.stream.submit(command)
        else:
            self.early.append(command)
            self._early_bytes += size_of(command)

    @property
    def has_enough(self) -> bool:
        """As much waits to be heard as may."""
        return self._early_bytes > MAX_EARLY if self.stream is None else self.stream.is_full

    # -- edged.server.stream.Client, on a thread of the crew

    def events(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, EndOfStream | Error):
                self._connection.soon(self._connection.ended, self, event)
            else:
                self._connection.outgoing.put(self.wire(event))

    def is_full(self) -> bool:
        return self._connection.outgoing.is_full

    def room(self) -> None:
        self._connection.soon(self._connection.room.set)


class Connection:
    """Owned by the loop, but for what `Request` says."""

    def __init__(
        self,
        socket: Socket,
        streams: Streams,
        metrics: Metrics,
        admit: Callable[[], bool],
        abort: Callable[[], None],
    ) -> None:
        """`admit` is asked at each `setup` whether this client may begin another request; `abort`
        cuts the connection."""
        self._incoming = Incoming(socket, abort)
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
        self.outgoing = Outgoing(socket, abort, self._has_room)

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
        others go on, else of the socket too. Its name is free before the client hears of it."""
        if self._requests.get(request.client_req_id) is not request:
            return
        self._forget(request)
        self.outgoing.put(request.wire(last))
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
                message = await self._incoming.receive(patience)
            except TimeoutError:
                # All may have been said just now; or the client has said what it wants, and waits.
                if self._closing or (begun and any(r.waits for r in self._requests.values())):
                    continue
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
            await self._until_room(lambda: self.outgoing.is_full)

    async def _hear(self, text: str) -> None:
        try:
            message = parse(text)
            match message:
                case Setup():
                    self._setup(message)
                case Audio() | Flush():
                    await self._pass_on(message)
                case End():
                    await self._end(message)
        except MessageError as problem:
            self._fail(str(problem), problem.code, problem.client_req_id)

    def _setup(self, setup: Setup) -> None:
        name = setup.client_req_id
        if name in self._requests:
            raise MessageError("this client_req_id is in use: end its request first", name)
        if len(self._requests) >= MAX_REQUESTS:
            raise MessageError(f"a socket carries {MAX_REQUESTS} requests at most", name)
        if not self._admit():
            raise MessageError(TOO_MANY, name)
        request = Request(name, setup.close_ws_on_eos, self)
        try:
            opened = self._streams.open(setup, request, "socket")
        except BusyError as problem:
            if setup.retry_for_s <= 0:
                self._no_stream(problem, name)
                return
            self._add(request)
            request.waits_for_one = asyncio.create_task(self._wait(setup, request))
        except RequestError as problem:
            self._fail(str(problem), problem.code, name)
        else:
            self._add(request)
            self._ready(setup, request, *opened)

    def _add(self, request: Request) -> None:
        if request.client_req_id in self._failed:
            self._failed.remove(request.client_req_id)
        self._requests[request.client_req_id] = request
        self._begun = True

    def _ready(self, setup: Setup, request: Request, stream: Stream, options: Options) -> None:
        request.stream = stream
        ready = Ready(str(uuid.uuid4()), setup.model_name, options.delay_in_frames)
        self.outgoing.put(request.wire(ready))
        for command in request.early:
            stream.submit(command)
        request.early.clear()
        self.room.set()

    async def _wait(self, setup: Setup, request: Request) -> None:
        """For a free stream; the socket is read meanwhile. Cancelled when the request goes."""
        give_up = self._loop.time() + min(setup.retry_for_s, MAX_RETRY_S)
        while True:
            await asyncio.sleep(_RETRY_EVERY_S)
            try:
                opened = self._streams.open(setup, request, "socket")
            except BusyError as problem:
                if self._loop.time() < give_up:
                    continue
                request.waits_for_one = None
                self._no_stream(problem, request.client_req_id)
            except RequestError as problem:  # the settings have changed
                request.waits_for_one = None
                self._fail(str(problem), problem.code, request.client_req_id)
            else:
                self._ready(setup, request, *opened)
            return

    def _no_stream(self, problem: BusyError, name: Id | None) -> None:
        self._metrics.refused.labels("streams").inc()
        self._fail(str(problem), problem.code, name)

    async def _pass_on(self, message: Command) -> None:
        request = self._find(message.client_req_id)
        if request is not None:
            request.submit(message)
            await self._until_room(lambda: request.has_enough)

    async def _until_room(self, is_full: Callable[[], bool]) -> None:
        """Holds the client back, and loses nothing."""
        while is_full() and not self._closing:
            self.room.clear()
            if is_full():
                await self.room.wait()

    async def _end(self, message: End) -> None:
        for_all = message.client_req_id is None and None not in self._requests
        if for_all and self._begun and len(self._requests) != 1:  # of a socket that was kept open
            self._last = True
            if not self._requests:
                self._close(1000)
        else:
            await self._pass_on(message)

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
        if request.waits_for_one is not None:
            request.waits_for_one.cancel()
        if request.stream is not None:
            self._streams.release(request.stream)
        self.room.set()

    def _has_room(self) -> None:
        """The client reads again."""
        self.room.set()
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
