"""The parser of Gradium's messages."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import RequestError
from edged.options import Options, from_json_config
from edged.server.gradium_messages import (
    AudioMessage,
    EndMessage,
    FlushMessage,
    MessageError,
    SetupMessage,
    parse,
)
from tests.support.api_fuzz import hostile_message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = ("type", "audio", "flush_id", "client_req_id", "json_config", "model_name", "input_format")


def test_an_empty_setup_has_the_defaults_of_the_contract() -> None:
    assert parse('{"type": "setup"}') == SetupMessage(None, "default", "wav", None, True, 0.0)


def test_a_setup_with_every_field() -> None:
    said = {
        "type": "setup",
        "model_name": "tiny-en",
        "input_format": "pcm_16000",
        "json_config": {"temp": 0.5},
        "client_req_id": "a",
        "close_ws_on_eos": False,
        "retry_for_s": 2,
    }
    assert parse(json.dumps(said)) == SetupMessage(
        "a", "tiny-en", "pcm_16000", {"temp": 0.5}, False, 2.0
    )


def test_audio_flush_and_end_are_parsed_and_unknown_keys_ignored() -> None:
    audio = {"type": "audio", "audio": base64.b64encode(b"abc").decode(), "x": 1}
    assert parse(json.dumps(audio)) == AudioMessage(b"abc")
    assert parse('{"type": "flush", "flush_id": 7}') == FlushMessage(7)
    assert parse('{"type": "flush", "flush_id": "7", "client_req_id": "r"}') == FlushMessage(
        "7", "r"
    )
    assert parse('{"type": "end_of_stream"}') == EndMessage()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "a JSON object"),
        ("{}", "type must be setup, audio, flush or end_of_stream, not None"),
        ('{"type": "text"}', "type must be"),
        ('{"type": "audio"}', "audio must be a string of base64"),
        ('{"type": "audio", "audio": "a"}', "not valid base64"),
        ('{"type": "audio", "audio": "é"}', "not valid base64"),
        ('{"type": "flush"}', "flush needs a flush_id"),
        ('{"type": "flush", "flush_id": true}', "flush_id must be a whole number or a string"),
        ('{"type": "flush", "flush_id": NaN}', "flush_id must be"),
        ('{"type": "flush", "flush_id": "\\ud800"}', "flush_id must be"),
        ('{"type": "flush", "flush_id": 1e400}', "flush_id must be"),
        ('{"type": "setup", "json_config": [1]}', "json_config must be a JSON object or a string"),
        ('{"type": "setup", "model_name": 1}', "model_name must be a string"),
        ('{"type": "setup", "close_ws_on_eos": 1}', "close_ws_on_eos must be true or false"),
        ('{"type": "setup", "retry_for_s": -1}', "retry_for_s must be a number of seconds"),
        ('{"type": "setup", "retry_for_s": NaN}', "retry_for_s must be a number of seconds"),
    ],
)
def test_an_error_names_what_is_wrong_in_one_line(text: str, words: str) -> None:
    with pytest.raises(MessageError, match=words.replace("(", r"\(")) as caught:
        parse(text)
    assert caught.value.code == 1008
    assert "\n" not in str(caught.value)


def test_an_error_carries_the_id_of_its_request() -> None:
    with pytest.raises(MessageError) as caught:
        parse('{"type": "audio", "audio": "?", "client_req_id": "a"}')
    assert caught.value.client_req_id == "a"


def test_a_number_too_large_for_a_float_is_a_wrong_value() -> None:
    """`math.isfinite(10**400)` raises OverflowError, which was reported as an internal error."""
    for key in ("temp", "padding_bonus", "delay_in_frames"):
        with pytest.raises(RequestError, match=key):
            from_json_config({key: 10**400})
    with pytest.raises(RequestError, match="not valid JSON"):
        from_json_config("[" * 100_000)
    assert from_json_config({"delay_in_frames": 12.0}) == Options(delay_in_frames=12)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), JSON))
def test_any_json_object_is_a_message_or_a_message_error(message: dict[str, Any]) -> None:
    for kind in ("setup", "audio", "flush", "end_of_stream", None):
        if kind is not None:
            message["type"] = kind
        with contextlib.suppress(MessageError):
            parsed = parse(json.dumps(message))
            json.dumps(parsed.client_req_id, ensure_ascii=False).encode()


def test_hostile_messages_are_messages_or_request_errors() -> None:
    rng = random.Random(5)
    errors = 0
    for _ in range(50_000):
        try:
            parsed = parse(hostile_message(rng))
            if isinstance(parsed, SetupMessage):
                from_json_config(parsed.json_config)
        except RequestError:
            errors += 1
    assert 10_000 < errors < 50_000
