"""An API server for tests, with real models or with a scripted session, and a bare client."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import soundfile
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from edged.engine.background_worker import BackgroundWorker
from edged.engine.session import Session
from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Turn
from edged.languages import AUTO
from edged.models.catalogue import Catalogue, shipped
from edged.models.choice import ModelChoice, choose
from edged.models.loader import Models, has_language
from edged.models.pool import ModelPool
from edged.options import Options
from edged.server.access import AccessControl, Origins
from edged.server.api_server import ApiServer
from edged.server.listener import ListenAddress
from edged.server.stream_pool import SessionProvider

STEP_BYTES = 3840
SAMPLES = Path(__file__).parent / "speech"


class ScriptedSession:
    """Stands in for a Session: one word per frame, named by its step, and a turn at the end."""

    fail_at = -1
    speaking = False
    lag_s = 0.0
    word = "w"

    is_finished = True

    def __init__(self, models: object, options: Options, **executors: object) -> None:
        self.options = options
        self.step_idx = 0

    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        if self.step_idx == self.fail_at:
            raise ZeroDivisionError
        at = self.step_idx
        self.step_idx += 1
        return [Text(f"{self.word}{at}", at * 0.08), EndText(at * 0.08 + 0.08), Step(at)]

    def flush(self, flush_id: int | str) -> list[Event]:
        return [Flushed(flush_id)]

    def collect(self) -> list[Event]:
        return []

    def finish(self, timeout_s: float) -> list[Event]:
        return []

    def close(self) -> None:
        pass

    def end(self) -> list[Event]:
        turn = [Turn("all", 0.0, 1.0)] if self.options.turns else []
        return [*turn, EndOfStream()]


def scripted_sessions() -> SessionProvider:
    """Sessions without models."""
    recogniser = SimpleNamespace(has_keyterms=False)
    models: Any = SimpleNamespace(name="tiny-en", languages=("en",), recogniser=recogniser)
    return sessions_of(models, cast(Callable[..., Session], ScriptedSession))


def sessions_of(
    models: Models, make_session: Callable[..., Session] = Session, *others: Models
) -> SessionProvider:
    """Sessions of these models: the first is in memory, the others are loaded when they are asked
    for. Nothing else is installed."""
    known = {one.name: one for one in (models, *others)}
    entries = {one.name: replace(shipped().get("tiny-en"), name=one.name,
                                 languages=one.languages, default=False)
               for one in known.values()}  # fmt: skip
    installed = Catalogue(tuple(entries.values()))
    pool = ModelPool(models, lambda name, _: known[name], BackgroundWorker("model-loader"))

    def choose_model(model: str, language: str) -> ModelChoice:
        if model == AUTO and has_language(models, language):
            return ModelChoice(entries[models.name], language)
        return choose(installed, list(known), model, language)

    return SessionProvider(
        pool, Options, choose_model, lambda: list(entries.values()), make_session=make_session
    )


@contextlib.contextmanager
def open_api_server(sessions: SessionProvider, **given: Any) -> Iterator[ApiServer]:
    """An open server; `given` are arguments of ApiServer, `api_key` and `origins`."""
    access = AccessControl(given.pop("api_key", None), given.pop("origins", Origins()))
    address = given.pop("address", ListenAddress("127.0.0.1", 0))
    api_server = ApiServer(address, access, sessions, given.pop("max_streams", 2), **given)
    api_server.start()
    try:
        api_server.wait_open()
        yield api_server
    finally:
        api_server.stop()


def socket_url(api_server: ApiServer, path: str = "/api/speech/asr") -> str:
    return api_server.url.replace("http", "ws", 1) + path


@dataclass
class Client:
    """A bare WebSocket client that keeps every message it receives."""

    socket: Connection
    messages: list[dict[str, Any]] = field(default_factory=list)

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def setup(self, **fields: Any) -> None:
        self.send(type="setup", **{"input_format": "pcm", **fields})

    def audio(self, data: bytes, **fields: Any) -> None:
        self.send(type="audio", audio=base64.b64encode(data).decode(), **fields)

    def receive(self, timeout: float = 20) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout))
        self.messages.append(message)
        return message

    def receive_until(self, kind: str, timeout: float = 20) -> dict[str, Any]:
        while (message := self.receive(timeout))["type"] != kind:
            pass
        return message

    def receive_all(self, timeout: float = 20) -> list[dict[str, Any]]:
        """All messages until the server closes."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.receive(timeout)
        return self.messages

    def types(self) -> Counter[str]:
        return Counter(message["type"] for message in self.messages)

    @property
    def close_code(self) -> int | None:
        return self.socket.close_code


@contextlib.contextmanager
def client(
    api_server: ApiServer, path: str = "/api/speech/asr", **options: Any
) -> Iterator[Client]:
    options.setdefault("compression", None)
    socket = connect(socket_url(api_server, path), max_size=None, **options)
    with socket:
        yield Client(socket)


def silence(steps: float) -> bytes:
    return bytes(int(steps * STEP_BYTES) // 2 * 2)


def as_wav(path: Path, subtype: str = "PCM_16") -> bytes:
    samples, rate = soundfile.read(path, dtype="float64")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()
