"""Home Assistant finds the device by itself, and gets what it can hold.

The rules that the payload is held against are Home Assistant's own, written down from
components/mqtt (schemas.py, discovery.py, abbreviations, one schema per platform) of 2025.4; the
payload was also put through those very schemas once, on Python 3.13.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.settings import Settings
from edged.errors import ConfigError
from edged.events import Step, Text, Turn, to_json
from edged.mqtt.homeassistant import (
    EVENT_TYPES,
    HomeAssistantSettings,
    clip,
    discovery,
    discovery_topic,
    transcript,
)
from edged.mqtt.topics import Topics
from tests.support.mosquitto import Ear, Heard, Mosquitto, until
from tests.support.mqtt_publisher import Rig

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


@pytest.fixture
def payload() -> dict[str, Any]:
    found = discovery(TOPICS, HomeAssistantSettings(version="1.2", model="Raspberry Pi 4"))
    return dict(json.loads(to_json(found)))


def test_the_device_payload_keeps_to_home_assistants_rules(payload: dict[str, Any]) -> None:
    assert set(payload) == {"device", "origin", "availability", "qos", "components"}
    assert payload["device"]["identifiers"] == ["edged-kitchen"]
    assert payload["origin"]["name"]
    assert payload["availability"] == [{"topic": "edged/kitchen/availability"}]
    for component in payload["components"].values():
        needed, known = PLATFORMS[component["platform"]]
        assert needed <= set(component)
        assert set(component) <= COMMON | known, "an unknown key is refused by some platforms"
        for key, value in component.items():
            if key.endswith("_topic"):
                assert re.fullmatch(r"edged/kitchen/[a-z_/]+", value)


def test_the_entities_and_their_categories_are_those_agreed(payload: dict[str, Any]) -> None:
    found = {name: c.get("entity_category") for name, c in payload["components"].items()}
    assert found == CATEGORIES
    off = {n for n, c in payload["components"].items() if c.get("enabled_by_default") is False}
    assert off == {"level_dbfs", "restart"}


def test_names_and_ids_are_unique_and_do_not_repeat_the_device(payload: dict[str, Any]) -> None:
    components = payload["components"].values()
    assert len({c["unique_id"] for c in components}) == len(CATEGORIES)
    assert len({c["name"] for c in components}) == len(CATEGORIES)
    assert all(payload["device"]["name"] not in (c["name"] or "") for c in components)
    assert payload["components"]["speech"]["name"] is None, "it bears the device's name"
    assert not any("object_id" in c for c in components)


def test_steps_are_in_no_entity_and_no_subscription_catches_them(payload: dict[str, Any]) -> None:
    """12.5 state writes a second would fill the recorder: 45 000 rows an hour."""
    topics = set(re.findall(r'"edged/[^"]*"', json.dumps(payload)))
    assert not any("step" in t or "+" in t or "#" in t for t in topics)
    assert "step" not in EVENT_TYPES


def test_only_telemetry_expires(payload: dict[str, Any]) -> None:
    expires = {n for n, c in payload["components"].items() if "expire_after" in c}
    assert expires == {n for n, c in payload["components"].items() if n in HEALTH}
    assert "transcript" not in expires


HEALTH = ("level_dbfs", "rtf", "lag_s", "cpu_temp", "rss_mb", "xruns", "rejected", "outbox_depth")


def test_the_numbers_allow_what_the_settings_allow(payload: dict[str, Any]) -> None:
    keys = {"temperature": "temp", "vad_threshold": "vad_threshold", "gain_db": "gain_db",
            "turn_silence_ms": "turn_silence_ms"}  # fmt: skip
    for name, key in keys.items():
        bounds = {type(m).__name__: m for m in Settings.model_fields[key].metadata}
        component = payload["components"][name]
        assert component["min"] == bounds["Ge"].ge
        assert component["max"] == bounds["Le"].le
        assert f'{{"{key}": ' in component["command_template"]


def test_the_discovery_topic_has_an_id_that_home_assistant_takes() -> None:
    assert discovery_topic("ha", "box-1") == "ha/device/box-1/config"
    for bad in ("", "a/+", "#", "$x", "a//b"):
        with pytest.raises(ConfigError):
            HomeAssistantSettings(prefix=bad)


@given(st.text())
def test_a_state_never_exceeds_255_utf16_units_and_keeps_its_beginning(text: str) -> None:
    short = clip(text)
    assert units(short) <= 255
    if units(text) <= 255:
        assert short == text
    else:
        assert short.endswith("…")
        assert text.startswith(short[:-1])
        assert units(short) >= 252


def units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def test_a_text_is_cut_between_characters_never_inside_one() -> None:
    assert clip("😀" * 200) == "😀" * 126 + "…"
    assert clip("x" * 255) == "x" * 255
    assert clip("x" * 256) == "x" * 252 + "…"


@pytest.mark.parametrize("text", ["x" * 5000, "ü" * 20_000, "😀" * 20_000, '"' * 30_000])
def test_a_long_turn_is_whole_in_the_attributes_up_to_12_kib(text: str) -> None:
    """Home Assistant drops a state over 255 characters, and attributes over 16 KiB, entirely."""
    made = transcript(Turn(text, 0, 1, confidence=0.5), "s" * 32, 1, "now", 120.4)
    assert len(to_json(made).encode()) <= 12 * 1024
    if len(text) == 5000:
        assert made["text"] == text
    else:
        assert made["text"].endswith("…")
        assert len(to_json(made).encode()) > 1024 * 2
    assert made["latency_ms"] == 120


def found_on(ear: Ear, topic: str) -> list[Heard]:
    return [h for h in list(ear.heard) if h.topic == topic]


CONFIG = "homeassistant/device/kitchen/config"


def test_the_device_is_announced_and_the_last_turn_is_kept(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.publisher.homeassistant(HomeAssistantSettings())
        rig.connected()
        rig.publisher.event(Turn("turn on the light " * 30, 1, 3), latency_ms=210)
        last = until(lambda: ear.on("state/transcript"), "the transcript")[0].json()
        assert len(last["short"]) == 253
        assert last["text"] == "turn on the light " * 30
        assert last["seq"] == 1
        assert last["session"] == rig.publisher.session
        assert found_on(ear, CONFIG)[0].json()["components"]["speech"]
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as late:
        until(lambda: found_on(late, CONFIG) and late.on("state/transcript"), "kept")
        assert found_on(late, CONFIG)[0].retained


def test_its_birth_brings_everything_again(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.publisher.homeassistant(HomeAssistantSettings())
        rig.publisher.state("mute", "off")
        rig.connected()
        until(lambda: ear.on("state/mute") and found_on(ear, CONFIG), "the first time")
        ear.heard.clear()
        ear.say("homeassistant/status", "offline")
        time.sleep(0.2)
        assert not ear.on("state/mute")
        ear.say("homeassistant/status", "online")
        until(lambda: ear.on("state/mute") and ear.on("availability"), "the states again")
        names = [h.topic for h in ear.heard if h.topic != "homeassistant/status"]
        assert names[0] == CONFIG, "discovery comes before the states"


def test_a_retained_birth_does_not_count(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        ear.say("homeassistant/status", "online", retain=True)
        with Rig(tmp_path, broker.port) as rig:
            rig.publisher.homeassistant(HomeAssistantSettings())
            rig.connected()
            until(lambda: found_on(ear, CONFIG), "announced")
            time.sleep(0.3)
            assert len(found_on(ear, CONFIG)) == 1


def test_switched_off_live_the_device_is_removed_and_on_again_it_is_back(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
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
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
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
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.publisher.homeassistant(HomeAssistantSettings(enabled=False))
        rig.connected()
        rig.say(0, 5)
        until(lambda: len(ear.events()) == 10, "the words")
        rig.drained()
        assert not ear.on("event")
