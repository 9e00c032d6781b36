"""One WebSocket of Gradium's API (`GET /api/speech/asr`), and the requests that share it."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType

from edged.audio.stream_decoders import decoder
from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event, Ready, to_json
from edged.options import Options
from edged.server.access import TOO_MANY_SESSIONS
from edged.server.gradium_messages import (
    AudioMessage,
    EndMessage,
    FlushMessage,
    Id,
    MessageError,
    SetupMessage,
    model_of,
    parse,
    session_options,
)
from edged.server.http_context import HttpContext
from edged.server.stream import COMMAND_BYTES, SERVER_FAULT, Stream
from edged.server.stream_pool import BusyError, NotLoadedError
from edged.server.websocket_reader import WebSocket, WebSocketReader
from edged.server.websocket_writer import WebSocketWriter

PROTOCOL = "gradium_websocket"
SETUP_S = 15.0  # from connecting to `setup`
IDLE_S = 300.0  # without any message
MAX_EARLY = 1 << 20  # bytes that are queued for a request that waits for a free stream
MAX_RETRY_S = 60.0  # bounds `retry_for_s`
MAX_REQUESTS = 64  # on one socket
MAX_ERROR = 300  # characters of an error message
CLIENT_FAULT = 1008
_RETRY_EVERY_S = 0.1


class GradiumRequest:
    """One request on a socket, which marks its messages with the request's id."""

    def __init__(
        self, client_req_id: Id | None, closes: bool, connection: GradiumConnection
    ) -> None:
        """`closes`: the socket is closed when this request ends."""
        self.client_req_id = client_req_id
        self.closes = closes
        self.stream: Stream | None = None  # None while it waits for a free one
        self.retrying: asyncio.Task[None] | None = None
        self._early: list[AudioMessage | FlushMessage | EndMessage] = []
        self._early_bytes = 0
        self._connection = connection

    def wire(self, event: Event) -> str:
        """An event as JSON text, with the request's id."""
        message = event.wire()
        if self.client_req_id is not None:
            message["client_req_id"] = self.client_req_id
        return to_json(message)

    @property
    def waits_for_server(self) -> bool:
        """The client has sent something that is not answered yet."""
        return self.stream is None or self.stream.is_busy

    @property
    def has_backlog(self) -> bool:
        """As much waits to be processed as may: no more should be submitted."""
        return self._early_bytes > MAX_EARLY if self.stream is None else self.stream.is_full

    def submit(self, message: AudioMessage | FlushMessage | EndMessage) -> None:
        """Passes a message to the stream, or keeps it until there is one."""
        if self.stream is None:
            self._early.append(message)
            size = len(message.data) if isinstance(message, AudioMessage) else 0
            self._early_bytes += COMMAND_BYTES + size
            return
        match message:
            case AudioMessage(data):
                self.stream.push(data)
            case FlushMessage(flush_id):
                self.stream.flush(flush_id)
            case EndMessage():
                self.stream.end()

    def begin(self, stream: Stream) -> None:
        """There is a stream now: passes on what was kept."""
        self.stream = stream
        for message in self._early:
            self.submit(message)
        self._early.clear()

    # -- StreamClient, on a worker thread

    def on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, EndOfStream | Error):
                self._connection.call_soon(self._connection.request_ended, self, event)
            else:
                self._connection.writer.put(self.wire(event))

    def is_full(self) -> bool:
        return self._connection.writer.is_full

    def on_room(self) -> None:
        self._connection.call_soon(self._connection.room.set)


