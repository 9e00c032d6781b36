"""Commands over MQTT: what is taken, and that all else is answered and changes nothing."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import RequestError
from edged.mqtt.commands import MAX_BYTES, NAMES, Command, parse
from edged.mqtt.topics import NUMBERED, Topics
from tests.support.mosquitto import Ear, Mosquitto, until
from tests.support.mqtt_publisher import Rig


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
        ("config", b"[" * 8000, "nested too deeply"),
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
    promised = {"flush": (int, str), "mute": bool, "config": dict, "reload": type(None)}
    assert isinstance(outcome.payload, promised.get(name, type(None)))
    assert name != "flush" or not isinstance(outcome.payload, bool)
    json.dumps(outcome.payload, allow_nan=False).encode()
    return True


def command_or_sentence(name: str, raw: bytes) -> Command | str:
    try:
        return parse(name, raw)
    except RequestError as problem:
        return str(problem)


GOOD = (
    ("flush", b'{"flush_id": "turn-17"}'),
    ("flush", b"12"),
    ("mute", b"on"),
    ("mute", b'{"mute": true}'),
    ("config", b'{"delay_in_frames": 12, "temp": 0.2, "language": "en", "turn_silence_ms": 700}'),
    ("reload", b""),
    ("restart", b"{}"),
)


def mangled(pick: random.Random) -> tuple[str, bytes]:
    """A good command with a few bytes changed, cut, doubled, or swapped with another's."""
    name, raw = pick.choice(GOOD)
    data = bytearray(raw)
    for _ in range(pick.randrange(4)):
        at = pick.randrange(len(data) + 1)
        match pick.randrange(6):
            case 0:
                data[at:at] = bytes([pick.randrange(256)])
            case 1:
                del data[at : at + pick.randrange(1, 5)]
            case 2:
                data[at:at] = data
            case 3:
                data[at : at + 1] = pick.choice((b"{", b"[", b'"', b"null", b"1e400", b"\\u0000"))
            case 4:
                name = pick.choice((*NAMES, "flushed", "Mute", "state", "config2", "é", "a b"))
            case _:
                data[at:at] = str(pick.choice((-(2**70), 0.1, float("inf"), "x" * 30))).encode()
    return name, bytes(data)


def test_hundreds_of_mangled_commands_over_the_broker_are_all_answered(tmp_path: Path) -> None:
    pick = random.Random(4)
    sent = [mangled(pick) for _ in range(400)]
    with Mosquitto(tmp_path) as broker, Ear(broker.port, ("edged/kitchen/cmd/#",)) as ear:
        with Rig(tmp_path, broker.port) as rig:
            rig.connected()
            # In tens: a flood beyond 64 at once is dropped and counted, which is tested below.
            for start in range(0, len(sent), 10):
                for name, raw in sent[start : start + 10]:
                    ear.client.publish(f"edged/kitchen/cmd/{name}", raw, 1)
                until(lambda end=start + 10: len(ear.on("result")) >= end, f"{start} answered")
            answers = [h.json() for h in ear.on("result")]
            good = [c for c in (command_or_sentence(*s) for s in sent) if isinstance(c, Command)]
            assert len(answers) == 400
            assert [c.payload for c in rig.commands] == [c.payload for c in good]
            assert sum(a["ok"] for a in answers) == len(good)
            assert all(a["ok"] or a["error"] for a in answers)
            assert rig.publisher.stats().connected
            assert len(rig.states) == 1, "never disconnected"


