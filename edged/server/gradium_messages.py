"""What a client may say: one JSON object per message, checked here and nowhere else."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from edged.errors import RequestError

Id: TypeAlias = int | str
MAX_ID = 256  # characters of an id that is echoed
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Setup:
    """Begins a request. `json_config` is checked where the options are made."""

    client_req_id: Id | None = None
    model_name: str = "default"
    input_format: str = "wav"
    json_config: Mapping[str, Any] | str | None = None
    close_ws_on_eos: bool = True
    retry_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Audio:
    data: bytes
    client_req_id: Id | None = None


@dataclass(frozen=True, slots=True)
class Flush:
    flush_id: Id
    client_req_id: Id | None = None


@dataclass(frozen=True, slots=True)
class End:
    client_req_id: Id | None = None


Message: TypeAlias = Setup | Audio | Flush | End


class MessageError(RequestError):
    """`client_req_id`: of the request that the message was meant for, if that could be read."""

    def __init__(self, sentence: str, client_req_id: Id | None = None) -> None:
        super().__init__(sentence)
        self.client_req_id = client_req_id


def parse(text: str) -> Message:
    """Raises MessageError: one sentence on what is wrong and what is allowed."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("a message must be one JSON object; this is not valid JSON") from None
    if not isinstance(message, dict):
        raise MessageError("a message must be a JSON object")
    client_req_id = _id(message, "client_req_id")
    try:
        return _parsed(message, client_req_id)
    except MessageError:
        raise
    except RequestError as problem:
        raise MessageError(str(problem), client_req_id) from None


def _parsed(message: dict[str, Any], client_req_id: Id | None) -> Message:
    match message.get("type"):
        case "audio":
            return Audio(_audio(message.get("audio")), client_req_id)
        case "flush":
            flush_id = _id(message, "flush_id")
            if flush_id is None:
                raise RequestError("flush needs a flush_id: a whole number or a string")
            return Flush(flush_id, client_req_id)
        case "end_of_stream":
            return End(client_req_id)
        case "setup":
            return _setup(message, client_req_id)
        case kind:
            raise RequestError(
                f"type must be setup, audio, flush or end_of_stream, not {kind!r:.60}"
            )


def _setup(message: dict[str, Any], client_req_id: Id | None) -> Setup:
    config = message.get("json_config")
    if config is not None and not isinstance(config, dict | str):
        raise RequestError("json_config must be a JSON object or a string holding one")
    return Setup(
        client_req_id,
        _string(message, "model_name", "default"),
        _string(message, "input_format", "wav"),
        config,
        _flag(message, "close_ws_on_eos", True),
        _seconds(message, "retry_for_s"),
    )


def _audio(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise RequestError("audio must be a string of base64")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("audio is not valid base64") from None


def _id(message: dict[str, Any], key: str) -> Id | None:
    """An id is echoed exactly as it came, so it must be something that can be."""
    value = message.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return value
    if isinstance(value, str) and len(value) <= MAX_ID and _is_text(value):
        return value
    raise MessageError(f"{key} must be a whole number or a string of up to {MAX_ID} characters")


def _is_text(value: str) -> bool:
    """False for half of a surrogate pair, which JSON can say and UTF-8 cannot."""
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
