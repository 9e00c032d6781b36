"""Brokers that take less than others: small packets, no retained messages, no QoS 1."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edged.events import Step, Text, Turn, Word
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.homeassistant import HomeAssistantSettings
from tests.support.mosquitto import Mosquitto, Subscriber, until
from tests.support.mqtt_publisher import FAST, Rig, words

pytestmark = pytest.mark.broker

LONG = Turn("a", 0, 1, tuple(Word("word", 0, 1) for _ in range(200)))
"""Its message has some 10 kB."""


def too_large(rig: Rig) -> int:
    return rig.publisher.stats().dropped.get("too_large", 0)


def reaches(rig: Rig, count: int) -> bool:
    return too_large(rig) >= count


def connections(rig: Rig) -> int:
    return len([s for s in rig.states if s.connected and s.status is ConnectionStatus.CONNECTED])


def test_with_the_smallest_packets_the_errors_about_dropped_messages_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An `error` about a dropped message was too large itself, and so was the error about that
    one: 7747 log lines in 18 s."""
    with (
        Mosquitto(tmp_path, options="max_packet_size 300") as broker,
        Subscriber(broker.port) as ear,
    ):
        with Rig(tmp_path, broker.port) as rig:
            rig.publisher.homeassistant(HomeAssistantSettings())
            rig.publisher.info({"model": "x" * 400})
            rig.connected()
            rig.publisher.event(LONG)
            rig.publisher.event(LONG)
            for _ in range(3):  # each of them is dropped, and so is the error about it
                expected = too_large(rig) + 2
                rig.publisher.event(LONG)
                until(partial(reaches, rig, expected), "both are dropped")
            until(lambda: rig.publisher.stats().depth == 0, "all is sent or dropped")
            dropped = rig.publisher.stats().dropped["too_large"]
            time.sleep(1)
            assert rig.publisher.stats().dropped["too_large"] <= dropped + 1, "it is quiet"
            assert len(rig.states) == 1, "never disconnected"
        assert len(caplog.records) < 30
        assert ear.on("availability")[0].payload == b"online"


def test_steps_keep_to_the_size_that_the_broker_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A step went past the check, the broker closed the connection, and the log blamed another
    device of that name."""
    with (
        Mosquitto(tmp_path, options="max_packet_size 300") as broker,
        Subscriber(broker.port) as ear,
    ):
        with Rig(tmp_path, broker.port) as rig:
            rig.connected()
            for n in range(50):
                rig.publisher.event(Step(n))
            rig.publisher.event(Text("after", 0))
            until(lambda: words(ear.events()) == ["after"], "the text")
            assert rig.publisher.stats().dropped["too_large"] in (50, 51), "and the error about it"
            assert len(rig.states) == 1, "never disconnected"
            assert [r for r in caplog.text.splitlines() if "EDGED_DEVICE" in r] == []
        assert caplog.text.count("edged/kitchen/step was dropped") == 1, "logged once"


def test_steps_that_an_old_broker_cannot_refuse_are_given_up(tmp_path: Path) -> None:
    """MQTT 3.1.1 cannot name a size: each step ended the connection, which looked like another
    device of that name."""
    with (
        Mosquitto(tmp_path, options="max_packet_size 320") as broker,
        Subscriber(broker.port) as ear,
    ):
        with Rig(tmp_path, broker.port, protocol=4) as rig:
            rig.connected()
            step = 0
            while not ear.on("error"):
                rig.publisher.event(Step(step))
                step += 1
                time.sleep(0.08)
                assert step < 200
            rig.publisher.event(Text("after", 0))
            until(lambda: "after" in words(ear.events()), "the texts go on")
            assert ConnectionStatus.DUPLICATE not in {s.status for s in rig.states}
    assert "steps are not published any more" in ear.on("error")[0].json()["message"]


@pytest.mark.parametrize("limit", [4096, 500])
def test_a_refused_size_costs_one_message_and_no_connection(
    tmp_path: Path, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Mosquitto answers PUBACK 0x95, which paho takes for a malformed packet: with a limit of
    4096 five reconnections and 34 s until the first word, with 500 more than 75 s."""
    with Mosquitto(tmp_path, options=f"message_size_limit {limit}") as broker:
        with (
            Subscriber(broker.port) as ear,
            Rig(tmp_path, broker.port, timing=replace(FAST)) as rig,
        ):
            rig.publisher.homeassistant(HomeAssistantSettings())
            rig.publisher.info({"model": "x" * 5000})
            rig.connected()
            rig.publisher.event(LONG)
            rig.publish_words(0, 3)
            until(lambda: words(ear.events()) == ["word0", "word1", "word2"], "the texts", 10)
            until(lambda: ear.on("error"), "errors say so")
            rig.drained()
            assert connections(rig) == 1, rig.states
            assert {s.status for s in rig.states} == {ConnectionStatus.CONNECTED}
            assert rig.publisher.stats().dropped["too_large"] >= 3
    told = " ".join(h.json()["message"] for h in ear.on("error"))
    for topic in ("edged/kitchen/turn", "edged/kitchen/info", "homeassistant/device/kitchen"):
        assert re.search(f"bytes for {topic}[a-z/]* was dropped: it is too large", told)


