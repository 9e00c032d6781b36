"""The API server in real processes: `edged serve`, and a daemon whose microphone comes first."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

from edged.models.samples import samples
from tests.support.api_process import EDGED, serving
from tests.support.api_server import Client, as_wav
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, free_port, until
from tests.support.words import error_rate

KEY = "a secret of the test"
CLIP = samples()[0]


def upload(url: str, **headers: str) -> requests.Response:
    data = as_wav(CLIP.path)
    return requests.post(f"{url}/api/post/speech/asr", data=data, headers=headers, timeout=60)


def test_edged_serve_needs_neither_microphone_nor_broker_and_ends_on_sigterm() -> None:
    with serving() as served:
        messages = [json.loads(line) for line in upload(served.url).text.splitlines()]
        words = " ".join(m["text"] for m in messages if m["type"] == "text")
        assert error_rate(CLIP.text, words) < 0.2
        assert served.process is not None
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(10) == 0


def test_edged_serve_requires_its_key_and_never_logs_it() -> None:
    with serving("--log-level", "debug", api_key=KEY) as served:
        url = served.url
        assert upload(url).status_code == 401
        assert requests.get(f"{url}/metrics", timeout=10).status_code == 401
        assert upload(url, **{"x-api-key": KEY}).status_code == 200
        assert requests.get(f"{url}/api/events?token={KEY}", timeout=10).status_code == 404
        assert served.process is not None
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(10)
        assert "the API server listens at" in served.log
        assert KEY not in served.log


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"EDGED_LISTEN": "0.0.0.0:8765"},
            "EDGED_LISTEN on an address that other machines reach needs EDGED_API_KEY",
        ),
        (
            {"EDGED_TLS_CERT_FILE": "/nowhere", "EDGED_TLS_KEY_FILE": "/nowhere"},
            "EDGED_TLS_CERT_FILE /nowhere and its key cannot be used",
        ),
        ({"EDGED_TLS_CERT_FILE": "/nowhere"}, "must be set together"),
    ],
)
def test_an_api_server_that_must_not_or_cannot_open_is_a_configuration_error(
    settings: dict[str, str], words: str
) -> None:
    ran = subprocess.run(
        [*EDGED, "serve"], env=os.environ | settings, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 5
    assert words in ran.stderr


def test_a_port_in_use_ends_edged_serve_with_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*EDGED, "serve", "--listen", address]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 6
    assert f"EDGED_LISTEN {address} cannot be opened" in ran.stderr


def test_the_daemon_serves_the_api_server_beside_its_microphone(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    (tmp_path / "broker").mkdir()
    with Mosquitto(tmp_path / "broker") as broker:
        with DaemonProcess(tmp_path, broker.port, listen=listen) as daemon:
            with connect(f"ws://{listen}/api/events", compression=None) as socket_:
                subscriber = Client(socket_)
                assert subscriber.receive()["model_name"] == "tiny-en"
                steps = [subscriber.receive_until("step")["step_idx"]]
                assert upload(f"http://{listen}").status_code == 200
                steps += [subscriber.receive_until("step")["step_idx"] for _ in range(20)]
                assert steps == list(range(steps[0], steps[0] + 21))  # none lost meanwhile
                assert requests.get(f"http://{listen}/healthz", timeout=10).text == "ok\n"
                metrics = requests.get(f"http://{listen}/metrics", timeout=10).text
                assert "edged_dropped_audio_seconds_total 0.0" in metrics
                assert "edged_broker_connected 1.0" in metrics
                assert "edged_microphone_open 1.0" in metrics
                assert "edged_lag_seconds" in metrics
                daemon.stop()
                assert subscriber.receive_all()[-1]["type"] in ("error", "end_of_stream")


def test_a_port_in_use_does_not_stop_the_microphone(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    with (
        socket.socket() as taken,
        Mosquitto(tmp_path / "broker") as broker,
        Subscriber(broker.port, ("edged/#",)) as ear,
    ):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with DaemonProcess(tmp_path, broker.port, listen=listen) as daemon:
            until(lambda: "cannot be opened" in daemon.log(), "a warning")
            until(lambda: ear.on("text"), "words of the microphone")
            daemon.stop()
