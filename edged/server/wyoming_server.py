"""Speech-to-text over Wyoming, the protocol of Home Assistant's voice assistants.

An event is a line of JSON, then `data_length` bytes of more JSON, then `payload_length` bytes of
audio (https://github.com/OHF-Voice/wyoming). The package `wyoming` defines the events. They are
read here, because its own reader does not bound them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from wyoming import version as wyoming_version
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error as ErrorEvent
from wyoming.event import Event as WyomingEvent
from wyoming.event import Eventable
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from edged import __version__
from edged.audio.pcm import PcmReader, RawFormat
from edged.audio.stream_decoders import StreamDecoder
from edged.errors import InputError, RequestError
from edged.events import EndOfStream, Error, Event, Text, Turn
from edged.languages import AUTO, from_tag, is_language, word_separator
from edged.models.catalogue import Entry
from edged.server import json_limits
from edged.server.access import TOO_MANY_SESSIONS
from edged.server.client_terms import with_terms
from edged.server.http_context import HttpContext
from edged.server.listener import request_in_progress
from edged.server.stream import SERVER_FAULT, Stream
from edged.server.stream_pool import BusyError

PROTOCOL = "wyoming"
MAX_LINE = 1 << 16  # bytes of JSON, in a line and after it
MAX_PAYLOAD = 1 << 22  # bytes of audio in one event
MAX_UNSENT = 1 << 18  # bytes that wait for a client which does not read
SEND_S = 30.0  # in which such a client must read again
IDLE_S = 300.0  # without any event, between utterances
LINGER_S = 1.0  # between an error and closing the connection
CHUNK_S = 30.0  # without any event, in an utterance
MAX_UTTERANCE_S = 300.0  # of audio; then the utterance ends by itself
WIDTHS = {1: "u8", 2: "s16", 3: "s24", 4: "s32"}  # bytes of a sample -> encoding
CLIENT_FAULT = 1008


class WyomingServer:
    """Serves Wyoming connections on the event loop."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context
        self._connections: set[WyomingConnection] = set()

    @property
    def count(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def make_protocol(self) -> asyncio.Protocol:
        """The asyncio protocol of a new connection."""
        reader = asyncio.StreamReader(limit=MAX_LINE)
        return asyncio.StreamReaderProtocol(reader, self._serve)

    def stop(self) -> None:
        """Sends an error to every client and closes its connection."""
        for connection in list(self._connections):
            connection.fail("edged is stopping", SERVER_FAULT)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = WyomingConnection(reader, writer, self._context)
        self._connections.add(connection)
        try:
            with request_in_progress(writer.transport):
                await connection.serve()
        finally:
            self._connections.discard(connection)
            writer.close()


class WyomingConnection:
    """One connection, which may carry several utterances, one after the other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: HttpContext
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._context = context
        peer = writer.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._language: str | None = None  # None: that of the settings
        self._terms: list[object] = []  # that the last `transcribe` gave
        self._utterance: Utterance | None = None
        self._ignore_audio = False  # until the next utterance begins
        self._closing = False
        self._draining: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        _keep_alive(writer)

    async def serve(self) -> None:
        """Serves until the client disconnects, or until an error."""
        self._task = asyncio.current_task()
        try:
            while not self._closing:
                timeout_s = IDLE_S if self._utterance is None else CHUNK_S
                async with asyncio.timeout(timeout_s):
                    event = await read_event(self._reader)
                if event is None:
                    return
                await self._on_event(event)
        except RequestError as problem:
            self.fail(str(problem), problem.code)
        except TimeoutError:
            self.fail(f"nothing was received for {timeout_s:.0f} s", CLIENT_FAULT)
        except ConnectionError:
            pass  # the client is gone
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            self._end_utterance()
            if self._closing:
                await self._linger()
            if self._draining is not None:
                self._draining.cancel()

    def fail(self, message: str, code: int) -> None:
        """Sends an error; the connection is closed after it, because a client that waits for a
        transcript would wait for ever."""
        if self._closing:
            return
        self._closing = True
        self._context.metrics.errors.labels(str(code)).inc()
        self.send(ErrorEvent(message, str(code)))
        self._end_utterance()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()  # it waits for the client

    def send(self, eventable: Eventable) -> None:
        """Sends an event."""
        if self._writer.is_closing():
            return
        self._writer.write(encode_event(eventable.event()))
        if self.is_full and self._draining is None:
            self._draining = asyncio.create_task(self._wait_for_client())

    @property
    def is_full(self) -> bool:
        """Whether the client does not read. May be called from any thread."""
        return self._writer.transport.get_write_buffer_size() > MAX_UNSENT

    async def _on_event(self, event: WyomingEvent) -> None:
        try:
            if AudioChunk.is_type(event.type):
                await self._on_audio(AudioChunk.from_event(event))
            elif AudioStart.is_type(event.type):
                start = AudioStart.from_event(event)
                await self._begin_utterance(start.rate, start.width, start.channels)
            elif AudioStop.is_type(event.type):
                await self._on_audio_stop()
            elif Transcribe.is_type(event.type):
                self._ignore_audio = False
                transcribe = Transcribe.from_event(event)
                self._language = await self._language_of(transcribe.language)
                names, terms = transcribe.transcript_names, transcribe.transcript_terms
                self._terms = [*_list(names), *_list(terms)]
            elif Describe.is_type(event.type):
                self.send(info(self._context.streams.installed))
            elif Ping.is_type(event.type):
                self.send(Pong(Ping.from_event(event).text))
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise RequestError(
                f"a {event.type!r:.60} event is malformed: {problem!r:.100}"
            ) from None

    async def _language_of(self, tag: object) -> str | None:
        """The code of a tag such as `en-US`, whose model is then in memory; None for None."""
        if tag is None:
            return None
        streams, language = self._context.streams, from_tag(str(tag))
        if not is_language(language):
            allowed = "auto or the code of a language, such as en, de or fr"
            raise RequestError(f"language must be {allowed}, not {tag!r:.60}")
        await streams.prepare(replace(streams.options(), language=language))
        return language

    async def _begin_utterance(self, rate: object, width: object, channels: object) -> None:
        self._end_utterance()
        self._ignore_audio = False
        if not self._context.admit(self._address):
            raise RequestError(TOO_MANY_SESSIONS)
        raw = _raw_format(rate, width, channels)
        options = replace(self._context.streams.options(), turns=True)
        options = replace(options, language=self._language or options.language)
        options = with_terms(options, self._terms)
        utterance = Utterance(self)
        audio = StreamDecoder(PROTOCOL, reader=PcmReader(raw))
        try:
            utterance.stream = await self._context.streams.open_when_loaded(
                options, audio, utterance, PROTOCOL
            )
        except BusyError:
            self._context.metrics.refused.labels("streams").inc()
            raise
        utterance.seconds_left = MAX_UTTERANCE_S
        utterance.bytes_per_s = raw.rate * raw.frame_bytes
        self._utterance = utterance

    async def _on_audio(self, chunk: AudioChunk) -> None:
        if self._utterance is None:
            if self._ignore_audio:
                return
            await self._begin_utterance(chunk.rate, chunk.width, chunk.channels)
        utterance = self._utterance
        assert utterance is not None
        assert utterance.stream is not None
        utterance.stream.push(chunk.audio)
        utterance.seconds_left -= len(chunk.audio) / utterance.bytes_per_s
        while utterance.stream.is_full and self._utterance is utterance:
            utterance.room.clear()
            if utterance.stream.is_full:
                await utterance.room.wait()
        if utterance.seconds_left <= 0 and self._utterance is utterance:
            await self._on_audio_stop()
            self._ignore_audio = True

    async def _on_audio_stop(self) -> None:
        """Waits for the transcript of the utterance, if it has not ended before."""
        utterance = self._utterance
        if utterance is not None and utterance.stream is not None:
            utterance.stream.end()
            await utterance.done.wait()
        self._ignore_audio = False

    def utterance_ended(self, utterance: Utterance) -> None:
        """Its transcript was sent. Whatever audio of it still arrives is ignored."""
        if self._utterance is utterance:
            self._end_utterance()
            self._ignore_audio = True

    def _end_utterance(self) -> None:
        if self._utterance is not None:
            utterance, self._utterance = self._utterance, None
            if utterance.stream is not None:
                self._context.streams.release(utterance.stream)
            utterance.done.set()
            utterance.room.set()

    async def _wait_for_client(self) -> None:
        """Waits until the client reads again, and drops it if it does not."""
        try:
            async with asyncio.timeout(SEND_S):
                await self._writer.drain()
        except TimeoutError:
            self._context.metrics.dropped_clients.inc()
            self._writer.transport.abort()
        except ConnectionError:
            pass
        self._draining = None
        if self._utterance is not None and self._utterance.stream is not None:
            self._context.streams.wake(self._utterance.stream)

    async def _linger(self) -> None:
        """Reads what the client still sends, so that the error reaches it."""
        with contextlib.suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(LINGER_S):
                self._writer.write_eof()
                while await self._reader.read(MAX_LINE):
                    pass


class Utterance:
    """Audio until a transcript: ends with `audio-stop`, or when a live speaker has finished.

    A file that is sent faster than it was spoken ends with `audio-stop` only, because it may have
    pauses after which it goes on.
    """

    def __init__(self, connection: WyomingConnection) -> None:
        self.stream: Stream | None = None
        self.done = asyncio.Event()
        self.room = asyncio.Event()
        self.seconds_left = 0.0
        self.bytes_per_s = 1
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._words: list[str] = []
        self._turns: list[Turn] = []
        self._started = False

    # -- StreamClient, on a worker thread

    def on_events(self, events: Sequence[Event]) -> None:
        kept = [event for event in events if isinstance(event, Text | Turn | EndOfStream | Error)]
        if kept:
            self._call_soon(partial(self._on_events, kept))

    def is_full(self) -> bool:
        return self._connection.is_full

    def on_room(self) -> None:
        self._call_soon(self.room.set)

    # -- on the event loop

    def _call_soon(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            if self.done.is_set():
                return
            match event:
                case Text(text):
                    self._start()
                    space = word_separator(self._language or "")
                    self._connection.send(TranscriptChunk(space + text if self._words else text))
                    self._words.append(text)
                case Turn():
                    self._turns.append(event)
                    if self.stream is not None and not self.stream.is_file:
                        self._finish()
                case EndOfStream():
                    self._finish()
                case Error(message, code):
                    self._connection.fail(message, code)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._connection.send(TranscriptStart(language=self._language))

    @property
    def _language(self) -> str | None:
        """Of the last turn; before it, that of the stream, or None if it is to be found."""
        if self._turns:
            return self._turns[-1].language
        language = self.stream.language if self.stream is not None else AUTO
        return None if language == AUTO else language

    def _finish(self) -> None:
        """Sends the text of the turns, which were decoded again with full context."""
        self._start()
        separator = word_separator(self._language or "")
        texts = [turn.text for turn in self._turns] or self._words
        text = separator.join(filter(None, texts))
        self._connection.send(Transcript(text, language=self._language))
        self._connection.send(TranscriptStop())
        self._connection.utterance_ended(self)


async def read_event(reader: asyncio.StreamReader) -> WyomingEvent | None:
    """Reads one event; None at the end of the connection. Raises RequestError for what is
    malformed or too large."""
    try:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return None
        header = _json_object(line)
        kind = header.get("type")
        if not isinstance(kind, str):
            raise RequestError("an event needs a type")
        data = header.get("data") or {}
        if not isinstance(data, dict):
            raise RequestError("the data of an event must be a JSON object")
        if length := _length(header, "data_length", MAX_LINE):
            data = data | _json_object(await reader.readexactly(length))
        length = _length(header, "payload_length", MAX_PAYLOAD)
        payload = await reader.readexactly(length) if length else None
    except asyncio.IncompleteReadError:
        return None
    except ValueError:  # of readline
        raise RequestError(f"the line of an event may have {MAX_LINE} bytes at most") from None
    return WyomingEvent(kind, data, payload)


def encode_event(event: WyomingEvent) -> bytes:
    """An event as bytes, as the package writes it."""
    header: dict[str, Any] = {"type": event.type, "version": wyoming_version.__version__}
    data = json.dumps(event.data, ensure_ascii=False).encode() if event.data else b""
    if data:
        header["data_length"] = len(data)
    return json.dumps(header, ensure_ascii=False).encode() + b"\n" + data


def info(installed: Sequence[Entry]) -> Info:
    """The answer to `describe`: the installed models and their languages."""
    attribution = Attribution("edged", "https://github.com/usefulsensors/moonshine")
    models = [
        AsrModel(
            name=entry.name,
            languages=list(entry.languages),
            attribution=Attribution(entry.origin.partition(",")[0], _url_in(entry.origin)),
            installed=True,
            description=f"{entry.title}, on this device",
            version=__version__,
        )
        for entry in installed
    ]
    program = AsrProgram(
        name="edged",
        attribution=attribution,
        installed=True,
        description="Streaming speech-to-text on this device",
        version=__version__,
        models=models,
        supports_transcript_streaming=True,
        requires_external_vad=False,
        prefers_auto_gain_enabled=False,
        prefers_noise_reduction_enabled=False,
    )
    return Info(asr=[program])


def _url_in(origin: str) -> str:
    return next((word for word in origin.split() if word.startswith("https://")), "")


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json_limits.loads(text.decode())
    except ValueError as problem:
        raise RequestError(f"an event is not valid JSON: {problem!s:.100}") from None
    if not isinstance(value, dict):
        raise RequestError("an event must be a JSON object")
    return value


def _length(header: dict[str, Any], key: str, most: int) -> int:
    value = header.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise RequestError(f"{key} must be a whole number up to {most}, not {value!r:.60}")
    return value


def _list(terms: object) -> list[object]:
    return terms if isinstance(terms, list) else []


def _raw_format(rate: object, width: object, channels: object) -> RawFormat:
    numbers = (rate, width, channels)
    if any(isinstance(n, bool) or not isinstance(n, int) for n in numbers) or width not in WIDTHS:
        raise RequestError(
            f"audio must have a rate in Hz, a width of 1 to 4 bytes and a number of channels, not "
            f"{rate!r:.20}, {width!r:.20} and {channels!r:.20}"
        )
    try:
        return RawFormat(WIDTHS[width], rate, channels)  # type: ignore[arg-type]
    except InputError as problem:
        raise RequestError(str(problem)) from None


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Lets the kernel detect a client that is gone without a word."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
