"""`edged listen` with a real broker: what is shown, and what happens when the broker goes away."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from edged.cli.listen import listen
from edged.errors import PeerError
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from tests.support.mosquitto import PASSWORDS, Mosquitto, Subscriber, certificates, until

STEP = {
    "type": "step",
    "vad": [{"horizon_s": h, "inactivity_prob": p} for h, p in ((0.5, 0.9), (1.0, 0.5), (2.0, 0))],
    "step_idx": 1,
}


class Watcher:
    """A running `listen` whose output the test reads."""

    def __init__(self, broker: BrokerSettings, device: str = "+", as_json: bool = False) -> None:
        self.file = io.StringIO()
        self._stop = threading.Event()
        console = Console(file=self.file, width=100)
        self._thread = threading.Thread(
            target=listen, args=(broker, console, device, as_json, self._stop), daemon=True
        )
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as running:
        yield running


def at(broker: Mosquitto) -> BrokerSettings:
    return BrokerSettings(BrokerAddress("127.0.0.1", broker.port))


def publish(ear: Subscriber, device: str, name: str, value: Any, retain: bool = False) -> None:
    payload = value if isinstance(value, str) else json.dumps(value)
    ear.publish(f"edged/{device}/{name}", payload, retain)


def test_a_pipe_gets_a_line_for_each_turn_and_change_of_state_of_every_device(
    broker: Mosquitto,
) -> None:
    with Subscriber(broker.port) as ear:
        publish(ear, "kitchen", "availability", "online", retain=True)
        publish(ear, "kitchen", "state/mute", "off", retain=True)
        watcher = Watcher(at(broker))
        time.sleep(0.5)
        publish(ear, "kitchen", "text", {"type": "text", "text": "light"})
        publish(ear, "kitchen", "turn", {"type": "turn", "text": "Light on."})
        publish(ear, "hall", "turn", {"type": "turn", "text": "Hello."})
        publish(ear, "hall", "state/mic", {"ok": False, "message": "gone"})
        publish(ear, "kitchen", "state/mute", "on")
        publish(ear, "kitchen", "availability", "offline")
        until(lambda: len(watcher.lines) >= 5, f"five lines: {watcher.lines}")
        watcher.end()
    assert [line.split(" ", 1)[1] for line in watcher.lines] == [
        "kitchen: Light on.",
        "hall: Hello.",
        "hall: -- microphone: gone",
        "kitchen: -- muted",
        "kitchen: -- offline",
    ]


def test_json_gives_every_message_of_one_device_as_it_is(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as ear:
        watcher = Watcher(at(broker), "hall", as_json=True)
        time.sleep(0.5)
        publish(ear, "kitchen", "turn", {"type": "turn", "text": "no"})
        publish(ear, "hall", "step", STEP)
        publish(ear, "hall", "state/mute", "on")
        publish(ear, "hall", "cmd/mute", "on")
        publish(ear, "hall", "turn", {"type": "turn", "text": "größe\u2028", "device": "liar"})
        until(lambda: len(watcher.lines) >= 3, f"three lines: {watcher.lines}")
        watcher.end()
    step, mute, turn = map(json.loads, watcher.file.getvalue().strip("\n").split("\n"))
    assert step == {"device": "hall", "topic": "step"} | STEP
    assert mute == {"device": "hall", "topic": "state/mute", "value": "on"}
    assert turn["device"] == "hall"
    assert turn["text"] == "größe\u2028"


def test_it_waits_for_a_broker_and_comes_back_after_its_restart(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker")
    watcher = Watcher(at(broker))
    time.sleep(0.5)
    with broker, Subscriber(broker.port) as ear:

        def shown(text: str) -> bool:
            publish(ear, "hall", "turn", {"type": "turn", "text": text})
            time.sleep(0.2)
            return any(line.endswith(f"hall: {text}") for line in watcher.lines)

        for text in ("one", "two"):
            until(lambda text=text: shown(text), text, 15)  # type: ignore[misc]
            if text == "one":
                broker.stop()
                broker.start()
                until(ear.client.is_connected, "the test is connected")
    watcher.end()


def test_wrong_credentials_end_it_with_a_sentence(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "b", protected=True) as broker:
        wrong = replace(at(broker), username="hub", password=SecretStr("wrong"))
        with pytest.raises(PeerError, match="refused the connection: not authori") as caught:
            listen(wrong, Console(file=io.StringIO()))
        assert "wrong" not in str(caught.value)
        right = BrokerSettings(
            BrokerAddress("localhost", broker.tls_port, tls=True),
            username="hub",
            password=SecretStr(PASSWORDS["hub"]),
            ca_file=certificates() / "ca.crt",
        )
        watcher = Watcher(right)
        with Subscriber(broker.port, username="hub") as ear:
            time.sleep(0.5)
            publish(ear, "hall", "turn", {"type": "turn", "text": "safe"})
            until(lambda: watcher.lines, "a line over TLS")
        watcher.end()
