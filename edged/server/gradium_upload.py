"""`POST /api/post/speech/asr`: a whole file in, its words out as lines of JSON."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from aiohttp import web

from edged.errors import RequestError
from edged.events import EndOfStream, EndText, Error, Event, Text, Turn, to_json
from edged.server.gradium_messages import Audio, End, Setup
from edged.server.metrics import Metrics
from edged.server.stream import Stream
from edged.server.streams import BusyError, Streams
from edged.server.websocket_outgoing import SEND_S

READ_S = 30.0  # in which SLOWEST bytes must arrive
SLOWEST = 1024  # no speech is coded in fewer
MAX_LINES = 200_000  # that wait for a client which sends all before it reads: 30 MB, 20 h of speech
MAX_SENTENCE = 300
FORMATS = {"audio/wav": "wav", "audio/pcm": "pcm", "audio/ogg": "opus", "audio/opus": "opus"}
_OTHER_NAMES = {"audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav"}
_SAID = (Text, EndText, Turn)

_log = logging.getLogger(__name__)


class Upload:
    """One request. Many clients send the whole body before they read a line of the answer, so
    lines wait here meanwhile, and the body is never held back for them."""

    def __init__(
        self,
        request: web.Request,
        streams: Streams,
        metrics: Metrics,
        abort: Callable[[], None],
    ) -> None:
        """`abort` cuts the connection."""
        self._request = request
        self._streams = streams
        self._metrics = metrics
        self._abort = abort
        self._loop = asyncio.get_running_loop()
        self._lines: deque[str] = deque()
        self._failure: Error | None = None
        self._over = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self) -> web.StreamResponse:
        """Whatever is wrong before the first line is an HTTP 500 in plain text, as in the cloud;
        after that it is an `error` line."""
        try:
            stream, _ = self._streams.open(self._setup(), self, "post")
        except RequestError as problem:
            if isinstance(problem, BusyError):
                self._metrics.refused.labels("streams").inc()
            return self._failed(Error(str(problem), problem.code))
        body = asyncio.create_task(self._read(stream))
        try:
            return await self._answer(stream)
        finally:
            self._over = True
            self._room.set()
            body.cancel()
            self._streams.release(stream)

    def stop(self) -> None:
        """The door is closed."""
        self._told(Error("edged is stopping", 1011))

    def _setup(self) -> Setup:
        query = self._request.query
        return Setup(
            model_name=query.get("model", "default"),
            input_format=query.get("input_format") or self._format(),
            json_config=query.get("json_config"),
        )

    def _format(self) -> str:
        """From the Content-Type; WAV where it tells nothing of the audio (curl says of all that it
        sends that it is a form). Raises RequestError for audio of another kind."""
        header = self._request.headers.get("Content-Type", "")
        kind = header.partition(";")[0].strip().lower()
        known = (FORMATS | _OTHER_NAMES).get(kind)
        if known is None and kind.startswith(("audio/", "video/")):
            allowed = ", ".join(FORMATS)
            raise RequestError(f"Content-Type must be one of {allowed}, not {kind!r:.60}")
        return known or "wav"

    # -- edged.server.stream.Client, on a thread of the crew

    def events(self, events: Sequence[Event]) -> None:
        lines = [to_json(event.wire()) + "\n" for event in events if isinstance(event, _SAID)]
        self._lines.extend(lines)
        if lines or isinstance(events[-1], EndOfStream | Error):
            self._soon(partial(self._told, events[-1]))

    def is_full(self) -> bool:
        return len(self._lines) >= MAX_LINES

    def room(self) -> None:
        self._soon(self._room.set)

    # -- on the loop

    def _soon(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _told(self, last: Event) -> None:
        if isinstance(last, EndOfStream | Error):
            self._over = True
            self._failure = last if isinstance(last, Error) else None
            self._room.set()
        self._news.set()

    async def _read(self, stream: Stream) -> None:
        """The body into the stream, as fast as the stream takes it."""
        try:
            while not self._over and (data := await self._chunk()):
                stream.submit(Audio(data))
                while stream.is_full and not self._over:
                    self._room.clear()
                    if stream.is_full:
                        await self._room.wait()
        except TimeoutError:
            self._told(Error(f"the body stalled for {READ_S:.0f} s", 1008))
        except Exception as problem:  # aiohttp has many ways to say it
            _log.debug("a body broke off: %r", problem)
            self._told(Error("the body broke off", 1008))
        else:
            stream.submit(End())

    async def _chunk(self) -> bytes:
        """SLOWEST bytes or more; fewer at the end, none after it. Raises TimeoutError for a
        trickle."""
        data = bytearray()
        async with asyncio.timeout(READ_S):
            while len(data) < SLOWEST and (more := await self._request.content.readany()):
                data += more
        return bytes(data)

    async def _answer(self, stream: Stream) -> web.StreamResponse:
        await self._wait()
        if self._failure is not None and not self._lines:
            return self._failed(self._failure)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(self._request)
        try:
            while self._lines or not self._over:
                while self._lines:
                    was_full = self.is_full()
                    line = self._lines.popleft()
                    if was_full:
                        self._streams.wake(stream)
                    await _written(response, line)
                await self._wait()
            if self._failure is not None:
                self._count(self._failure)
                await _written(response, to_json(self._failure.wire()) + "\n")
            async with asyncio.timeout(SEND_S):
                await response.write_eof()
        except TimeoutError:
            self._abort()  # the client does not read: nobody should wait for it
        return response

    def _failed(self, error: Error) -> web.Response:
        self._count(error)
        return failed(error)

    def _count(self, error: Error) -> None:
        self._metrics.errors.labels(str(error.code)).inc()

    async def _wait(self) -> None:
        """Until there are lines, or there will be no more."""
        while not self._lines and not self._over:
            self._news.clear()
            await self._news.wait()


async def _written(response: web.StreamResponse, line: str) -> None:
    """Raises TimeoutError if the client does not take it."""
    async with asyncio.timeout(SEND_S):
        await response.write(line.encode())


def failed(error: Error) -> web.Response:
    """As the cloud says it."""
    sentence = error.message[:MAX_SENTENCE]
    return web.Response(status=500, text=f"error from server {error.code}: {sentence}\n")
