"""Parses the commands that come over MQTT, from bytes to a well-formed `Command`.

| command | payload |
|---|---|
| `flush` | `{"flush_id": 1}` or `"a"`, a bare id, or nothing (id 0); echoed as it came |
| `mute` | `true`, `false`, `on`, `off` (any case), or `{"mute": true}` |
| `config` | a JSON object of settings, which the daemon accepts or refuses as a whole |
| `keyterms` | `{"set": [...]}`, `{"add": [...]}` or `{"remove": [...]}`, or a bare list to set |
| `reload`, `restart` | nothing, `{}`, or what a Home Assistant button sends (`PRESS`) |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from edged.errors import RequestError
from edged.keyterm_list import MAX_TERMS

NAMES = ("flush", "mute", "config", "keyterms", "reload", "restart")
MAX_BYTES = 8 * 1024
MAX_KEYTERMS_BYTES = 32 * 1024  # 200 terms of 60 characters with spellings
MAX_FLUSH_ID = 256  # characters
MAX_KEYS = 64
KEYTERM_ACTIONS = ("set", "add", "remove")
_SWITCH = {"on": True, "true": True, "off": False, "false": False}
_EMPTY = ("", "{}", "press")


@dataclass(frozen=True, slots=True)
class Command:
    """One well-formed command.

    Attributes:
        name: one of NAMES.
        payload: the flush id (int or str), mute (bool), the settings (dict), for keyterms one
            action and its terms (dict), or None for reload and restart.
        response_topic, correlation: MQTT 5 properties, which go back unchanged with the answer.
    """

    name: str
    payload: Any = None
    response_topic: str | None = None
    correlation: bytes | None = None


def parse(
    name: str,
    raw: bytes,
    *,
    retained: bool = False,
    response_topic: str | None = None,
    correlation: bytes | None = None,
) -> Command:
    """Returns the command. Raises RequestError with one sentence that says what is allowed."""
    if name not in NAMES:
        raise RequestError(f"unknown command {name[:40]!r}: use one of {', '.join(NAMES)}")
    if retained:
        # It would come again at every connection: a retained restart is a boot loop.
        raise RequestError(f"retained commands are ignored: publish cmd/{name} without retain")
    limit = MAX_KEYTERMS_BYTES if name == "keyterms" else MAX_BYTES
    if len(raw) > limit:
        raise RequestError(f"cmd/{name} must be at most {limit} bytes")
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise RequestError(f"cmd/{name} must be UTF-8 text") from None
    payload = _PARSERS[name](text)
    return Command(name, payload, response_topic, correlation)


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_not_json, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as problem:
        why = "nested too deeply" if isinstance(problem, RecursionError) else problem
        raise RequestError(f"cmd/{name} is not valid JSON: {why}") from None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _flush(text: str) -> int | str:
    value = _json("flush", text) if text else 0
    if isinstance(value, dict):
        unknown = [k for k in value if k != "flush_id"]
        if unknown:
            raise RequestError(f"cmd/flush knows only the key flush_id, not {unknown[0][:40]!r}")
        value = value.get("flush_id", 0)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RequestError(f"flush_id must be an integer or a string, not {_short(value)}")
    if len(str(value) if isinstance(value, str) else f"{value:x}") > MAX_FLUSH_ID:
        raise RequestError(f"flush_id must be at most {MAX_FLUSH_ID} characters")
    if isinstance(value, str) and _lone_surrogate(value):
        raise RequestError("flush_id must be valid Unicode")
    return value


def _mute(text: str) -> bool:
    if text.lower() in _SWITCH:
        return _SWITCH[text.lower()]
    value = _json("mute", text)
    if isinstance(value, dict) and set(value) == {"mute"}:
        value = value["mute"]
    if isinstance(value, str) and value.lower() in _SWITCH:
        return _SWITCH[value.lower()]
    if not isinstance(value, bool):
        raise RequestError(f"cmd/mute must be true, false, on or off, not {_short(value)}")
    return value


def _config(text: str) -> dict[str, Any]:
    value = _json("config", text)
    if not isinstance(value, dict) or not value:
        raise RequestError(
            'cmd/config must be a JSON object of settings such as {"delay_in_frames": 12}'
        )
    if len(value) > MAX_KEYS:
        raise RequestError(f"cmd/config must have at most {MAX_KEYS} settings")
    for key, item in value.items():
        if not isinstance(item, str | int | float | bool | None):
            raise RequestError(
                f"{key[:40]} must be a string, a number, true, false or null, not {_short(item)}"
            )
        if _lone_surrogate(key) or (isinstance(item, str) and _lone_surrogate(item)):
            raise RequestError("cmd/config must be valid Unicode")
        if item == float("inf") or item == float("-inf"):
            raise RequestError(f"{key[:40]} is too large a number")
    return value


def _keyterms(text: str) -> dict[str, list[str]]:
    value = _json("keyterms", text)
    if isinstance(value, list):
        value = {"set": value}
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= set(KEYTERM_ACTIONS):
        raise RequestError(
            'cmd/keyterms must be a JSON object such as {"set": ["Home Assistant"]}, with one of'
            f" the keys {', '.join(KEYTERM_ACTIONS)}"
        )
    ((action, terms),) = value.items()
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise RequestError(f"{action} must be a list of strings, not {_short(terms)}")
    if len(terms) > MAX_TERMS:
        raise RequestError(f"cmd/keyterms must have at most {MAX_TERMS} terms, not {len(terms)}")
    if any(_lone_surrogate(term) for term in terms):
        raise RequestError("cmd/keyterms must be valid Unicode")
    return {action: terms}


def _no_payload(text: str) -> None:
    if text.lower() not in _EMPTY:
        raise RequestError(f"this command takes no payload, not {_short(text)}")


def _short(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _lone_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


_PARSERS = {
    "flush": _flush,
    "mute": _mute,
    "config": _config,
    "keyterms": _keyterms,
    "reload": _no_payload,
    "restart": _no_payload,
}
