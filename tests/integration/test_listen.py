"""edged listen: what is shown of a broker's boxes, and how it survives the broker."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from rich.console import Console

from edged.cli.listen import decode, listen, split_topic
from edged.cli.listen_view import DeviceState, JsonLines, KnownDevices, LiveView, PlainLines, clean
from edged.errors import PeerError
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from tests.support.mosquitto import PASSWORDS, Ear, Mosquitto, certificates, until

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


def say(ear: Ear, device: str, name: str, value: Any, retain: bool = False) -> None:
    payload = value if isinstance(value, str) else json.dumps(value)
    ear.say(f"edged/{device}/{name}", payload, retain)


def test_a_pipe_gets_a_line_for_each_turn_and_change_of_state_of_every_box(broker) -> None:
    with Ear(broker.port) as ear:
        say(ear, "kitchen", "availability", "online", retain=True)
        say(ear, "kitchen", "state/mute", "off", retain=True)
        watcher = Watcher(at(broker))
        time.sleep(0.5)
        say(ear, "kitchen", "text", {"type": "text", "text": "light"})
        say(ear, "kitchen", "turn", {"type": "turn", "text": "Light on."})
        say(ear, "hall", "turn", {"type": "turn", "text": "Hello."})
        say(ear, "hall", "state/mic", {"ok": False, "message": "gone"})
        say(ear, "kitchen", "state/mute", "on")
        say(ear, "kitchen", "availability", "offline")
        until(lambda: len(watcher.lines) >= 5, f"five lines: {watcher.lines}")
        watcher.end()
    assert [line.split(" ", 1)[1] for line in watcher.lines] == [
        "kitchen: Light on.",
        "hall: Hello.",
        "hall: -- microphone: gone",
        "kitchen: -- muted",
        "kitchen: -- offline",
    ]


def test_json_gives_every_message_of_one_box_as_it_is(broker: Mosquitto) -> None:
    with Ear(broker.port) as ear:
        watcher = Watcher(at(broker), "hall", as_json=True)
        time.sleep(0.5)
        say(ear, "kitchen", "turn", {"type": "turn", "text": "no"})
        say(ear, "hall", "step", STEP)
        say(ear, "hall", "state/mute", "on")
        say(ear, "hall", "cmd/mute", "on")
        say(ear, "hall", "turn", {"type": "turn", "text": "größe\u2028", "device": "liar"})
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
    with broker, Ear(broker.port) as ear:
        for text in ("one", "two"):
            until(
                lambda text=text: (
                    say(ear, "hall", "turn", {"type": "turn", "text": text}),
                    time.sleep(0.2),
                    any(line.endswith(f"hall: {text}") for line in watcher.lines),
                )[2],
                text,
                15,
            )
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
        with Ear(broker.port, username="hub") as ear:
            time.sleep(0.5)
            say(ear, "hall", "turn", {"type": "turn", "text": "safe"})
            until(lambda: watcher.lines, "a line over TLS")
        watcher.end()


def test_a_terminal_shows_the_words_as_they_come_the_bars_and_who_speaks() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, color_system=None)
    with LiveView(console, KnownDevices()) as view:
        view.notice("connecting to hub:1883")
        view.message("hall", "availability", "online")
        view.message("hall", "state/speaking", "on")
        view.message("hall", "text", {"text": "good"})
        view.message("hall", "text", {"text": "morning"})
        view.message("hall", "step", STEP)
        picture = Console(file=io.StringIO(), width=160)
        picture.print(view._picture())
        live = picture.file.getvalue()  # type: ignore[attr-defined]
        view.message("hall", "turn", {"text": "Good morning."})
        picture.print(view._picture())
        after = picture.file.getvalue()[len(live) :]  # type: ignore[attr-defined]
    assert "connecting to hub:1883" in live
    assert "hall ● speaking" in live
    assert "good morning" in live
    assert live.count("0.5 s") == live.count("2 s") == 1
    assert live.count("█") == 18 + 10
    assert "good morning" not in after
    assert "hall: Good morning." in file.getvalue()


@pytest.mark.parametrize("width", [100, 80, 60, 44, 24])
def test_the_live_part_fits_the_terminal_and_keeps_the_newest_words(width: int) -> None:
    """At 80 columns the third bar broke into a second line, and the newest words of a long turn
    fell off the end of a small screen."""
    console = Console(file=io.StringIO(), width=width, height=24)
    view = LiveView(console, KnownDevices())
    view.message("hall", "availability", "online")
    view.message("hall", "state/speaking", "on")
    view.message("hall", "step", STEP)
    for n in range(200):
        view.message("hall", "text", {"text": f"word{n}"})
    console.print(view._picture())
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("hall ● speaking")
    assert ("2 s" in lines[0]) == (width >= 60)
    assert len(lines) == 5
    assert lines[-1].endswith("word199")


def test_what_strangers_publish_cannot_steer_the_terminal() -> None:
    file = io.StringIO()
    view = PlainLines(Console(file=file))
    view.message("a\x1b]0;x\x07", "turn", {"text": "\x1b[31mred\x9b\nnext"})
    assert "\x1b" not in file.getvalue()
    assert "\x9b" not in file.getvalue()
    assert file.getvalue().count("\n") == 1
    assert clean("a" * 10_000) == "a" * 2000


def test_memory_stays_bounded_however_many_boxes_and_words_there_are() -> None:
    devices = KnownDevices()
    for n in range(1000):
        device = devices.of(f"d{n}")
        if device:
            device.update("text", {"text": "w"})
    assert len(devices.all) == 256
    one = DeviceState("x")
    for _ in range(1000):
        one.update("text", {"text": "w"})
    assert len(one.words) == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
NAMES = ["text", "turn", "step", "error", "end_of_stream", "state/mic", "state/mute", "x"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), VALUES | st.fixed_dictionaries({"vad": VALUES, "text": VALUES}))
def test_no_payload_can_stop_it(name: str, value: Any) -> None:
    console = Console(file=io.StringIO(), width=80)
    for view in (PlainLines(console), JsonLines(console), LiveView(console, KnownDevices())):
        view.message("hall", "availability", "online")
        view.message("hall", name, value)
        if isinstance(view, LiveView):
            console.print(view._picture())


def test_topics_and_payloads_are_taken_apart() -> None:
    assert split_topic("a/b/hall/state/mic", "a/b") == ("hall", "state/mic")
    assert split_topic("a/hall/text", "a/b") is None
    assert split_topic("a/b/hall", "a/b") is None
    assert decode(b'{"a": 1}') == {"a": 1}
    assert decode(b"on") == "on"
    assert decode(b"NaN") == "NaN"
    assert decode(b"[" * 100_000).startswith("[[")
    assert decode(b"\xff") == "\ufffd"
