"""OpenAI's realtime API for transcription: a WebSocket at `/v1/realtime?intent=transcription`."""

from __future__ import annotations

import asyncio
import binascii
import copy
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import WSMsgType, web

from edged import STEP_S
from edged.audio.stream_decoders import decoder
from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event, Step, Text, Turn, to_json
from edged.languages import word_separator
from edged.options import Options
from edged.server import json_limits
from edged.server.access import TOO_MANY_SESSIONS
from edged.server.client_terms import terms_of_prompt, with_terms
from edged.server.http_context import HttpContext
from edged.server.openai_transcriptions import OpenAiError, denied, language_of, refused
from edged.server.stream import SERVER_FAULT, Stream
from edged.server.stream_pool import BusyError
from edged.server.websocket_reader import WebSocket, WebSocketReader
from edged.server.websocket_writer import WebSocketWriter

PROTOCOL = "openai_realtime"
IDLE_S = 300.0  # without any message
MAX_ERROR = 300  # characters of an error message
SILENCE_S = 3.0  # after speech of which nothing was recognised, until its item ends
CLIENT_FAULT = 1008
TRY_AGAIN = 1013
SUBPROTOCOL = "realtime"
# The names of a format in the old and new form of a session -> input format, bytes per second.
FORMATS = {
    "audio/pcm": ("pcm", 48_000),
    "audio/pcmu": ("ulaw_8000", 8000),
    "audio/pcma": ("alaw_8000", 8000),
    "pcm16": ("pcm", 48_000),
    "g711_ulaw": ("ulaw_8000", 8000),
    "g711_alaw": ("alaw_8000", 8000),
}
_OLD_NAMES = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_NEW_NAMES = {old: new for new, old in _OLD_NAMES.items()}
_DEFAULT_TURN_DETECTION = {"type": "server_vad"}


class RealtimeSettings:
    """The settings of a session, in the form in which a `session.update` gives them."""

    def __init__(self) -> None:
        self.format = "audio/pcm"
        self.transcription: dict[str, Any] = {"model": "default"}
        self.turn_detection: dict[str, Any] | None = dict(_DEFAULT_TURN_DETECTION)
        self.language: str | None = None

    def updated(self, session: object, old_form: bool) -> RealtimeSettings:
        """These settings with the changes of an update. Raises OpenAiError."""
        if not isinstance(session, Mapping):
            raise OpenAiError("session must be an object", param="session")
        if session.get("type", "transcription") != "transcription":
            raise OpenAiError("edged has transcription sessions only", param="session.type")
        changed = copy.deepcopy(self)
        if old_form:
            source, prefix, format_key = session, "session.input_audio_", "input_audio_format"
            transcription_key = "input_audio_transcription"
        else:
            audio = _object(session, "audio", "session.audio")
            source = _object(audio, "input", "session.audio.input")
            prefix, format_key, transcription_key = (
                "session.audio.input.",
                "format",
                "transcription",
            )
        if (given := source.get(format_key)) is not None:
            changed.format = _format(given, f"{prefix}format")
        if (given := source.get(transcription_key)) is not None:
            if not isinstance(given, Mapping):
                raise OpenAiError("transcription must be an object", param=f"{prefix}transcription")
            changed.transcription |= given
            language = given.get("language")
            if isinstance(language, str) and language:
                changed.language = language_of(language, f"{prefix}transcription.language")
        if "turn_detection" in source:
            changed.turn_detection = _turn_detection(source["turn_detection"])
        return changed

    def options(self, base: Options) -> Options:
        """The options of a recognition session. Thresholds are limited to what edged allows."""
        options = replace(base, turns=True, language=self.language or base.language)
        options = with_terms(options, terms_of_prompt(self.transcription.get("prompt")))
        if self.turn_detection is not None and self.turn_detection.get("type") == "server_vad":
            threshold = self.turn_detection.get("threshold")
            silence_ms = self.turn_detection.get("silence_duration_ms")
            if threshold is not None:
                options = replace(options, vad_threshold=min(0.95, max(0.05, threshold)))
            if silence_ms is not None:
                silence_ms = int(min(5000, max(100, silence_ms)))
                options = replace(options, turn_silence_ms=silence_ms)
        return options

    def wire(self, session_id: str, old_form: bool) -> dict[str, Any]:
        """The session as the server describes it."""
        if old_form:
            return {
                "id": session_id,
                "object": "realtime.transcription_session",
                "input_audio_format": _OLD_NAMES[self.format],
                "input_audio_transcription": self.transcription,
                "turn_detection": self.turn_detection,
            }
        audio_format: dict[str, Any] = {"type": self.format}
        if self.format == "audio/pcm":
            audio_format["rate"] = 24_000
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session_id,
            "audio": {
                "input": {
                    "format": audio_format,
                    "transcription": self.transcription,
                    "turn_detection": self.turn_detection,
                    "noise_reduction": None,
                }
            },
            "include": None,
        }


