"""An open door for tests: with real models, or with a scripted session."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from websockets.sync.client import ClientConnection, connect

from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Turn
from edged.options import Options
from edged.server.access import Origins
from edged.server.api_server import Address, ApiServer
from edged.server.routes import Access
from edged.server.streams import Source

STEP_BYTES = 3840
SAMPLES = Path(__file__).parents[2] / "models" / "samples"


class Scripted:
    """One word per frame, named by its step, and a turn at the end; as the real one, pure."""

    fail_at = -1
    word = "w"

    def __init__(self, models: object, options: Options, beside: object = None) -> None:
        self.options = options
        self.step_idx = 0

    def push(self, frame: np.ndarray, behind: bool = False) -> list[Event]:
        if self.step_idx == self.fail_at:
            raise ZeroDivisionError
        at = self.step_idx
        self.step_idx += 1
        return [Text(f"{self.word}{at}", at * 0.08), EndText(at * 0.08 + 0.08), Step(at)]

    def flush(self, flush_id: int | str) -> list[Event]:
        return [Flushed(flush_id)]

    def end(self) -> list[Event]:
        turn = [Turn("all", 0.0, 1.0)] if self.options.turns else []
        return [*turn, EndOfStream()]


def scripted_source() -> Source:
    return Source(lambda: SimpleNamespace(name="tiny-en"), Options)  # type: ignore[arg-type,return-value]


@contextlib.contextmanager
def open_api_server(source: Source, **given: Any) -> Iterator[ApiServer]:
    access = Access(given.pop("api_key", None), given.pop("origins", Origins()))
    address = given.pop("address", Address("127.0.0.1", 0))
    api_server = ApiServer(address, access, source, given.pop("max_streams", 2), **given)
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
    """A bare WebSocket client that keeps what it was told."""

    socket: ClientConnection
    heard: list[dict[str, Any]] = field(default_factory=list)

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def setup(self, **fields: Any) -> None:
        self.say(type="setup", **{"input_format": "pcm", **fields})

    def audio(self, data: bytes, **fields: Any) -> None:
        import base64

        self.say(type="audio", audio=base64.b64encode(data).decode(), **fields)

    def hear(self, timeout: float = 20) -> dict[str, Any]:
        message = json.loads(self.socket.recv(timeout))
        self.heard.append(message)
        return message

    def until(self, kind: str, timeout: float = 20) -> dict[str, Any]:
        while (message := self.hear(timeout))["type"] != kind:
            pass
        return message

    def rest(self, timeout: float = 20) -> list[dict[str, Any]]:
        """All messages until the server closes."""
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while True:
                self.hear(timeout)
        return self.heard

    def types(self) -> Counter[str]:
        return Counter(message["type"] for message in self.heard)

    @property
    def close_code(self) -> int | None:
        return self.socket.close_code


@contextlib.contextmanager
def client(
    api_server: ApiServer, path: str = "/api/speech/asr", **options: Any
) -> Iterator[Client]:
    options.setdefault("compression", None)
    with connect(socket_url(api_server, path), max_size=None, **options) as socket:
        yield Client(socket)


def silence(steps: float) -> bytes:
    return bytes(int(steps * STEP_BYTES) // 2 * 2)


def samples_of(path: Path) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(path, dtype="int16")
    return samples, rate


def as_wav(path: Path, subtype: str = "PCM_16") -> bytes:
    samples, rate = soundfile.read(path, dtype="float64")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()