@pytest.mark.parametrize("protocol", [5, 4])
def test_a_broker_without_retained_messages_is_used_without(
    tmp_path: Path, protocol: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It refused the Will, which is retained, and the daemon never connected."""
    with (
        Mosquitto(tmp_path, options="retain_available false") as broker,
        Subscriber(broker.port) as ear,
    ):
        with Rig(tmp_path, broker.port, protocol=protocol) as rig:
            rig.publisher.homeassistant(HomeAssistantSettings())
            rig.publisher.state("mute", "off")
            rig.connected()
            assert "without retained messages" in rig.was(ConnectionStatus.CONNECTED).message
            rig.publish_words(0, 3)
            rig.drained()
            until(lambda: ear.on("state/mute") and ear.on("text"), "states and texts")
            assert connections(rig) == 1
            broker.stop()
            rig.was(ConnectionStatus.NETWORK)
            broker.start()
            until(lambda: connections(rig) == 2, "connected again")
        assert ear.on("availability")[-1].payload == b"offline"
    assert caplog.text.count("keeps no retained messages") == 1


def test_a_broker_without_qos_1_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, listener_options="max_qos 0") as broker,
        Rig(tmp_path, broker.port) as rig,
    ):
        assert "allow QoS 1" in rig.was(ConnectionStatus.PROTOCOL).message
        assert connections(rig) == 0


def at(broker: Mosquitto) -> BrokerSettings:
    return BrokerSettings(BrokerAddress("127.0.0.1", broker.port), device="kitchen")


def test_the_doctor_finds_what_the_daemon_will_meet(tmp_path: Path) -> None:
    """It set no Will, retained nothing and sent five bytes: for a broker that the daemon could not
    use it said ok."""
    from edged.doctor.broker_check import check_broker, visit

    for options, says in (
        ("retain_available false", "keeps no retained messages"),
        ("message_size_limit 1000", "refuses messages of 4096 bytes"),
        ("max_packet_size 1000", "refuses messages of 4096 bytes"),
    ):
        with Mosquitto(tmp_path / options, options=options) as broker:
            seen = check_broker(at(broker), visit(at(broker), ()))
            assert [f.level for f in seen] == ["ok", "warn"], seen
            assert says in seen[1].message
    with Mosquitto(tmp_path / "qos", listener_options="max_qos 0") as broker:
        (seen_qos,) = check_broker(at(broker), visit(at(broker), ()))
        assert seen_qos.level == "fail"
        assert "QoS 1" in seen_qos.message


def test_the_doctor_leaves_nothing_at_the_broker(tmp_path: Path) -> None:
    from edged.doctor.broker_check import visit

    with Mosquitto(tmp_path) as broker:
        assert visit(at(broker), ()).round_trip_s is not None
        with Subscriber(broker.port) as late:
            time.sleep(0.3)
            assert late.heard == []


def test_a_huge_message_is_not_held_in_memory(tmp_path: Path) -> None:
    """An MQTT 3.1.1 broker cannot be told a limit: one message of 200 MB to `cmd/flush` made
    642 MB resident, for good."""
    huge = 60 * 1024 * 1024
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, ("edged/kitchen/#",)) as ear:
        with Rig(tmp_path, broker.port, protocol=4) as rig:
            rig.connected()
            rig.publish_words(0, 5)
            rig.drained()
            before = resident_mb()
            payload = bytearray(huge)
            ear.client.publish("edged/kitchen/cmd/flush", payload, 1)
            del payload
            ear.client.publish("edged/kitchen/cmd/reload", b"", 1)
            answers = until(lambda: len(ear.on("result")) == 2 and ear.on("result"), "answers", 60)
            assert answers[0].json()["error"] == "cmd/flush must be at most 8192 bytes"
            assert answers[1].json() == {"ok": True}
            rig.publish_words(5, 6)
            until(lambda: words(ear.events())[-1] == "word5", "the texts go on")
            assert connections(rig) == 1, "the connection stays"
            assert resident_mb() - before < huge / 1e6 * 2.5, "once to send it, once to hear it"


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000