class GradiumConnection:
    """Serves one socket on the event loop."""

    def __init__(
        self,
        socket: WebSocket,
        context: HttpContext,
        admit: Callable[[], bool],
        abort: Callable[[], None],
    ) -> None:
        """`admit` is called at each `setup` and tells whether the client may begin one more
        request; `abort` drops the connection."""
        self._reader = WebSocketReader(socket, abort)
        self._streams = context.streams
        self._metrics = context.metrics
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Id | None, GradiumRequest] = {}
        self._failed: deque[Id | None] = deque(maxlen=MAX_REQUESTS)
        self._had_request = False
        self._close_when_idle = False
        self._closing = False
        self.room = asyncio.Event()
        self.writer = WebSocketWriter(socket, abort, self._client_reads_again)

    async def serve(self) -> None:
        """Serves until the client disconnects or all of its requests are done."""
        sending = asyncio.create_task(self.writer.run())
        sending.add_done_callback(lambda _: self._writer_ended())
        try:
            await self._receive()
        finally:
            for request in list(self._requests.values()):
                self._remove(request)
            if not self._closing:
                self.writer.drop()
            await sending

    def refuse(self, message: str, code: int = CLIENT_FAULT, request_id: Id | None = None) -> None:
        """Sends an error and closes the socket."""
        event = Error(message[:MAX_ERROR], code)
        self._metrics.errors.labels(str(code)).inc()
        self.writer.put(GradiumRequest(request_id, True, self).wire(event))
        self._close(code, event.message)

    def stop(self) -> None:
        """The server is stopping."""
        self.refuse("edged is stopping", SERVER_FAULT)

    def call_soon(self, call: Callable[..., object], *args: object) -> None:
        """Calls a function on the event loop. May be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def request_ended(self, request: GradiumRequest, last: Event) -> None:
        """A request ended with `end_of_stream` or an error. An error closes the socket only if no
        other request goes on. The request's id is free again before the client is told."""
        if self._requests.get(request.client_req_id) is not request:
            return
        self._remove(request)
        self.writer.put(request.wire(last))
        if isinstance(last, Error):
            self._metrics.errors.labels(str(last.code)).inc()
            self._failed.append(request.client_req_id)
            if not self._requests:
                self._close(last.code, last.message)
        elif (request.closes or self._close_when_idle) and not self._requests:
            self._close(1000)

    async def _receive(self) -> None:
        setup_by = self._loop.time() + SETUP_S
        while not self._closing:
            had_request = self._had_request
            timeout_s = IDLE_S if had_request else setup_by - self._loop.time()
            try:
                message = await self._reader.receive(timeout_s)
            except TimeoutError:
                # The client may have sent all that it wants, and be waiting for the answers.
                if self._closing or (had_request and self._waits_for_server):
                    continue
                self.refuse(
                    f"nothing was received for {IDLE_S:.0f} s"
                    if had_request
                    else "no setup was received"
                )
                return
            self.writer.client_active()
            if message.type is WSMsgType.TEXT:
                await self._on_text(message.data)
            elif message.type is WSMsgType.BINARY:
                self.refuse("messages are JSON in text frames, audio in them as base64")
            else:  # the socket is closed or broken
                return
            await self._wait_while(lambda: self.writer.is_full)

    @property
    def _waits_for_server(self) -> bool:
        return any(request.waits_for_server for request in self._requests.values())

    async def _on_text(self, text: str) -> None:
        try:
            message = parse(text)
            match message:
                case SetupMessage():
                    self._setup(message)
                case EndMessage():
                    await self._end(message)
                case _:
                    await self._submit(message)
        except MessageError as problem:
            self._fail(str(problem), problem.code, problem.client_req_id)

    def _setup(self, setup: SetupMessage) -> None:
        name = setup.client_req_id
        if name in self._requests:
            raise MessageError("this client_req_id is in use: end its request first", name)
        if len(self._requests) >= MAX_REQUESTS:
            raise MessageError(f"a socket carries {MAX_REQUESTS} requests at most", name)
        if not self._admit():
            raise MessageError(TOO_MANY_SESSIONS, name)
        request = GradiumRequest(name, setup.close_ws_on_eos, self)
        try:
            stream, options = self._open(setup, request)
        except BusyError as problem:
            if setup.retry_for_s <= 0:
                self._fail_busy(problem, name)
                return
            self._add(request)
            request.retrying = asyncio.create_task(self._retry(setup, request, _RETRY_EVERY_S))
        except NotLoadedError:
            self._add(request)
            request.retrying = asyncio.create_task(self._retry(setup, request))
        except RequestError as problem:
            self._fail(str(problem), problem.code, name)
        else:
            self._add(request)
            self._begin(setup, request, stream, options)

    def _open(self, setup: SetupMessage, request: GradiumRequest) -> tuple[Stream, Options]:
        """Raises RequestError for a wrong setup, BusyError if all streams are in use,
        NotLoadedError if a model must be loaded first."""
        model = model_of(setup, lambda: self._streams.installed)
        options = session_options(setup, self._streams.options(model))
        audio = decoder(setup.input_format)
        return self._streams.open(options, audio, request, PROTOCOL, model=model), options

    async def _open_when_loaded(
        self, setup: SetupMessage, request: GradiumRequest
    ) -> tuple[Stream, Options]:
        while True:
            try:
                return self._open(setup, request)
            except NotLoadedError as missing:
                await self._streams.load(missing.model)

    def _add(self, request: GradiumRequest) -> None:
        if request.client_req_id in self._failed:
            self._failed.remove(request.client_req_id)
        self._requests[request.client_req_id] = request
        self._had_request = True

    def _begin(
        self, setup: SetupMessage, request: GradiumRequest, stream: Stream, options: Options
    ) -> None:
        ready = Ready(
            str(uuid.uuid4()),
            stream.model,
            options.delay_in_frames,
            keyterms=stream.keyterms,
            language=stream.language,
        )
        self.writer.put(request.wire(ready))
        request.begin(stream)
        self.room.set()

    async def _retry(
        self, setup: SetupMessage, request: GradiumRequest, wait_s: float = 0.0
    ) -> None:
        """Loads the model if that is needed, and tries to open a stream until `retry_for_s` is
        over, at least once. Cancelled when the request ends."""
        give_up_at = self._loop.time() + min(setup.retry_for_s, MAX_RETRY_S)
        while True:
            await asyncio.sleep(wait_s)
            wait_s = _RETRY_EVERY_S
            try:
                stream, options = await self._open_when_loaded(setup, request)
            except BusyError as problem:
                if self._loop.time() < give_up_at:
                    continue
                request.retrying = None
                self._fail_busy(problem, request.client_req_id)
            except RequestError as problem:  # the settings have changed in the meantime
                request.retrying = None
                self._fail(str(problem), problem.code, request.client_req_id)
            else:
                self._begin(setup, request, stream, options)
            return

    def _fail_busy(self, problem: BusyError, name: Id | None) -> None:
        self._metrics.refused.labels("streams").inc()
        self._fail(str(problem), problem.code, name)

    async def _submit(self, message: AudioMessage | FlushMessage | EndMessage) -> None:
        request = self._find(message.client_req_id)
        if request is not None:
            request.submit(message)
            await self._wait_while(lambda: request.has_backlog)

    async def _wait_while(self, is_full: Callable[[], bool]) -> None:
        """Reads nothing more from the client for the time being."""
        while is_full() and not self._closing:
            self.room.clear()
            if is_full():
                await self.room.wait()

    async def _end(self, message: EndMessage) -> None:
        """`end_of_stream` without an id ends the socket, if it has several requests or none."""
        ends_socket = message.client_req_id is None and None not in self._requests
        if ends_socket and self._had_request and len(self._requests) != 1:
            self._close_when_idle = True
            if not self._requests:
                self._close(1000)
        else:
            await self._submit(message)

    def _find(self, name: Id | None) -> GradiumRequest | None:
        """The request that a message is for; None if that request has failed, which the client may
        not know yet.

        A message without an id is for the request without one, or for the only one. Raises
        MessageError for data before setup.
        """
        if name is None and None not in self._requests and len(self._requests) == 1:
            return next(iter(self._requests.values()))
        if name in self._requests:
            return self._requests[name]
        if name in self._failed:
            return None
        raise MessageError("the first message of a request must be setup", name)

    def _fail(self, message: str, code: int, name: Id | None) -> None:
        """Ends a request with an error, and the socket if no other request goes on."""
        request = self._requests.get(name)
        others = len(self._requests) - (request is not None)
        if name is None or not others:
            self.refuse(message, code, name)
            return
        event = Error(message[:MAX_ERROR], code)
        self._metrics.errors.labels(str(code)).inc()
        self.writer.put(GradiumRequest(name, False, self).wire(event))
        self._failed.append(name)
        if request is not None:
            self._remove(request)

    def _remove(self, request: GradiumRequest) -> None:
        del self._requests[request.client_req_id]
        if request.retrying is not None:
            request.retrying.cancel()
        if request.stream is not None:
            self._streams.release(request.stream)
        self.room.set()

    def _client_reads_again(self) -> None:
        self.room.set()
        for request in self._requests.values():
            if request.stream is not None:
                self._streams.wake(request.stream)

    def _writer_ended(self) -> None:
        """Nothing more can be sent, so nothing more is worth reading."""
        self._closing = True
        self.room.set()

    def _close(self, code: int, reason: str = "") -> None:
        self._closing = True
        self.room.set()
        self.writer.close(code, reason)