class OpenAiRealtime:
    """The route of OpenAI's realtime API."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context
        self._open: set[RealtimeSession] = set()

    def add_routes(self, app: web.Application) -> None:
        """Adds its path."""
        app.router.add_get("/v1/realtime", self._serve)

    def stop(self) -> None:
        """Ends every session with an error."""
        for session in list(self._open):
            session.close("edged is stopping", SERVER_FAULT)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        denial = self._context.deny_key(request) or self._context.deny_socket(len(self._open))
        if denial is not None:
            return denied(denial).response()
        if not self._context.admit_session(request):
            return OpenAiError(TOO_MANY_SESSIONS, 429, code="rate_limit_exceeded").response()
        socket = WebSocket(error_text=_error_text, protocols=(SUBPROTOCOL,))
        await socket.prepare(request)
        old_form = request.headers.get("OpenAI-Beta") == "realtime=v1"
        session = RealtimeSession(
            socket, self._context, self._context.disconnect(request), old_form
        )
        self._open.add(session)
        try:
            await session.serve()
        finally:
            self._open.discard(session)
        return socket


class Item:
    """The audio of one turn, and its words so far."""

    def __init__(self, start_s: float) -> None:
        self.id = f"item_{uuid.uuid4().hex[:20]}"
        self.start_s = start_s
        self.words: list[Text] = []


class RealtimeSession:
    """Serves one socket on the event loop.

    The audio between two commits, or all of it with turn detection, is one stream. While a stream
    is finished after a commit, the client is not read.
    """

    def __init__(
        self,
        socket: WebSocket,
        context: HttpContext,
        abort: Callable[[], None],
        old_form: bool = False,
    ) -> None:
        """`old_form`: the client uses the messages of the beta version."""
        self._reader = WebSocketReader(socket, abort)
        self._writer = WebSocketWriter(socket, abort, self._client_reads_again)
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._id = f"sess_{uuid.uuid4().hex[:20]}"
        self._old_form = old_form
        self._settings = RealtimeSettings()
        self._audio: _AudioStream | None = None
        self._offset_s = 0.0  # of the stream, in the session
        self._item: Item | None = None
        self._previous_item_id: str | None = None
        self._turns: list[str] = []  # of the item, without turn detection
        self._room = asyncio.Event()
        self._closing = False

    async def serve(self) -> None:
        """Serves until the client disconnects."""
        sending = asyncio.create_task(self._writer.run())
        sending.add_done_callback(lambda _: self._stop_reading())
        self._send_session("created")
        try:
            await self._receive()
        finally:
            self._release()
            if not self._closing:
                self._writer.drop()
            await sending

    def close(self, message: str, code: int) -> None:
        """Sends an error and closes the socket."""
        self._context.metrics.errors.labels(str(_counted(code))).inc()
        self._send_error(OpenAiError(message, 503 if _counted(code) == SERVER_FAULT else 400))
        self._closing = True
        self._room.set()
        self._writer.close(code, message)

    async def _receive(self) -> None:
        while not self._closing:
            try:
                message = await self._reader.receive(IDLE_S)
            except TimeoutError:
                self.close(f"nothing was received for {IDLE_S:.0f} s", CLIENT_FAULT)
                return
            self._writer.client_active()
            if message.type is WSMsgType.TEXT:
                await self._on_text(message.data)
            elif message.type is WSMsgType.BINARY:
                self.close("events are JSON in text frames, audio in them as base64", CLIENT_FAULT)
            else:  # the socket is closed or broken
                return
            await self._wait_while(lambda: self._writer.is_full)

    async def _on_text(self, text: str) -> None:
        event_id = None
        try:
            try:
                message = json_limits.loads(text)
            except ValueError as problem:
                raise OpenAiError(f"an event must be one JSON object: {problem}") from None
            if not isinstance(message, dict):
                raise OpenAiError("an event must be a JSON object")
            event_id = message.get("event_id")
            await self._on_event(message)
        except OpenAiError as error:
            self._context.metrics.errors.labels(str(CLIENT_FAULT)).inc()
            self._send_error(error, event_id if isinstance(event_id, str) else None)
        except BusyError as problem:
            self._context.metrics.refused.labels("streams").inc()
            self.close(str(problem), TRY_AGAIN)

    async def _on_event(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "input_audio_buffer.append":
                await self._append(message.get("audio"))
            case "input_audio_buffer.commit":
                if self._audio is None or not self._audio.received_s:
                    raise OpenAiError(
                        "the input audio buffer is empty", code="input_audio_buffer_commit_empty"
                    )
                self._commit(self._audio.received_s + self._offset_s)
                await self._finish_stream()
            case "input_audio_buffer.clear":
                self._release()
                self._item = None
                self._send("input_audio_buffer.cleared")
            case "session.update" | "transcription_session.update" as kind:
                old_form = kind.startswith("transcription_session")
                settings = self._settings.updated(message.get("session"), old_form)
                self._old_form = self._old_form or old_form
                await self._prepare(settings)
                if self._audio is not None:
                    await self._finish_stream()
                self._settings = settings
                self._send_session("updated")
            case kind:
                raise OpenAiError(
                    "type must be session.update, input_audio_buffer.append, .commit or .clear, "
                    f"not {kind!r:.60}",
                    param="type",
                )

    async def _append(self, encoded: object) -> None:
        if not isinstance(encoded, str):
            raise OpenAiError("audio must be a string of base64", param="audio")
        try:
            data = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError:
            raise OpenAiError("audio is not valid base64", param="audio") from None
        if self._audio is None:
            self._audio = await self._open_stream()
        audio = self._audio
        audio.push(data)
        await self._wait_while(lambda: self._audio is audio and audio.stream.is_full)

    # -- streams

    async def _open_stream(self) -> _AudioStream:
        """Raises BusyError, OpenAiError."""
        streams = self._context.streams
        input_format, bytes_per_s = FORMATS[self._settings.format]
        audio = _AudioStream(self, bytes_per_s)
        await self._prepare(self._settings)
        audio.stream = await streams.open_when_loaded(
            self._settings.options(streams.options()),
            decoder(input_format),
            audio,
            PROTOCOL,
            on_speaking=audio.on_speaking,
        )
        return audio

    async def _prepare(self, settings: RealtimeSettings) -> None:
        """Loads the model for the language of the settings. Raises BusyError, and OpenAiError if
        there is none."""
        streams = self._context.streams
        try:
            await streams.prepare(settings.options(streams.options()))
        except BusyError:
            raise
        except RequestError as problem:
            raise refused(problem, "session.audio.input.transcription.language") from None

    async def _finish_stream(self) -> None:
        """Waits until all audio of the stream has been processed, and its events were sent."""
        audio = self._audio
        if audio is not None:
            audio.stream.end()
            await self._wait_while(lambda: self._audio is audio)

    def _release(self) -> None:
        if self._audio is not None:
            self._offset_s += self._audio.received_s
            self._context.streams.release(self._audio.stream)
            self._audio = None
        self._room.set()

    async def _wait_while(self, is_full: Callable[[], bool]) -> None:
        while is_full() and not self._closing:
            self._room.clear()
            if is_full():
                await self._room.wait()

    def _client_reads_again(self) -> None:
        self._room.set()
        if self._audio is not None:
            self._context.streams.wake(self._audio.stream)

    def _stop_reading(self) -> None:
        self._closing = True
        self._room.set()

    # -- what the streams report, on the event loop

    @property
    def is_full(self) -> bool:
        """Whether the client does not read. May be called from any thread."""
        return self._writer.is_full

    def call_soon(self, call: Callable[[], object]) -> None:
        """Calls a function on the event loop. May be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def has_room(self) -> None:
        """The stream accepts audio again."""
        self._room.set()

    def on_speaking(self, audio: _AudioStream, speaking: bool, at_s: float) -> None:
        """Somebody began or stopped to speak, at a time of the stream."""
        if audio is not self._audio:
            return
        audio.silent_since_s = None if speaking else at_s
        if speaking and self._detects_turns and self._item is None:
            self._begin_item(self._offset_s + at_s)

    def on_events(self, audio: _AudioStream, events: Sequence[Event]) -> None:
        """Events of a stream, in order."""
        for event in events:
            if audio is not self._audio:
                return
            match event:
                case Text():
                    self._on_word(event)
                case Turn():
                    self._on_turn(event)
                case Step(step_idx):
                    self._on_step(audio, (step_idx + 1) * STEP_S)
                case EndOfStream():
                    if self._item is not None:
                        self._end_item(
                            self._offset_s + audio.received_s, self._separator.join(self._turns)
                        )
                    self._release()
                case Error(message, code):
                    self._fail_item(message)
                    self.close(message, code)

    @property
    def _separator(self) -> str:
        """What stands between two words."""
        return word_separator(self._audio.stream.language) if self._audio is not None else " "

    @property
    def _detects_turns(self) -> bool:
        return self._settings.turn_detection is not None

    def _on_word(self, word: Text) -> None:
        if self._item is None:
            self._begin_item(self._offset_s + word.start_s)
        assert self._item is not None
        delta = f"{self._separator}{word.text}" if self._item.words else word.text
        self._item.words.append(word)
        self._send_item("delta", delta=delta)

    def _on_turn(self, turn: Turn) -> None:
        """Ends the item, unless the client commits by itself. Words of the next turn, which may
        have been committed already, are sent again in an item of their own."""
        if not self._detects_turns:
            self._turns.append(turn.text)
            return
        if self._item is None:
            self._begin_item(self._offset_s + turn.start_s)
        assert self._item is not None
        later = [word for word in self._item.words if word.start_s > turn.stop_s]
        self._commit(self._offset_s + turn.stop_s)
        self._complete(turn.text)
        for word in later:
            self._on_word(word)

    def _on_step(self, audio: _AudioStream, now_s: float) -> None:
        """Ends an item of which nothing was recognised."""
        silent_since_s = audio.silent_since_s
        if (
            self._detects_turns
            and self._item is not None
            and not self._item.words
            and silent_since_s is not None
            and now_s - silent_since_s > SILENCE_S
        ):
            self._end_item(self._offset_s + silent_since_s, "")

    # -- items

    def _begin_item(self, start_s: float) -> None:
        self._item = Item(start_s)
        if self._detects_turns:
            self._send(
                "input_audio_buffer.speech_started",
                audio_start_ms=round(start_s * 1000),
                item_id=self._item.id,
            )

    def _end_item(self, stop_s: float, text: str) -> None:
        assert self._item is not None
        self._commit(stop_s)
        words = self._separator.join(word.text for word in self._item.words)
        self._complete(text or words)

    def _commit(self, stop_s: float) -> None:
        """Reports that the audio of the item is complete; only once for each item."""
        if self._item is None:
            self._item = Item(stop_s)
        item = self._item
        if item.id == self._previous_item_id:
            return
        if self._detects_turns:
            self._send(
                "input_audio_buffer.speech_stopped",
                audio_end_ms=round(stop_s * 1000),
                item_id=item.id,
            )
        self._send(
            "input_audio_buffer.committed",
            item_id=item.id,
            previous_item_id=self._previous_item_id,
        )
        kind = "created" if self._old_form else "added"
        self._send(
            f"conversation.item.{kind}",
            previous_item_id=self._previous_item_id,
            item={
                "id": item.id,
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": None}],
            },
        )
        self._previous_item_id = item.id

    def _complete(self, text: str) -> None:
        assert self._item is not None
        seconds = max(0.0, self._offset_s + self._received_s - self._item.start_s)
        usage = {"type": "duration", "seconds": round(seconds, 2)}
        self._send_item("completed", transcript=text, usage=usage)
        self._item, self._turns = None, []

    def _fail_item(self, message: str) -> None:
        if self._item is not None:
            error = {"type": "server_error", "code": None, "message": message, "param": None}
            self._send_item("failed", error=error)
            self._item = None

    @property
    def _received_s(self) -> float:
        return self._audio.received_s if self._audio is not None else 0.0

    # -- sending

    def _send(self, kind: str, **fields: Any) -> None:
        event_id = f"event_{uuid.uuid4().hex[:20]}"
        self._writer.put(to_json({"type": kind, "event_id": event_id, **fields}))

    def _send_item(self, kind: str, **fields: Any) -> None:
        assert self._item is not None
        self._send(
            f"conversation.item.input_audio_transcription.{kind}",
            item_id=self._item.id,
            content_index=0,
            **fields,
        )

    def _send_session(self, kind: str) -> None:
        name = "transcription_session" if self._old_form else "session"
        self._send(f"{name}.{kind}", session=self._settings.wire(self._id, self._old_form))

    def _send_error(self, error: OpenAiError, event_id: str | None = None) -> None:
        self._send("error", error=_error_object(error, event_id))


