"""OpenAI's API for files: `POST /v1/audio/transcriptions` and `GET /v1/models`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, cast

from aiohttp import BodyPartReader, web

from edged import STEP_S, subtitles
from edged.audio.files import AudioFile
from edged.audio.source import Frame
from edged.errors import InputError, RequestError
from edged.events import EndOfStream, Error, Event, Step, Text, Turn, Word
from edged.languages import AUTO, NAMES, from_tag, is_language, word_separator
from edged.models.catalogue import Entry
from edged.options import Options
from edged.server.access import TOO_MANY_SESSIONS, Denial
from edged.server.client_terms import terms_of_prompt, with_terms
from edged.server.http_context import HttpContext
from edged.server.stream import SERVER_FAULT, Stream
from edged.server.stream_pool import BusyError
from edged.server.websocket_writer import SEND_S

PROTOCOL = "openai_file"
MAX_FILE = 25 << 20  # bytes, as OpenAI's API
IN_MEMORY = 4 << 20  # bytes of a file; more of it is written to a temporary file
MAX_FIELD = 1 << 16  # bytes of any other field
MAX_FIELDS = 64
READ_S = 30.0  # for each part of the body
CHECK_S = 1.0  # between checks whether the client is still connected
MAX_WAITING = 10_000  # words that wait for a client which does not read its streamed answer
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
CLIENT_FAULT = 1008


class OpenAiError(Exception):
    """An error in OpenAI's form. `param` is the field that is wrong."""

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def response(self) -> web.Response:
        """The HTTP response."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        return web.json_response({"error": error}, status=self.status, headers=headers)


@dataclass
class TranscriptionForm:
    """The fields of a request. Fields that are not listed here are ignored."""

    file: BinaryIO | None = None
    model: str = ""
    language: str | None = None
    prompt: str = ""
    response_format: str = "json"
    temperature: float = 0.0
    stream: bool = False
    granularities: set[str] = field(default_factory=set)

    def set(self, name: str, value: str) -> None:
        """Sets a field from its text. Raises OpenAiError for a value that is not allowed."""
        match name:
            case "model":
                self.model = value
            case "language" if value:
                self.language = language_of(value)
            case "prompt":
                self.prompt = value
            case "response_format" if value:
                if value not in FORMATS:
                    raise OpenAiError(f"response_format must be one of {', '.join(FORMATS)}",
                                      param=name)  # fmt: skip
                self.response_format = value
            case "temperature" if value:
                try:
                    self.temperature = float(value)
                except ValueError:
                    self.temperature = math.nan
                if not 0 <= self.temperature <= 1:
                    raise OpenAiError("temperature must be a number from 0 to 1", param=name)
            case "stream":
                self.stream = value.lower() in ("true", "1", "on")
            case "timestamp_granularities[]" | "timestamp_granularities":
                if value not in GRANULARITIES:
                    raise OpenAiError("timestamp_granularities must be word or segment", param=name)
                self.granularities.add(value)


class FileDecoder:
    """An AudioDecoder of a whole file, which decodes what `edged transcribe` does."""

    seconds_per_byte = 0.0

    def __init__(self, file: BinaryIO) -> None:
        self.duration_s: float | None = None
        self._file = file

    def push(self, data: bytes) -> Iterator[Frame]:
        """Decodes nothing: the bytes are in the file."""
        return iter(())

    def finish(self) -> Iterator[Frame]:
        """Decodes the file. Raises RequestError if that is not possible."""
        try:
            audio = AudioFile("the file", self._file)
            self.duration_s = audio.duration_s
            yield from audio.frames()
        except InputError as problem:
            raise RequestError(str(problem)) from None


class OpenAiTranscriptions:
    """Routes of OpenAI's API for files."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context
        self._open: set[Transcription] = set()
        self._uploads = 0

    def add_routes(self, app: web.Application) -> None:
        """Adds its paths."""
        app.router.add_post("/v1/audio/transcriptions", self._serve)
        app.router.add_post("/v1/audio/translations", self._refuse_translation)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{model:.+}", self._describe_model)

    def stop(self) -> None:
        """Ends every request with an error."""
        for transcription in list(self._open):
            transcription.on_loop([Error("edged is stopping", SERVER_FAULT)])

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check(request)
            if not self._context.admit_session(request):
                raise OpenAiError(TOO_MANY_SESSIONS, 429, code="rate_limit_exceeded")
            if self._uploads >= self._context.streams.max_streams:
                self._context.metrics.refused.labels("streams").inc()
                raise OpenAiError("all streams of this device are in use", 503)
            self._uploads += 1
            try:
                return await self._transcribe(request)
            finally:
                self._uploads -= 1
        except OpenAiError as error:
            code = str(SERVER_FAULT if error.status >= 500 else CLIENT_FAULT)
            self._context.metrics.errors.labels(code).inc()
            return error.response()

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        streams = self._context.streams
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as spooled:
            form = await read_form(request, cast(BinaryIO, spooled))
            if form.file is None:
                raise OpenAiError("the form needs a file", param="file")
            model = form.model if is_installed(form.model, streams.installed) else AUTO
            options = session_options(streams.options(model), form.language, form.temperature)
            options = with_terms(options, terms_of_prompt(form.prompt))
            transcription = Transcription(form, FileDecoder(form.file))
            try:
                transcription.stream = await streams.open_when_loaded(
                    options,
                    transcription.decoder,
                    transcription,
                    PROTOCOL,
                    whole_file=True,
                    model=model,
                )
            except BusyError as problem:
                self._context.metrics.refused.labels("streams").inc()
                raise OpenAiError(str(problem), 503) from None
            except RequestError as problem:
                raise refused(problem, "language") from None
            self._open.add(transcription)
            try:
                transcription.stream.end()
                if form.stream:
                    return await self._stream(request, transcription)
                await transcription.wait_for_end(lambda: request.transport is not None)
                return transcription.response()
            finally:
                self._open.discard(transcription)
                streams.release(transcription.stream)
                await asyncio.to_thread(transcription.stream.wait_idle)  # it reads the file

    async def _stream(
        self, request: web.Request, transcription: Transcription
    ) -> web.StreamResponse:
        """Answers with server-sent events: words as they are committed, then the whole text."""
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        deltas = transcription.deltas(self._context.streams.wake)
        first = await anext(deltas, None)
        if transcription.failure is not None and first is None:
            raise transcription.error()
        await response.prepare(request)
        try:
            if first is not None:
                await _send_event(response, {"type": "transcript.text.delta", "delta": first})
            async for delta in deltas:
                await _send_event(response, {"type": "transcript.text.delta", "delta": delta})
            if transcription.failure is not None:
                error = {"message": transcription.failure.message, "type": "server_error"}
                await _send_event(response, {"type": "error", "error": error})
            else:
                done = {"type": "transcript.text.done", "text": transcription.text}
                await _send_event(response, done)
            async with asyncio.timeout(SEND_S):
                await response.write_eof()
        except TimeoutError:
            self._context.disconnect(request)()
        return response

    async def _refuse_translation(self, request: web.Request) -> web.StreamResponse:
        message = "edged does not translate: use /v1/audio/transcriptions"
        return OpenAiError(message, 404, code="unknown_url").response()

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check(request)
        except OpenAiError as error:
            return error.response()
        models = [model_object(entry.name) for entry in self._context.streams.installed]
        return web.json_response({"object": "list", "data": models})

    async def _describe_model(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check(request)
            name = request.match_info["model"]
            if not is_installed(name, self._context.streams.installed):
                raise OpenAiError(f"there is no model {name!r:.60}", 404, "model",
                                  "model_not_found")  # fmt: skip
        except OpenAiError as error:
            return error.response()
        return web.json_response(model_object(name))

    def _check(self, request: web.Request) -> None:
        """Raises OpenAiError if the key is missing or wrong."""
        if denial := self._context.deny_key(request):
            raise denied(denial)


class Transcription:
    """One request: collects the events of its stream."""

    def __init__(self, form: TranscriptionForm, decoder: FileDecoder) -> None:
        self.stream: Stream | None = None
        self.decoder = decoder
        self.failure: Error | None = None
        self._form = form
        self._loop = asyncio.get_running_loop()
        self._turns: list[Turn] = []
        self._words: deque[str] = deque()
        self._had_word = False
        self._steps = 0
        self._ended = False
        self._news = asyncio.Event()

    @property
    def text(self) -> str:
        """The text of all turns."""
        separator = word_separator(self.language)
        return separator.join(turn.text for turn in self._turns if turn.text)

    @property
    def language(self) -> str:
        """Of the last turn; before it, what the stream was asked for."""
        if self._turns:
            return self._turns[-1].language
        return self.stream.language if self.stream is not None else ""

    async def wait_for_end(self, is_connected: Callable[[], bool]) -> None:
        """Waits until the whole file has been processed. Raises ConnectionError if the client has
        gone."""
        while not self._ended:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._news.wait()
            if not is_connected():
                raise ConnectionResetError
        if self.failure is not None:
            raise self.error()

    async def deltas(self, wake: Callable[[Stream], None]) -> AsyncIterator[str]:
        """Yields words as they are committed, each but the first with a space in front."""
        while True:
            while self._words:
                was_full = self.is_full()
                word = self._words.popleft()
                if was_full and self.stream is not None:
                    wake(self.stream)
                yield f"{word_separator(self.language)}{word}" if self._had_word else word
                self._had_word = True
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def error(self) -> OpenAiError:
        """The failure in OpenAI's form."""
        assert self.failure is not None
        is_client = self.failure.code == CLIENT_FAULT
        return OpenAiError(
            self.failure.message, 400 if is_client else 503, "file" if is_client else None
        )

    def response(self) -> web.Response:
        """The answer in the format that the client asked for."""
        match self._form.response_format:
            case "text":
                return web.Response(text=self.text + "\n")
            case "srt" | "vtt" as form:
                return web.Response(text=self._subtitles(form))
            case "verbose_json":
                return web.json_response(self._verbose())
        return web.json_response({"text": self.text})

    def _subtitles(self, form: str) -> str:
        until_s, parts = 0.0, [subtitles.VTT_HEADER] if form == "vtt" else []
        number = 0
        for turn in self._turns:
            for cue in subtitles.cues(turn.words, until_s, turn.language):
                number += 1
                until_s = cue.stop_s
                parts.append(subtitles.vtt(cue) if form == "vtt" else subtitles.srt(cue, number))
        return "".join(parts)

    def _verbose(self) -> dict[str, Any]:
        duration_s = self.decoder.duration_s or self._steps * STEP_S
        answer: dict[str, Any] = {
            "task": "transcribe",
            "language": NAMES.get(self.language, self.language),
            "duration": round(duration_s, 2),
            "text": self.text,
        }
        granularities = self._form.granularities or {"segment"}
        if "word" in granularities:
            words = [word for turn in self._turns for word in turn.words]
            answer["words"] = [_word(word) for word in words]
        if "segment" in granularities:
            answer["segments"] = [_segment(n, turn) for n, turn in enumerate(self._turns)]
        return answer

    # -- StreamClient, on a worker thread

    def on_events(self, events: Sequence[Event]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(partial(self.on_loop, events))

    def is_full(self) -> bool:
        return len(self._words) >= MAX_WAITING

    def on_room(self) -> None:
        pass  # nothing is pushed

    # -- on the event loop

    def on_loop(self, events: Sequence[Event]) -> None:
        """Takes events of the stream."""
        for event in events:
            match event:
                case Step():
                    self._steps += 1
                case Text(text) if self._form.stream:
                    self._words.append(text)
                case Turn():
                    self._turns.append(event)
                case Error():
                    self.failure = self.failure or event
                    self._ended = True
                case EndOfStream():
                    self._ended = True
        self._news.set()


async def read_form(request: web.Request, file: BinaryIO) -> TranscriptionForm:
    """Reads the multipart form; the bytes of its `file` go into `file`. Raises OpenAiError."""
    if not request.content_type.startswith("multipart/"):
        raise OpenAiError("the body must be multipart/form-data")
    form = TranscriptionForm()
    try:
        reader = await request.multipart()
        for _ in range(MAX_FIELDS):
            async with asyncio.timeout(READ_S):
                part = await reader.next()
            if part is None:
                file.seek(0)
                return form
            if not isinstance(part, BodyPartReader):
                raise OpenAiError("a part of the form is itself a form")
            if part.name == "file":
                await _read_file(part, file)
                form.file = file
            else:
                value = await _read_field(part)
                form.set(part.name or "", value)
    except TimeoutError:
        raise OpenAiError(f"the body stalled for {READ_S:.0f} s") from None
    except OpenAiError:
        raise
    except (ValueError, AssertionError, RuntimeError, web.RequestPayloadError) as problem:
        raise OpenAiError(f"the form cannot be read: {problem!s:.100}") from None
    raise OpenAiError(f"the form has more than {MAX_FIELDS} fields")


async def _read_file(part: BodyPartReader, file: BinaryIO) -> None:
    size = 0
    while True:
        async with asyncio.timeout(READ_S):
            chunk = await part.read_chunk(1 << 16)
        if not chunk:
            return
        size += len(chunk)
        if size > MAX_FILE:
            raise OpenAiError(f"a file may have {MAX_FILE >> 20} MB at most", 413, "file")
        file.write(chunk)


async def _read_field(part: BodyPartReader) -> str:
    data = bytearray()
    while True:
        async with asyncio.timeout(READ_S):
            chunk = await part.read_chunk(8192)
        if not chunk:
            return data.decode(errors="replace").strip()
        data += chunk
        if len(data) > MAX_FIELD:
            raise OpenAiError(f"the field {part.name!r:.40} is too large", 413, part.name)


def session_options(base: Options, language: str | None, temperature: float) -> Options:
    """The options of a session, which gives turns."""
    return replace(base, turns=True, temp=temperature, language=language or base.language)


def language_of(tag: str, param: str = "language") -> str:
    """The code of a tag such as `en-US`. Raises OpenAiError for what is none."""
    language = from_tag(tag)
    if not is_language(language):
        allowed = "auto or the code of a language, such as en, de or fr"
        raise OpenAiError(f"language must be {allowed}, not {tag!r:.40}", param=param)
    return language


def is_installed(model: str, installed: Sequence[Entry]) -> bool:
    """Whether a client names an installed model. Other names mean that of the settings, because
    many clients send `whisper-1` and cannot be told otherwise."""
    return any(entry.name == model for entry in installed)


def refused(problem: RequestError, param: str) -> OpenAiError:
    """A refusal of the stream pool in OpenAI's form."""
    is_client = problem.code == CLIENT_FAULT
    return OpenAiError(str(problem), 400 if is_client else 503, param if is_client else None)


def denied(denial: Denial) -> OpenAiError:
    """A refusal in OpenAI's form."""
    code = "invalid_api_key" if denial.status == 401 else "rate_limit_exceeded"
    return OpenAiError(denial.message, denial.status, code=code)


def model_object(name: str) -> dict[str, Any]:
    """A model as `/v1/models` describes it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "edged"}


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start": round(word.start_s, 3), "end": round(word.stop_s, 3)}


def _segment(number: int, turn: Turn) -> dict[str, Any]:
    """A turn as a segment. `confidence` is the geometric mean of the token probabilities, so that
    its logarithm is the mean of their logarithms."""
    return {
        "id": number,
        "seek": 0,
        "start": round(turn.start_s, 3),
        "end": round(turn.stop_s, 3),
        "text": turn.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(turn.confidence or 1.0, 1e-9)), 4),
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }


async def _send_event(response: web.StreamResponse, event: dict[str, Any]) -> None:
    """Sends a server-sent event. Raises TimeoutError if the client does not read."""
    async with asyncio.timeout(SEND_S):
        data = json.dumps(event, ensure_ascii=False)
        await response.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
