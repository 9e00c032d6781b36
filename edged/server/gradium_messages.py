"""The messages of Gradium's clients: one JSON object each, parsed and checked."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from edged.errors import RequestError
from edged.languages import AUTO
from edged.models.catalogue import Entry
from edged.options import Options, from_json_config
from edged.server import json_limits

Id: TypeAlias = int | str
DEFAULT_MODEL = "default"
MAX_ID = 256  # characters of an id that is sent back
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class SetupMessage:
    """Begins a request. `model_of` and `session_options` check `model_name` and `json_config`."""

    client_req_id: Id | None = None
    model_name: str = DEFAULT_MODEL
    input_format: str = "wav"
    json_config: Mapping[str, Any] | str | None = None
    close_ws_on_eos: bool = True
    retry_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AudioMessage:
    """Audio in the input format of the request, in pieces of any size."""

    data: bytes
    client_req_id: Id | None = None


@dataclass(frozen=True, slots=True)
class FlushMessage:
    """Asks for all words of the audio so far, and then `flushed` with the same id."""

    flush_id: Id
    client_req_id: Id | None = None


@dataclass(frozen=True, slots=True)
class EndMessage:
    """No more audio follows in this request."""

    client_req_id: Id | None = None


Message: TypeAlias = SetupMessage | AudioMessage | FlushMessage | EndMessage


class MessageError(RequestError):
    """A message that is wrong. `client_req_id` is its request, as far as that could be read."""

    def __init__(self, message: str, client_req_id: Id | None = None) -> None:
        super().__init__(message)
        self.client_req_id = client_req_id


def parse(text: str) -> Message:
    """Parses one message. Raises MessageError, which names what is wrong and what is allowed."""
    try:
        message = json_limits.loads(text)
    except ValueError:
        raise MessageError(
            "a message must be one JSON object; this is not valid JSON, or has too many values"
        ) from None
    if not isinstance(message, dict):
        raise MessageError("a message must be a JSON object")
    client_req_id = _id(message, "client_req_id")
    try:
        return _parsed(message, client_req_id)
    except MessageError:
        raise
    except RequestError as problem:
        raise MessageError(str(problem), client_req_id) from None


def model_of(setup: SetupMessage, installed: Callable[[], Sequence[Entry]]) -> str:
    """The model that a setup asks for: a name, or AUTO for that of the settings.

    `installed` is called only if it asks for one. Raises RequestError that names what is allowed.
    """
    if setup.model_name == DEFAULT_MODEL:
        return AUTO
    names = [entry.name for entry in installed()]
    if setup.model_name not in names:
        known = " or ".join((DEFAULT_MODEL, *names))
        raise RequestError(f"model_name must be {known}, not {setup.model_name!r:.60}")
    return setup.model_name


def session_options(setup: SetupMessage, base: Options) -> Options:
    """The options that a setup asks for; `base` gives the rest. Raises RequestError that names what
    is allowed."""
    if isinstance(setup.json_config, str):
        try:
            json_limits.check_config(setup.json_config)
        except ValueError as problem:
            raise RequestError(f"json_config is too large: {problem}") from None
    return from_json_config(setup.json_config, base)


def _parsed(message: dict[str, Any], client_req_id: Id | None) -> Message:
    match message.get("type"):
        case "audio":
            return AudioMessage(_audio(message.get("audio")), client_req_id)
        case "flush":
            flush_id = _id(message, "flush_id")
            if flush_id is None:
                raise RequestError("flush needs a flush_id: a whole number or a string")
            return FlushMessage(flush_id, client_req_id)
        case "end_of_stream":
            return EndMessage(client_req_id)
        case "setup":
            return _setup(message, client_req_id)
        case kind:
            raise RequestError(
                f"type must be setup, audio, flush or end_of_stream, not {kind!r:.60}"
            )


def _setup(message: dict[str, Any], client_req_id: Id | None) -> SetupMessage:
    config = message.get("json_config")
    if config is not None and not isinstance(config, dict | str):
        raise RequestError("json_config must be a JSON object or a string holding one")
    return SetupMessage(
        client_req_id,
        _string(message, "model_name", DEFAULT_MODEL),
        _string(message, "input_format", "wav"),
        config,
        _flag(message, "close_ws_on_eos", True),
        _seconds(message, "retry_for_s"),
    )


def _audio(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise RequestError("audio must be a string of base64")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise RequestError("audio is not valid base64") from None


def _id(message: dict[str, Any], key: str) -> Id | None:
    """An id is sent back exactly as it came, so it must be something that can be encoded."""
    value = message.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return value
    if isinstance(value, str) and len(value) <= MAX_ID and _is_text(value):
        return value
    raise MessageError(f"{key} must be a whole number or a string of up to {MAX_ID} characters")


def _is_text(value: str) -> bool:
    """False for half of a surrogate pair, which JSON can express and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _string(message: dict[str, Any], key: str, default: str) -> str:
    value = message.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise RequestError(f"{key} must be a string, not {value!r:.60}")
    return value


def _flag(message: dict[str, Any], key: str, default: bool) -> bool:
    value = message.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise RequestError(f"{key} must be true or false, not {value!r:.60}")
    return value


def _seconds(message: dict[str, Any], key: str) -> float:
    value = message.get(key)
    if value is None:
        return 0.0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _LARGEST:  # NaN is in no range
        raise RequestError(f"{key} must be a number of seconds, 0 or more, not {value!r:.60}")
    return float(min(value, 3600))