class _AudioStream:
    """The StreamClient of one stream of a session."""

    stream: Stream

    def __init__(self, session: RealtimeSession, bytes_per_s: int) -> None:
        self.received_s = 0.0
        self.silent_since_s: float | None = None
        self._session = session
        self._bytes_per_s = bytes_per_s

    def push(self, data: bytes) -> None:
        self.received_s += len(data) / self._bytes_per_s
        self.stream.push(data)

    # -- on a worker thread

    def on_events(self, events: Sequence[Event]) -> None:
        self._session.call_soon(partial(self._session.on_events, self, events))

    def on_speaking(self, speaking: bool, at_s: float) -> None:
        self._session.call_soon(partial(self._session.on_speaking, self, speaking, at_s))

    def is_full(self) -> bool:
        return self._session.is_full

    def on_room(self) -> None:
        self._session.call_soon(self._session.has_room)


def _object(parent: Mapping[str, Any], key: str, param: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OpenAiError(f"{key} must be an object", param=param)
    return value


def _format(given: object, param: str) -> str:
    """The new name of an audio format, given in the new or old form."""
    name = given.get("type") if isinstance(given, Mapping) else given
    rate = given.get("rate") if isinstance(given, Mapping) else None
    if not isinstance(name, str) or name not in FORMATS:
        raise OpenAiError(f"format must be one of {', '.join(FORMATS)}", param=param)
    new_name = _NEW_NAMES.get(name, name)
    if new_name == "audio/pcm" and rate not in (None, 24_000):
        raise OpenAiError("the rate of audio/pcm must be 24000", param=f"{param}.rate")
    return new_name


def _turn_detection(given: object) -> dict[str, Any] | None:
    param = "session.audio.input.turn_detection"
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise OpenAiError("turn_detection must be an object or null", param=param)
    if given.get("type", "server_vad") not in ("server_vad", "semantic_vad"):
        raise OpenAiError("turn_detection.type must be server_vad or semantic_vad", param=param)
    for key in ("threshold", "silence_duration_ms"):
        value = given.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1e6):
            raise OpenAiError(f"turn_detection.{key} must be a number", param=f"{param}.{key}")
    return _DEFAULT_TURN_DETECTION | dict(given)


def _error_object(error: OpenAiError, event_id: str | None) -> dict[str, Any]:
    return {
        "type": "server_error" if error.status >= 500 else "invalid_request_error",
        "code": error.code,
        "message": str(error)[:MAX_ERROR],
        "param": error.param,
        "event_id": event_id,
    }


def _error_text(message: str) -> str:
    error = _error_object(OpenAiError(message), None)
    return to_json({"type": "error", "event_id": f"event_{uuid.uuid4().hex[:20]}", "error": error})


def _counted(code: int) -> int:
    """The code under which an error is counted."""
    return CLIENT_FAULT if code == CLIENT_FAULT else SERVER_FAULT
