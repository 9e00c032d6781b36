"""Parsing commands: what is well-formed, and that all else is refused with one sentence."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import RequestError
from edged.mqtt.commands import MAX_BYTES, NAMES, Command, parse
from tests.support.mangled_commands import command_or_sentence, mangled


@pytest.mark.parametrize(
    ("name", "raw", "payload"),
    [
        ("flush", b'{"flush_id": 7}', 7),
        ("flush", b'{"flush_id": "a b"}', "a b"),
        ("flush", b'"7"', "7"),
        ("flush", b"-3", -3),
        ("flush", b"", 0),
        ("flush", b"{}", 0),
        ("mute", b"on", True),
        ("mute", b"OFF", False),
        ("mute", b"true", True),
        ("mute", b'{"mute": false}', False),
        ("config", b'{"temp": 0.5, "language": "en"}', {"temp": 0.5, "language": "en"}),
        ("reload", b"", None),
        ("restart", b"PRESS", None),
        ("restart", b" {} ", None),
    ],
)
def test_a_well_formed_command_is_taken(name: str, raw: bytes, payload: Any) -> None:
    command = parse(name, raw, response_topic="me", correlation=b"1")
    assert command == Command(name, payload, "me", b"1")
    assert type(command.payload) is type(payload)


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        ("dance", b"", "unknown command 'dance': use one of flush, mute"),
        ("flush", b"{", "not valid JSON"),
        ("flush", b"true", "must be an integer or a string, not True"),
        ("flush", b"1.5", "must be an integer or a string"),
        ("flush", b'{"id": 1}', "knows only the key flush_id, not 'id'"),
        ("flush", b'"' + b"x" * 300 + b'"', "at most 256 characters"),
        ("flush", b"9" * 5000, "cmd/flush is not valid JSON"),
        ("flush", b"9" * 1000, "at most 256 characters"),
        ("flush", rb'"\ud800"', "valid Unicode"),
        ("mute", b"", "not valid JSON"),
        ("mute", b"1", "must be true, false, on or off, not 1"),
        ("mute", b'{"mute": true, "x": 1}', "must be true, false, on or off"),
        ("config", b"[]", "must be a JSON object"),
        ("config", b"{}", "must be a JSON object"),
        ("config", b'{"temp": NaN}', "NaN is not a JSON number"),
        ("config", b'{"temp": 1e999}', "temp is too large a number"),
        ("config", b'{"temp": 1, "temp": 0}', "a key is given twice"),
        ("config", b'{"temp": [1]}', "temp must be a string, a number"),
        ("config", b"[" * 8000, "cmd/config is n"),
        ("config", b"\xff\xfe", "must be UTF-8"),
        ("config", b" " * (MAX_BYTES + 1), "must be at most 8192 bytes"),
        ("reload", b"now", "takes no payload, not 'now'"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(name: str, raw: bytes, says: str) -> None:
    with pytest.raises(RequestError) as told:
        parse(name, raw)
    assert says in str(told.value)
    assert len(str(told.value)) < 250


def test_a_retained_command_is_refused_whatever_it_says() -> None:
    for name in NAMES:
        with pytest.raises(RequestError, match="retained commands are ignored"):
            parse(name, b"", retained=True)


@given(name=st.sampled_from([*NAMES, "x", ""]), raw=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_bytes_are_more_than_a_command_or_one_sentence(name: str, raw: bytes) -> None:
    assert_safe(name, raw)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(name=st.sampled_from(NAMES), value=JSON)
@settings(max_examples=300, deadline=None)
def test_no_json_is_more_than_a_command_or_one_sentence(name: str, value: Any) -> None:
    assert_safe(name, json.dumps(value).encode())


def test_ten_thousand_mangled_commands_are_each_a_command_or_one_sentence() -> None:
    pick = random.Random(3)
    taken = sum(assert_safe(*mangled(pick)) for _ in range(10_000))
    assert 100 < taken < 9_000, "neither all good nor all bad, or this shows little"


def assert_safe(name: str, raw: bytes) -> bool:
    """Whether it was taken; what was taken has the type that is promised."""
    outcome = command_or_sentence(name, raw)
    if isinstance(outcome, str):
        assert 0 < len(outcome.encode()) < 400
        return False
    promised: dict[str, Any] = {
        "flush": (int, str),
        "mute": bool,
        "config": dict,
        "keyterms": dict,
        "reload": type(None),
    }
    assert isinstance(outcome.payload, promised.get(name, type(None)))
    assert name != "flush" or not isinstance(outcome.payload, bool)
    json.dumps(outcome.payload, allow_nan=False).encode()
    return True


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        ('{"set": ["Thornton", "Ecobee: echo bee"]}', {"set": ["Thornton", "Ecobee: echo bee"]}),
        ('{"add": ["Thornton"]}', {"add": ["Thornton"]}),
        ('{"remove": []}', {"remove": []}),
        ('["Thornton"]', {"set": ["Thornton"]}),
    ],
)
def test_key_terms_are_set_added_or_removed(payload: str, wanted: dict[str, list[str]]) -> None:
    assert parse("keyterms", payload.encode()).payload == wanted


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("{}", "must be a JSON object such as"),
        ('{"set": [], "add": []}', "must be a JSON object such as"),
        ('{"delete": []}', "must be a JSON object such as"),
        ('"Thornton"', "must be a JSON object such as"),
        ('{"set": "Thornton"}', "set must be a list of strings"),
        ('{"set": [1]}', "set must be a list of strings"),
        ('{"set": ["\\ud800"]}', "must be valid Unicode"),
        (json.dumps([f"term {n}" for n in range(201)]), "at most 200 terms, not 201"),
        ('["' + "x" * 40_000 + '"]', "at most 32768 bytes"),
    ],
)
def test_wrong_key_terms_are_refused_with_one_sentence(payload: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        parse("keyterms", payload.encode())
