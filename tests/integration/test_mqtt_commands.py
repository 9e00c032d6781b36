"""Commands over a broker: each is answered, and a flood is bounded."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from edged.mqtt.commands import Command
from tests.support.mangled_commands import command_or_sentence, mangled
from tests.support.mosquitto import Mosquitto, Subscriber, until
from tests.support.mqtt_publisher import Rig

pytestmark = pytest.mark.broker


def test_hundreds_of_mangled_commands_over_the_broker_are_all_answered(tmp_path: Path) -> None:
    pick = random.Random(4)
    sent = [mangled(pick) for _ in range(400)]
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, ("edged/kitchen/cmd/#",)) as ear:
        with Rig(tmp_path, broker.port) as rig:
            rig.connected()
            # In tens: a flood is bounded, which is tested below.
            for start in range(0, len(sent), 10):
                for name, raw in sent[start : start + 10]:
                    ear.client.publish(f"edged/kitchen/cmd/{name}", raw, 1)
                until(lambda: len(ear.on("result")) >= start + 10, f"{start} answered")  # noqa: B023
            answers = [h.json() for h in ear.on("result")]
            good = [c for c in (command_or_sentence(*s) for s in sent) if isinstance(c, Command)]
            assert len(answers) == 400
            assert [c.payload for c in rig.commands] == [c.payload for c in good]
            assert sum(a["ok"] for a in answers) == len(good)
            assert all(a["ok"] or a["error"] for a in answers)
            assert rig.publisher.stats().connected
            assert len(rig.states) == 1, "never disconnected"


def test_an_answer_goes_where_it_was_asked_for_and_after_the_texts(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        with Rig(tmp_path, broker.port, answer=False) as rig:
            rig.connected()
            ear.publish(
                "edged/kitchen/cmd/flush", "5", ResponseTopic="me/here", CorrelationData=b"\x00\xff"
            )
            command = until(lambda: rig.commands, "the command")[0]
            rig.publish_words(0, 40)
            rig.publisher.reply(command, True, flush_id=5)
            answer = until(lambda: ear.on("here"), "the answer")[0]
            assert answer.json() == {"ok": True, "flush_id": 5}
            assert answer.properties.CorrelationData == b"\x00\xff"
            assert answer.properties.MessageExpiryInterval <= 60
            assert len(ear.on("text")) == 40, "every text came before"
            assert not ear.on("result")


@pytest.mark.parametrize(
    "topic",
    [
        "edged/kitchen/cmd/flush",
        "edged/hall/cmd/flush",
        "edged/kitchen/availability",
        "edged/kitchen/text",
        "edged/hall/text",
        "edged/upstairs/hall/text",
        "homeassistant/device/kitchen/config",
        "$SYS/x",
        "a" * 600,
    ],
)
def test_an_answer_is_not_sent_where_it_would_do_harm(tmp_path: Path, topic: str) -> None:
    """A response topic that is a command of ours would make us talk to ourselves for ever, and
    whoever may only ask could speak as the device: an answer went to its `availability`."""
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        until(lambda: ear.on("availability"), "sent after the subscription to commands")
        ear.publish("edged/kitchen/cmd/flush", "5", ResponseTopic=topic)
        until(lambda: ear.on("cmd/flush/result"), "the answer at the usual place")
        assert len(rig.commands) == 1


def test_a_retained_command_is_ignored_and_reported_live_and_at_each_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A retained restart would be a boot loop."""
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        ear.publish("edged/kitchen/cmd/restart", "", retain=True)  # an empty one is not kept
        ear.publish("edged/kitchen/cmd/restart", "{}", retain=True)
        with Rig(tmp_path, broker.port) as rig:
            until(lambda: ear.on("result"), "reported when found")
            ear.publish("edged/kitchen/cmd/mute", "on", retain=True)
            until(lambda: len(ear.on("result")) == 2, "reported when sent")
            assert rig.commands == []
        assert all("retained" in h.json()["error"] for h in ear.on("result"))
    assert caplog.text.count("publish cmd/restart without retain") == 1


def test_retained_commands_that_nobody_knows_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each made-up name was logged, and remembered for ever."""
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        for n in range(20):
            ear.publish(f"edged/kitchen/cmd/made-up-{n}", "x", retain=True)
        with Rig(tmp_path, broker.port):
            until(lambda: len(ear.on("result")) == 20, "each is answered")
    assert caplog.text.count("unknown command") == 1


def test_a_daemon_that_has_no_room_for_a_command_says_busy(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        rig.full = True
        ear.publish("edged/kitchen/cmd/reload", "")
        answer = until(lambda: ear.on("result"), "an answer")[0].json()
        assert answer == {"ok": False, "error": "busy: too many commands are waiting"}


@pytest.mark.parametrize("qos", [0, 1])
def test_a_flood_of_commands_is_bounded(tmp_path: Path, qos: int) -> None:
    """While the MQTT thread is held up: else it is quick enough for any flood of a test, and this
    one once passed without the bound. With QoS 1 the broker keeps what is not acknowledged yet."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(40)

    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        rig.publisher.call(hold)
        assert held.wait(10)
        try:
            for n in range(3000):
                ear.client.publish(
                    "edged/kitchen/cmd/flush", f"{n:<4000}" if qos == 0 else str(n), qos
                )
            if qos == 0:
                until(lambda: rig.publisher.stats().dropped.get("commands", 0) > 1900, "dropped")
        finally:
            go_on.set()
        ear.publish("edged/kitchen/cmd/reload", "")
        rig.publish_words(0, 5)
        until(lambda: rig.commands and rig.commands[-1].name == "reload", "commands are heard")
        dropped = rig.publisher.stats().dropped.get("commands", 0)
        assert len(rig.commands) == 3001 - dropped
        assert bool(dropped) == (qos == 0)
        until(lambda: len(ear.on("text")) == 5, "the texts still come", 20)
        assert rig.publisher.stats().connected


def test_an_enormous_command_is_answered_and_not_kept(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        ear.publish("edged/kitchen/cmd/config", b"{" + b" " * 60_000 + b"}")
        answer = until(lambda: ear.on("result"), "an answer")[0].json()
        assert answer["error"] == "cmd/config must be at most 8192 bytes"
        ear.publish("edged/kitchen/cmd/config", b"{" + b" " * 1_000_000 + b"}")
        ear.publish("edged/kitchen/cmd/reload", b"")
        until(lambda: len(ear.on("result")) == 2, "the broker kept the giant from us")