def test_an_answer_goes_where_it_was_asked_for_and_after_the_texts(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        with Rig(tmp_path, broker.port, answer=False) as rig:
            rig.connected()
            ear.say(
                "edged/kitchen/cmd/flush", "5", ResponseTopic="me/here", CorrelationData=b"\x00\xff"
            )
            command = until(lambda: rig.commands, "the command")[0]
            rig.say(0, 40)
            rig.publisher.reply(command, True, flush_id=5)
            answer = until(lambda: ear.on("here"), "the answer")[0]
            assert answer.json() == {"ok": True, "flush_id": 5}
            assert answer.properties.CorrelationData == b"\x00\xff"
            assert answer.properties.MessageExpiryInterval <= 60
            assert len(ear.on("text")) == 40, "every text came before"
            assert not ear.on("result")


@pytest.mark.parametrize(
    "topic",
    [
        "edged/kitchen/cmd/flush",
        "edged/hall/cmd/flush",
        "edged/kitchen/availability",
        "edged/kitchen/text",
        "edged/hall/text",
        "$SYS/x",
        "a" * 600,
    ],
)
def test_an_answer_is_not_sent_where_it_would_do_harm(tmp_path: Path, topic: str) -> None:
    """A response topic that is a command of ours would make us talk to ourselves for ever, and
    whoever may only ask could speak as the box: an answer went to its `availability`."""
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        ear.say("edged/kitchen/cmd/flush", "5", ResponseTopic=topic)
        until(lambda: ear.on("cmd/flush/result"), "the answer at the usual place")
        assert len(rig.commands) == 1


def test_an_answer_may_go_to_any_place_of_the_askers_and_to_results() -> None:
    """A base may be shared with others: `home/panel/answers` is nobody's but the panel's."""
    may = Topics("home", "kitchen").may_answer_at
    assert may("home/panel/answers")
    assert may("home/kitchen/cmd/flush/result")
    assert may("home/kitchens")
    assert may("home/panel/texts")
    assert not may("home/kitchen/cmd/flush/results")
    assert not may("home/kitchen/state/mute")


@pytest.mark.parametrize(
    "name",
    [*NUMBERED, "availability", "info", "state/mute", "step", "event", "cmd/mute", "cmd/x/result"],
)
def test_an_answer_does_not_speak_as_another_box(name: str) -> None:
    """Only commands to other boxes were barred: whoever may ask the kitchen could have it write
    words, or `availability`, for the hall, where he himself has no rights."""
    may = Topics("home", "kitchen").may_answer_at
    assert not may(f"home/hall/{name}")
    assert may(f"elsewhere/hall/{name}")


def test_a_retained_command_is_ignored_and_reported_live_and_at_each_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A retained restart would be a boot loop."""
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        ear.say("edged/kitchen/cmd/restart", "", retain=True)  # an empty one is not kept
        ear.say("edged/kitchen/cmd/restart", "{}", retain=True)
        with Rig(tmp_path, broker.port) as rig:
            until(lambda: ear.on("result"), "reported when found")
            ear.say("edged/kitchen/cmd/mute", "on", retain=True)
            until(lambda: len(ear.on("result")) == 2, "reported when sent")
            assert rig.commands == []
        assert all("retained" in h.json()["error"] for h in ear.on("result"))
    assert caplog.text.count("publish cmd/restart without retain") == 1


def test_retained_commands_that_nobody_knows_do_not_fill_the_log(tmp_path, caplog) -> None:
    """Each made-up name was logged, and remembered for ever."""
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        for n in range(20):
            ear.say(f"edged/kitchen/cmd/made-up-{n}", "x", retain=True)
        with Rig(tmp_path, broker.port):
            until(lambda: len(ear.on("result")) == 20, "each is answered")
    assert caplog.text.count("unknown command") == 1


def test_a_daemon_that_has_no_room_for_a_command_says_busy(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        rig.full = True
        ear.say("edged/kitchen/cmd/reload", "")
        answer = until(lambda: ear.on("result"), "an answer")[0].json()
        assert answer == {"ok": False, "error": "busy: too many commands are waiting"}


def test_a_flood_of_commands_is_bounded(tmp_path: Path) -> None:
    """While the MQTT thread is held up: else it is quick enough for any flood of a test, and this
    one once passed without the bound."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(40)

    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        rig.publisher.call(hold)
        assert held.wait(10)
        try:
            for n in range(500):
                ear.client.publish("edged/kitchen/cmd/flush", str(n), 1)
            until(
                lambda: rig.publisher.stats().dropped.get("commands") == 500 - 64, "64 are kept", 20
            )
        finally:
            go_on.set()
        until(lambda: len(rig.commands) == 64, "these are heard")
        ear.say("edged/kitchen/cmd/reload", "")
        rig.say(0, 5)
        until(lambda: rig.commands[-1].name == "reload", "commands are heard again")
        until(lambda: len(ear.on("text")) == 5, "the texts still come", 20)
        assert rig.publisher.stats().connected
        assert rig.publisher.stats().dropped["commands"] == 500 - 64


def test_an_enormous_command_is_answered_and_not_kept(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        ear.say("edged/kitchen/cmd/config", b"{" + b" " * 60_000 + b"}")
        answer = until(lambda: ear.on("result"), "an answer")[0].json()
        assert answer["error"] == "cmd/config must be at most 8192 bytes"
        ear.say("edged/kitchen/cmd/config", b"{" + b" " * 1_000_000 + b"}")
        ear.say("edged/kitchen/cmd/reload", b"")
        until(lambda: len(ear.on("result")) == 2, "the broker kept the giant from us")
