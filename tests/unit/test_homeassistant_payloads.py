"""Home Assistant finds the device by itself, and gets what it can hold.

The rules that the payload is held against are Home Assistant's own, written down from
components/mqtt (schemas.py, discovery.py, abbreviations, one schema per platform) of 2025.4; the
payload was also put through those very schemas once, on Python 3.13.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.settings import Settings
from edged.errors import ConfigError
from edged.events import Turn, to_json
from edged.mqtt.homeassistant import (
    EVENT_TYPES,
    HomeAssistantSettings,
    clip,
    discovery,
    discovery_topic,
    transcript,
)
from edged.mqtt.topics import Topics

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
    assert discovery_topic("ha", "kitchen-1") == "ha/device/kitchen-1/config"
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
