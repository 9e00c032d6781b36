"""One upload of Gradium's API (`POST /api/post/speech/asr`): a file in, its words as JSON lines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from aiohttp import web

from edged.audio.stream_decoders import decoder
from edged.errors import RequestError
from edged.events import EndOfStream, EndText, Error, Event, Text, Turn, to_json
from edged.server.gradium_messages import SetupMessage, model_of, session_options
from edged.server.http_context import HttpContext
from edged.server.stream import SERVER_FAULT, Stream
from edged.server.stream_pool import BusyError
from edged.server.websocket_writer import SEND_S

PROTOCOL = "gradium_upload"
READ_S = 30.0  # in which SLOWEST bytes must arrive
SLOWEST = 1024  # bytes; no codec for speech needs fewer in that time
MAX_LINES = 200_000  # that wait for a client which sends everything first: 30 MB, 20 h of speech
MAX_ERROR = 300  # characters of an error message
CLIENT_FAULT = 1008
FORMATS = {"audio/wav": "wav", "audio/pcm": "pcm", "audio/ogg": "opus", "audio/opus": "opus"}
_ALIASES = {"audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav"}
_ANSWERS = (Text, EndText, Turn)


class ContentTypeError(RequestError):
    """The Content-Type names audio of a kind that is not supported."""


class GradiumUpload:
    """Serves one upload.

    Many clients send the whole body before they read the first line of the answer. Lines wait here
    in the meantime, and the body is not held back for them.
    """

    def __init__(
        self, request: web.Request, context: HttpContext, abort: Callable[[], None]
    ) -> None:
        """`abort` drops the connection."""
        self._request = request
        self._streams = context.streams
        self._metrics = context.metrics
        self._abort = abort
        self._loop = asyncio.get_running_loop()
        self._lines: deque[str] = deque()
        self._failure: Error | None = None
        self._done = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self) -> web.StreamResponse:
        """Serves the request. An error before the first line is the answer's HTTP status, with the
        message as plain text; an error after that is an `error` line."""
        try:
            setup = self._setup()
            model = model_of(setup, lambda: self._streams.installed)
            options = session_options(setup, self._streams.options(model))
            audio = decoder(setup.input_format, whole=True)
            stream = await self._streams.open_when_loaded(
                options, audio, self, PROTOCOL, whole_file=True, model=model
            )
        except RequestError as problem:
            if isinstance(problem, BusyError):
                self._metrics.refused.labels("streams").inc()
            status = 415 if isinstance(problem, ContentTypeError) else None
            return self._failed(Error(str(problem), problem.code), status)
        body = asyncio.create_task(self._read_body(stream))
        try:
            return await self._answer(stream)
        finally:
            self._done = True
            self._room.set()
            body.cancel()
            self._streams.release(stream)

    def stop(self) -> None:
        """The server is stopping."""
        self._received(Error("edged is stopping", SERVER_FAULT))

    def _setup(self) -> SetupMessage:
        query = self._request.query
        return SetupMessage(
            model_name=query.get("model", "default"),
            input_format=query.get("input_format") or self._content_format(),
            json_config=query.get("json_config"),
        )

    def _content_format(self) -> str:
        """The input format that the Content-Type names; WAV if it names no audio at all (curl
        sends everything as a form). Raises ContentTypeError for other kinds of audio."""
        header = self._request.headers.get("Content-Type", "")
        kind = header.partition(";")[0].strip().lower()
        known = (FORMATS | _ALIASES).get(kind)
        if known is None and kind.startswith(("audio/", "video/")):
            allowed = ", ".join(FORMATS)
            raise ContentTypeError(f"Content-Type must be one of {allowed}, not {kind!r:.60}")
        return known or "wav"

    # -- StreamClient, on a worker thread

    def on_events(self, events: Sequence[Event]) -> None:
        lines = [to_json(event.wire()) + "\n" for event in events if isinstance(event, _ANSWERS)]
        self._lines.extend(lines)
        if lines or isinstance(events[-1], EndOfStream | Error):
            self._call_soon(partial(self._received, events[-1]))

    def is_full(self) -> bool:
        return len(self._lines) >= MAX_LINES

    def on_room(self) -> None:
        self._call_soon(self._room.set)

    # -- on the event loop

    def _call_soon(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _received(self, last: Event) -> None:
        if isinstance(last, EndOfStream | Error):
            self._done = True
            self._failure = last if isinstance(last, Error) else None
            self._room.set()
        self._news.set()

    async def _read_body(self, stream: Stream) -> None:
        """Passes the body to the stream as fast as it is accepted."""
        try:
            while not self._done and (data := await self._read_chunk()):
                stream.push(data)
                while stream.is_full and not self._done:
                    self._room.clear()
                    if stream.is_full:
                        await self._room.wait()
        except TimeoutError:
            self._received(Error(f"the body stalled for {READ_S:.0f} s", CLIENT_FAULT))
        except Exception:  # aiohttp raises many types
            self._received(Error("the body broke off", CLIENT_FAULT))
        else:
            stream.end()

    async def _read_chunk(self) -> bytes:
        """SLOWEST bytes or more, fewer at the end of the body, and none after it. Raises
        TimeoutError if they arrive too slowly."""
        data = bytearray()
        async with asyncio.timeout(READ_S):
            while len(data) < SLOWEST and (more := await self._request.content.readany()):
                data += more
        return bytes(data)

    async def _answer(self, stream: Stream) -> web.StreamResponse:
        await self._wait_for_lines()
        if self._failure is not None and not self._lines:
            return self._failed(self._failure)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(self._request)
        try:
            while self._lines or not self._done:
                while self._lines:
                    was_full = self.is_full()
                    line = self._lines.popleft()
                    if was_full:
                        self._streams.wake(stream)
                    await _send(response, line)
                await self._wait_for_lines()
            if self._failure is not None:
                self._count(self._failure)
                await _send(response, to_json(self._failure.wire()) + "\n")
            async with asyncio.timeout(SEND_S):
                await response.write_eof()
        except TimeoutError:
            self._abort()  # the client does not read
        return response

    def _failed(self, error: Error, status: int | None = None) -> web.Response:
        self._count(error)
        return error_response(error, status)

    def _count(self, error: Error) -> None:
        self._metrics.errors.labels(str(error.code)).inc()

    async def _wait_for_lines(self) -> None:
        """Until there are lines, or there will be no more."""
        while not self._lines and not self._done:
            self._news.clear()
            await self._news.wait()


async def _send(response: web.StreamResponse, line: str) -> None:
    """Raises TimeoutError if the client does not read."""
    async with asyncio.timeout(SEND_S):
        await response.write(line.encode())


def error_response(error: Error, status: int | None = None) -> web.Response:
    """An error as the cloud words it. The default status is 400 for a client's fault, else 503."""
    if status is None:
        status = 400 if error.code == CLIENT_FAULT else 503
    message = error.message[:MAX_ERROR]
    return web.Response(status=status, text=f"error from server {error.code}: {message}\n")
