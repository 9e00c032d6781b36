"""Announces the device to Home Assistant, within Home Assistant's limits.

One retained discovery message names every entity. The rules (255-character states, 16 KiB of
attributes, the birth message) are Home Assistant's: components/mqtt/{schemas,event,discovery}.py.

The entities read these topics, so that the daemon must publish them in these forms:

| state | payload |
|---|---|
| `speaking`, `mute` | `on` or `off` |
| `mic` | `{"ok": bool, "state": "running" or "opening" or "lost" or "muted", "message": str}` |
| `transcript` | made here from each turn |
| `settings` | the live settings: delay_in_frames, language, temp, vad_threshold, ... |
| `health` | level_dbfs, rtf, lag_s, cpu_temp, rss_mb, xruns, rejected, outbox_depth, or null |

No entity reads `step` or partial text: 12.5 states a second would fill Home Assistant's recorder.
The event entity reads the topic `event`, which carries live messages only: an order that waited
on disk for ten minutes must not switch anything when the broker is back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edged.errors import ConfigError
from edged.events import JsonObject, Turn, to_json
from edged.mqtt.topics import DISCOVERY_PREFIX, Topics, check_base
from edged.options import DELAYS

EVENT_TYPES = ("turn", "text", "end_text", "flushed", "error")
MAX_STATE = 255  # UTF-16 units: a longer state becomes `unknown` and the text is lost
MAX_ATTRIBUTES = 12 * 1024  # bytes; the recorder stores {} above 16 384
_EXPIRE_AFTER_S = 180
_ATTRIBUTES = (
    "text",
    "language",
    "start_s",
    "stop_s",
    "session",
    "seq",
    "confidence",
    "latency_ms",
)
# name: key of cmd/config and state/settings, shown name, least, most, step, unit
_NUMBERS = (
    ("temperature", "temp", "Temperature", 0, 1, 0.05, None),
    ("vad_threshold", "vad_threshold", "Voice threshold", 0.05, 0.95, 0.05, None),
    ("turn_silence_ms", "turn_silence_ms", "Turn silence", 100, 5000, 50, "ms"),
    ("gain_db", "gain_db", "Gain", -20, 40, 0.5, "dB"),
)
# id, shown name, unit, device class, state class
_SENSORS = (
    ("level_dbfs", "Level", "dBFS", None, "measurement"),
    ("rtf", "Real-time factor", None, None, "measurement"),
    ("lag_s", "Lag", "s", "duration", "measurement"),
    ("cpu_temp", "Processor temperature", "°C", "temperature", "measurement"),
    ("rss_mb", "Memory", "MB", "data_size", "measurement"),
    ("xruns", "Overruns", None, None, "total_increasing"),
    ("rejected", "Rejected texts", None, None, "total_increasing"),
    ("outbox_depth", "Messages waiting", None, None, "measurement"),
)


@dataclass(frozen=True, slots=True)
class HomeAssistantSettings:
    """What the device tells Home Assistant of itself.

    Attributes:
        enabled: False removes the device.
        prefix: Home Assistant's discovery prefix.
        name: the device's name there; None for "edged " and EDGED_DEVICE.
        version, model: shown on the device's page.
        languages: what the select entity offers.

    Raises ConfigError for a prefix that cannot be part of a topic, and for no language.
    """

    enabled: bool = True
    prefix: str = DISCOVERY_PREFIX
    name: str | None = None
    version: str = "0"
    model: str | None = None
    languages: tuple[str, ...] = ("en",)

    def __post_init__(self) -> None:
        check_base(self.prefix, "EDGED_HOMEASSISTANT_PREFIX")
        if not self.languages:
            raise ConfigError("a model must support at least one language")

    @property
    def birth_topic(self) -> str:
        """Where Home Assistant publishes `online` when it starts."""
        return f"{self.prefix}/status"


def discovery_topic(prefix: str, device: str) -> str:
    """Returns the topic of the discovery message; every device name is a valid id there."""
    return f"{prefix}/device/{device}/config"


def discovery(topics: Topics, settings: HomeAssistantSettings) -> JsonObject:
    """Returns the retained payload that describes the device and all of its entities."""
    device = topics.device
    shown = settings.name or f"edged {device}"
    about = {
        "identifiers": [f"edged-{device}"],
        "name": shown,
        "manufacturer": "edged",
        "model": settings.model or "edged",
        "sw_version": settings.version,
    }
    components = _components(topics, settings)
    for name, component in components.items():
        component["unique_id"] = f"edged_{device}_{name}"
    return {
        "device": about,
        "origin": {"name": "edged", "sw_version": settings.version},
        "availability": [{"topic": topics("availability")}],
        "qos": 1,
        "components": components,
    }


def _components(topics: Topics, settings: HomeAssistantSettings) -> dict[str, JsonObject]:
    with_microphone: JsonObject = {
        "availability_mode": "all",
        "availability": [
            {"topic": topics("availability")},
            {
                "topic": topics("state/mic"),
                "value_template": "{{ 'online' if value_json.ok else 'offline' }}",
            },
        ],
    }
    found: dict[str, JsonObject] = {
        "speech": {
            "platform": "event",
            "name": None,
            "icon": "mdi:account-voice",
            "event_types": list(EVENT_TYPES),
            "state_topic": topics("event"),
            "value_template": "{{ dict(value_json, event_type=value_json.type) | tojson }}",
        },
        "transcript": {
            "platform": "sensor",
            "name": "Transcript",
            "icon": "mdi:text",
            "state_topic": topics("state/transcript"),
            "value_template": "{{ value_json.short }}",
            "json_attributes_topic": topics("state/transcript"),
            "json_attributes_template": _picked(_ATTRIBUTES),
        },
        "speaking": {
            "platform": "binary_sensor",
            "name": "Speaking",
            "device_class": "sound",
            "state_topic": topics("state/speaking"),
            "payload_on": "on",
            "payload_off": "off",
            **with_microphone,
        },
        "mic": {
            "platform": "binary_sensor",
            "name": "Microphone",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": topics("state/mic"),
            "value_template": "{{ 'OFF' if value_json.ok else 'ON' }}",
            "json_attributes_topic": topics("state/mic"),
        },
        "mute": {
            "platform": "switch",
            "name": "Mute",
            "icon": "mdi:microphone-off",
            "state_topic": topics("state/mute"),
            "command_topic": topics("cmd/mute"),
            "payload_on": "on",
            "payload_off": "off",
        },
        "flush": {
            "platform": "button",
            "name": "Flush",
            "icon": "mdi:format-text-wrapping-clip",
            "command_topic": topics("cmd/flush"),
            "payload_press": '{"flush_id":"ha"}',
        },
        "delay_in_frames": {
            "platform": "select",
            "name": "Delay in frames",
            "options": [str(d) for d in DELAYS],
            **_setting(topics, "delay_in_frames", "{{ value | int }}"),
        },
        "language": {
            "platform": "select",
            "name": "Language",
            "options": list(settings.languages),
            **_setting(topics, "language", "{{ value | tojson }}"),
        },
        "restart": {
            "platform": "button",
            "name": "Restart recogniser",
            "device_class": "restart",
            "entity_category": "config",
            "enabled_by_default": False,
            "command_topic": topics("cmd/restart"),
        },
    }
    found |= {number[0]: _number(topics, *number[1:]) for number in _NUMBERS}
    found |= {sensor[0]: _health(topics, *sensor) for sensor in _SENSORS}
    found["level_dbfs"] |= {"enabled_by_default": False, **with_microphone}
    return found


def _picked(keys: tuple[str, ...]) -> str:
    pairs = ", ".join(f"{k}=value_json.{k}" for k in keys)
    return f"{{{{ dict({pairs}) | tojson }}}}"


def _setting(topics: Topics, key: str, value: str) -> JsonObject:
    """An entity that changes one live setting, which comes back as `state/settings`."""
    return {
        "entity_category": "config",
        "state_topic": topics("state/settings"),
        "value_template": f"{{{{ value_json.{key} }}}}",
        "command_topic": topics("cmd/config"),
        "command_template": f'{{"{key}": {value} }}',
    }


def _number(
    topics: Topics, key: str, name: str, low: float, high: float, step: float, unit: str | None
) -> JsonObject:
    number: JsonObject = {
        "platform": "number",
        "name": name,
        "mode": "box",
        "min": low,
        "max": high,
        "step": step,
        **_setting(topics, key, "{{ value }}"),
    }
    return number | ({"unit_of_measurement": unit} if unit else {})


def _health(
    topics: Topics,
    key: str,
    name: str,
    unit: str | None,
    device_class: str | None,
    state_class: str,
) -> JsonObject:
    sensor: dict[str, Any] = {
        "platform": "sensor",
        "name": name,
        "entity_category": "diagnostic",
        "state_topic": topics("state/health"),
        "value_template": f"{{{{ value_json.{key} | default(none) }}}}",
        "state_class": state_class,
        "expire_after": _EXPIRE_AFTER_S,
        "unit_of_measurement": unit,
        "device_class": device_class,
    }
    return {k: v for k, v in sensor.items() if v is not None}


def clip(text: str, limit: int = MAX_STATE) -> str:
    """Returns `text` with at most `limit` UTF-16 units; a longer one ends with an ellipsis."""
    if _units(text) <= limit:
        return text
    left, end = limit - 3, 0
    for end, character in enumerate(text):  # noqa: B007  (`end` is where the cut falls)
        left -= _units(character)
        if left < 0:
            break
    return f"{text[:end]}…"


def _units(text: str) -> int:
    return len(text) + sum(c > "\uffff" for c in text)


def transcript(turn: Turn, session: str, seq: int, ts: str, latency_ms: float | None) -> JsonObject:
    """Returns `state/transcript` of a turn: `short` fits a state, all of it fits attributes."""
    made: JsonObject = {
        "short": clip(turn.text),
        "text": turn.text,
        "language": turn.language,
        "start_s": round(turn.start_s, 3),
        "stop_s": round(turn.stop_s, 3),
        "session": session,
        "seq": seq,
        "confidence": None if turn.confidence is None else round(turn.confidence, 3),
        "latency_ms": None if latency_ms is None else round(latency_ms),
        "ts": ts,
    }
    while (over := len(to_json(made).encode()) - MAX_ATTRIBUTES) > 0:
        # A character is at most 6 bytes of JSON.
        made["text"] = made["text"][: -max(1, over // 6) - 1] + "…"
    return made
