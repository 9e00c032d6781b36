"""A server for the captions page that sends what a test wants.

The page's files are below /kiosk/, its events at /api/events.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.mosquitto import free_port, until

KIOSK = Path(__file__).parents[2] / "deploy" / "kiosk"


class FakeApiServer:
    """`with FakeApiServer() as server: server.publish(...)`. Can be closed and opened again."""

    def __init__(self, config: str | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/kiosk/"
        self.clients: list[ServerConnection] = []
        self.greeting: list[dict[str, Any]] = []  # sent to each new client
        self._config = config
        self._server: Server | None = None

    def __enter__(self) -> FakeApiServer:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        self._server = serve(
            self._serve_events,
            "127.0.0.1",
            self.port,
            process_request=self._serve_file,
            compression=None,
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """As if edged restarted: closes all connections and answers nothing."""
        for client in list(self.clients):
            client.close()
        self.clients = []
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def publish(self, *messages: dict[str, Any]) -> None:
        until(lambda: self.clients, "a page has subscribed")
        for client in list(self.clients):
            for message in messages:
                with contextlib.suppress(ConnectionClosed):
                    client.send(json.dumps(message))

    def _serve_events(self, client: ServerConnection) -> None:
        for message in self.greeting:
            client.send(json.dumps(message))
        self.clients.append(client)
        for _ in client:
            pass
        with contextlib.suppress(ValueError):
            self.clients.remove(client)

    def _serve_file(self, _: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/api/events":
            return None
        name = path.removeprefix("/kiosk/") or "index.html"
        file = KIOSK / name
        if not path.startswith("/kiosk/") or not file.is_file():
            return Response(404, "Not Found", Headers({"Content-Length": "0"}), b"")
        body = file.read_bytes()
        if name == "config.js" and self._config is not None:
            body = self._config.encode()
        kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
        headers = Headers({"Content-Type": kind or "text/plain", "Content-Length": str(len(body))})
        return Response(HTTPStatus.OK, "OK", headers, body)


def word(text: str, start_s: float) -> dict[str, Any]:
    return {"type": "text", "text": text, "start_s": start_s, "stream_id": 0}


def turn(text: str, start_s: float, stop_s: float) -> dict[str, Any]:
    return {"type": "turn", "text": text, "start_s": start_s, "stop_s": stop_s, "words": []}


def step(index: int, inactive: float) -> dict[str, Any]:
    vad = [{"horizon_s": h, "inactivity_prob": inactive} for h in (0.5, 1.0, 2.0)]
    return {"type": "step", "vad": vad, "step_idx": index}


def state(name: str, value: Any) -> dict[str, Any]:
    return {"type": "state", "name": name, "value": value}
