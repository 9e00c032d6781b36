"""Home Assistant over a broker: it finds the device, and hears what is live."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edged.events import Step, Text, Turn
from edged.mqtt.homeassistant import (
    HomeAssistantSettings,
)
from edged.mqtt.topics import Topics
from tests.support.mosquitto import Mosquitto, ReceivedMessage, Subscriber, until
from tests.support.mqtt_publisher import Rig

pytestmark = pytest.mark.broker

TOPICS = Topics("edged", "kitchen")
COMMON = {
    "platform", "unique_id", "name", "icon", "device_class", "entity_category",
    "enabled_by_default", "availability", "availability_mode", "json_attributes_topic",
    "json_attributes_template",
}  # fmt: skip
STATE = {"state_topic", "value_template"}
COMMAND = {"command_topic", "command_template"}
# What each platform needs, and what it knows beyond COMMON.
PLATFORMS: dict[str, tuple[set[str], set[str]]] = {
    "event": ({"state_topic", "event_types"}, STATE | {"event_types"}),
    "sensor": (
        {"state_topic"},
        STATE | {"unit_of_measurement", "state_class", "expire_after"},
    ),
    "binary_sensor": ({"state_topic"}, STATE | {"payload_on", "payload_off"}),
    "switch": ({"command_topic"}, STATE | COMMAND | {"payload_on", "payload_off"}),
    "button": ({"command_topic"}, COMMAND | {"payload_press"}),
    "select": ({"command_topic", "options"}, STATE | COMMAND | {"options"}),
    "number": (
        {"command_topic"},
        STATE | COMMAND | {"min", "max", "step", "mode", "unit_of_measurement"},
    ),
}
CATEGORIES = {
    "speech": None, "transcript": None, "speaking": None, "mute": None, "flush": None,
    "mic": "diagnostic", "delay_in_frames": "config", "language": "config",
    "temperature": "config", "vad_threshold": "config", "turn_silence_ms": "config",
    "gain_db": "config", "restart": "config", "level_dbfs": "diagnostic", "rtf": "diagnostic",
    "lag_s": "diagnostic", "cpu_temp": "diagnostic", "rss_mb": "diagnostic",
    "xruns": "diagnostic", "rejected": "diagnostic", "outbox_depth": "diagnostic",
}  # fmt: skip


def found_on(ear: Subscriber, topic: str) -> list[ReceivedMessage]:
    return [h for h in list(ear.heard) if h.topic == topic]


CONFIG = "homeassistant/device/kitchen/config"


def test_the_device_is_announced_and_the_last_turn_is_kept(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.publisher.homeassistant(HomeAssistantSettings())
        rig.connected()
        rig.publisher.event(Turn("turn on the light " * 30, 1, 3), latency_ms=210)
        last = until(lambda: ear.on("state/transcript"), "the transcript")[0].json()
        assert len(last["short"]) == 253
        assert last["text"] == "turn on the light " * 30
        assert last["seq"] == 1
        assert last["session"] == rig.publisher.session
        assert found_on(ear, CONFIG)[0].json()["components"]["speech"]
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as late:
        until(lambda: found_on(late, CONFIG) and late.on("state/transcript"), "kept")
        assert found_on(late, CONFIG)[0].retained


def test_its_birth_brings_everything_again(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.publisher.homeassistant(HomeAssistantSettings())
        rig.publisher.state("mute", "off")
        rig.connected()
        until(lambda: ear.on("state/mute") and found_on(ear, CONFIG), "the first time")
        ear.heard.clear()
        ear.publish("homeassistant/status", "offline")
        time.sleep(0.2)
        assert not ear.on("state/mute")
        ear.publish("homeassistant/status", "online")
        until(lambda: ear.on("state/mute") and ear.on("availability"), "the states again")
        names = [h.topic for h in ear.heard if h.topic != "homeassistant/status"]
        assert names[0] == CONFIG, "discovery comes before the states"


def test_a_retained_birth_does_not_count(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        ear.publish("homeassistant/status", "online", retain=True)
        with Rig(tmp_path, broker.port) as rig:
            rig.publisher.homeassistant(HomeAssistantSettings())
            rig.connected()
            until(lambda: found_on(ear, CONFIG), "announced")
            time.sleep(0.3)
            assert len(found_on(ear, CONFIG)) == 1


def test_switched_off_live_the_device_is_removed_and_on_again_it_is_back(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.publisher.homeassistant(HomeAssistantSettings())
        rig.connected()
        until(lambda: found_on(ear, CONFIG), "announced")
        rig.publisher.homeassistant(HomeAssistantSettings(enabled=False))
        until(lambda: found_on(ear, CONFIG)[-1].payload == b"", "removed")
        rig.publisher.homeassistant(HomeAssistantSettings(prefix="ha2"))
        until(lambda: found_on(ear, "ha2/device/kitchen/config"), "announced elsewhere")
        rig.publisher.homeassistant(HomeAssistantSettings(prefix="ha3"))
        until(lambda: found_on(ear, "ha3/device/kitchen/config"), "and elsewhere again")
        until(lambda: found_on(ear, "ha2/device/kitchen/config")[-1].payload == b"", "moved")
        assert {h.payload for h in ear.on("availability")} == {b"online"}, "nobody saw it go"


def test_the_event_entity_hears_live_messages_and_none_that_waited(tmp_path: Path) -> None:
    """An order of ten minutes ago must not switch anything when the broker comes back.

    What the broker had not seen acknowledged when it stopped may come twice: this test once took
    that for a lost message.
    """
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.publisher.homeassistant(HomeAssistantSettings())
        rig.connected()
        rig.publisher.event(Step(0))
        rig.publisher.event(Text("live", 0))
        rig.publisher.event(Turn("live", 0, 1))
        until(lambda: len(ear.on("event")) == 2, "both")
        assert [h.json()["type"] for h in ear.on("event")] == ["text", "turn"]
        assert ear.on("event")[1].payload == ear.on("turn")[0].payload
        rig.drained()
        broker.stop()
        until(lambda: not rig.publisher.stats().connected, "gone")
        rig.publisher.event(Turn("late", 0, 1))
        broker.start()
        until(lambda: ear.on("turn")[-1].json()["text"] == "late", "the turn")
        rig.drained()
        assert {h.json()["text"] for h in ear.on("event")} == {"live"}


def test_without_home_assistant_there_are_no_copies(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.publisher.homeassistant(HomeAssistantSettings(enabled=False))
        rig.connected()
        rig.publish_words(0, 5)
        until(lambda: len(ear.events()) == 10, "the words")
        rig.drained()
        assert not ear.on("event")
