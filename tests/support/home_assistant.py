"""A real Home Assistant with one user, for the checks of `make test-homeassistant`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

from tests.support.mosquitto import free_port, until

BASE = """
homeassistant: {{name: Home, latitude: 48, longitude: 16, elevation: 0, time_zone: UTC}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
frontend:
config:
conversation:
"""


class HomeAssistant:
    """A Home Assistant that a user has set up. `with HomeAssistant(folder, ...) as home` starts it.

    The program is the one that the environment variable `HASS` names.

    Args:
        folder: the configuration folder, which may hold files already.
        configuration: YAML, added to the one that every Home Assistant needs.
        entries: config entries, as stored in `.storage/core.config_entries`.
    """

    def __init__(
        self, folder: Path, configuration: str, entries: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        (folder / ".storage").mkdir(parents=True)
        (folder / "configuration.yaml").write_text(BASE.format(port=self.port) + configuration)
        self._store("core.config_entries", 1, 5, {"entries": list(entries)})
        steps = ["user", "core_config", "analytics", "integration"]
        self._store("onboarding", 4, 1, {"done": steps})

    def _store(self, key: str, version: int, minor: int, data: Any) -> None:
        text = {"version": version, "minor_version": minor, "key": key, "data": data}
        (self._folder / ".storage" / key).write_text(json.dumps(text))

    def __enter__(self) -> HomeAssistant:
        hass = os.environ["HASS"].split()
        user: list[str | Path] = [
            hass[0],
            "--script",
            "auth",
            "-c",
            self._folder,
            "add",
            "maria",
            "a password",
        ]
        subprocess.run(user, check=True, capture_output=True)
        self._process = subprocess.Popen([*hass, "-c", self._folder])
        until(self._answers, "Home Assistant", 600)
        self.token = self._login()
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.token['access_token']}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return requests.get(f"{self.url}/auth/providers", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _login(self) -> dict[str, Any]:
        client = {"client_id": f"{self.url}/"}
        flow = {"handler": ["homeassistant", None], "redirect_uri": f"{self.url}/"}
        at = f"{self.url}/auth/login_flow"
        step = requests.post(at, json=client | flow).json()
        known = {"username": "maria", "password": "a password"}
        done = requests.post(f"{at}/{step['flow_id']}", json=client | known).json()
        ask = client | {"grant_type": "authorization_code", "code": done["result"]}
        token: dict[str, Any] = requests.post(f"{self.url}/auth/token", data=ask).json()
        return token

    def state(self, entity: str) -> dict[str, Any]:
        found = self.session.get(f"{self.url}/api/states/{entity}")
        return found.json() if found.ok else {"state": None, "attributes": {}}

    def call(self, service: str, entity: str) -> None:
        where = f"{self.url}/api/services/{service}"
        self.session.post(where, json={"entity_id": entity}).raise_for_status()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer of the REST API to a request."""
        answer = self.session.post(f"{self.url}/api/{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def browser_tokens(self) -> str:
        """The value of `hassTokens` in a browser's local storage that keeps the user logged in."""
        expires_ms = (time.time() + 1800) * 1000
        known = {"hassUrl": self.url, "clientId": f"{self.url}/", "expires": expires_ms}
        return json.dumps(self.token | known)

    @contextlib.contextmanager
    def socket(self) -> Iterator[HomeAssistantSocket]:
        """A connection to the WebSocket API, logged in."""
        socket = connect(f"ws://127.0.0.1:{self.port}/api/websocket", max_size=None)
        with socket:
            assert json.loads(socket.recv(30))["type"] == "auth_required"
            socket.send(json.dumps({"type": "auth", "access_token": self.token["access_token"]}))
            assert json.loads(socket.recv(30))["type"] == "auth_ok"
            yield HomeAssistantSocket(socket)


class HomeAssistantSocket:
    """Commands and pipeline runs over Home Assistant's WebSocket API."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._id = 0

    def command(self, kind: str, **fields: Any) -> Any:
        """Sends a command and returns its result."""
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "type": kind, **fields}))
        while (answer := json.loads(self._socket.recv(60)))["type"] != "result":
            pass
        assert answer["success"], answer
        return answer["result"]

    def start_pipeline(self, **fields: Any) -> int:
        """Starts a run of a voice pipeline; returns the number of the handler of its audio."""
        self.command("assist_pipeline/run", **fields)
        started = self.event(60)
        assert started["type"] == "run-start", started
        return int(started["data"]["runner_data"]["stt_binary_handler_id"])

    def send_audio(self, handler: int, audio: bytes) -> None:
        """Sends 16-bit mono audio at 16 kHz; nothing ends it."""
        self._socket.send(bytes([handler]) + audio)

    def event(self, timeout_s: float) -> dict[str, Any]:
        """The next event of the pipeline. Raises TimeoutError."""
        event: dict[str, Any] = json.loads(self._socket.recv(timeout_s))["event"]
        return event
