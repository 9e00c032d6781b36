"""Gradium's WebSocket contract, with `websockets` as a bare client.

The session is scripted (one word per step), so that every word is known. Real speech is in
test_api_clients.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edged.server import access, stream, websocket_writer
from edged.server import gradium_websocket as socket_module
from edged.server.api_server import ApiServer
from edged.server.gradium_websocket import GradiumConnection
from tests.support.api_server import (
    ScriptedSession,
    client,
    open_api_server,
    scripted_sessions,
    silence,
)
from tests.support.mosquitto import until


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(access, "BURST", 10_000)
    with open_api_server(scripted_sessions()) as opened:
        yield opened


def free(api_server: ApiServer) -> None:
    until(lambda: api_server.streams.count == 0, "all streams are free again")


def test_a_session_from_setup_to_end_of_stream(api_server: ApiServer) -> None:
    with client(api_server) as c:
        c.setup()
        c.audio(silence(3))
        c.send(type="end_of_stream")
        received = c.receive_all()
    ready, last = received[0], received[-1]
    assert ready.pop("request_id")
    assert ready == {
        "type": "ready",
        "model_name": "tiny-en",
        "sample_rate": 24000,
        "frame_size": 1920,
        "delay_in_frames": 10,
        "text_stream_names": [],
        "language": "en",
        "keyterms": 0,
    }
    assert [m["type"] for m in received[1:-1]] == ["text", "end_text", "step"] * 3
    assert received[1] == {"type": "text", "text": "w0", "start_s": 0.0, "stream_id": 0}
    assert [m["step_idx"] for m in received if m["type"] == "step"] == [0, 1, 2]
    assert last == {"type": "end_of_stream"}
    assert c.close_code == 1000
    free(api_server)


def test_messages_before_ready_are_queued(api_server: ApiServer) -> None:
    """LiveKit's plug-in does not wait for `ready`."""
    with client(api_server) as c:
        c.setup()
        for _ in range(20):
            c.audio(silence(1))
        c.send(type="flush", flush_id=1)
        assert c.receive()["type"] == "ready"
        c.receive_until("flushed")
        assert c.types()["text"] == 20


def test_flushed_follows_all_words_of_the_audio_before_the_flush(api_server: ApiServer) -> None:
    with client(api_server) as c:
        c.setup()
        for flush_id in (7, "7", 0, "", -1):
            c.audio(silence(2))
            c.send(type="flush", flush_id=flush_id)
        answered = [c.receive_until("flushed")["flush_id"] for _ in range(5)]
    assert answered == [7, "7", 0, "", -1]  # as they came, type and all
    seen = [m["type"] for m in c.messages if m["type"] in ("text", "flushed")]
    assert seen == ["text", "text", "flushed"] * 5


@pytest.mark.parametrize("first", ["audio", "flush", "end_of_stream"])
def test_the_first_message_must_be_setup(api_server: ApiServer, first: str) -> None:
    with client(api_server) as c:
        c.send(type=first, audio="", flush_id=1)
        (error,) = c.receive_all()
    assert error["type"] == "error"
    assert error["code"] == 1008
    assert "must be setup" in error["message"]
    assert c.close_code == 1008


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ({"input_format": "mp3"}, "input_format must be one of"),
        ({"model_name": "huge"}, "model_name must be default or tiny-en"),
        ({"json_config": {"temp": 2}}, "temp must be from 0 to 1"),
        ({"json_config": '{"delay_in_frames": 9}'}, "delay_in_frames must be one of 7, 8, 10"),
        ({"json_config": "{"}, "json_config is not valid JSON"),
        ({"json_config": {"language": "xx"}}, "language must be auto or the code of a language"),
        ({"json_config": {"turns": 1}}, "turns must be true or false"),
    ],
)
def test_a_wrong_setup_gets_an_error_and_closes_the_socket(
    api_server: ApiServer, setup: dict[str, Any], words: str
) -> None:
    with client(api_server) as c:
        c.setup(**setup)
        (error,) = c.receive_all()
    assert error["code"] == 1008
    assert words in error["message"]
    free(api_server)


def test_json_config_may_be_an_object_or_a_string_and_unknown_keys_are_ignored(
    api_server: ApiServer,
) -> None:
    for config in ({"delay_in_frames": 24, "x": 1}, '{"delay_in_tokens": 24, "x": [1]}'):
        with client(api_server) as c:
            c.setup(json_config=config)
            assert c.receive()["delay_in_frames"] == 24


def test_turns_are_sent_only_on_request(api_server: ApiServer) -> None:
    """Strict clients fail on a message type that they do not know."""
    for config, expected in ((None, 0), ({"turns": True}, 1)):
        with client(api_server) as c:
            c.setup(json_config=config)
            c.audio(silence(1))
            c.send(type="end_of_stream")
            c.receive_all()
            assert c.types()["turn"] == expected


def test_a_binary_frame_is_refused_with_the_right_form(api_server: ApiServer) -> None:
    with client(api_server) as c:
        c.setup()
        c.receive()
        c.socket.send(b"\0\0")
        assert "JSON in text frames" in c.receive_all()[-1]["message"]


def test_requests_share_a_socket_and_each_message_has_its_id(api_server: ApiServer) -> None:
    with client(api_server) as c:
        for name in ("a", "b"):
            c.setup(client_req_id=name, close_ws_on_eos=False)
        for steps in (2, 3):
            c.audio(silence(steps), client_req_id="a")
            c.audio(silence(1), client_req_id="b")
        c.send(type="flush", flush_id=9, client_req_id="b")
        c.send(type="end_of_stream", client_req_id="a")
        c.receive_until("end_of_stream")
        c.send(type="end_of_stream", client_req_id="b")
        while c.types()["end_of_stream"] < 2:
            c.receive()
        c.setup(client_req_id="a", close_ws_on_eos=False)  # an id is free again after the end
        c.receive()
        c.send(type="end_of_stream", client_req_id="a")
        c.receive_until("end_of_stream")
        c.send(type="end_of_stream")  # without an id: the end of the socket
        c.receive_all()
    words = {
        n: [m["text"] for m in c.messages if m["type"] == "text" and m["client_req_id"] == n]
        for n in "ab"
    }
    assert words == {"a": ["w0", "w1", "w2", "w3", "w4"], "b": ["w0", "w1"]}
    assert all("client_req_id" in m for m in c.messages)
    assert c.close_code == 1000


def test_an_error_of_one_request_does_not_affect_the_others(
    api_server: ApiServer,
) -> None:
    with client(api_server) as c:
        c.setup(client_req_id="good", close_ws_on_eos=False)
        c.setup(client_req_id="bad", close_ws_on_eos=False, input_format="wav")
        c.audio(b"this is not a wav file", client_req_id="bad")
        error = c.receive_until("error")
        assert error["client_req_id"] == "bad"
        assert "not WAV" in error["message"]
        c.audio(silence(1), client_req_id="bad")  # it may not have received the error yet
        c.audio(silence(2), client_req_id="good")
        c.send(type="audio", audio="?", client_req_id="good")
        assert c.receive_until("error")["client_req_id"] == "good"
        c.receive_all()
    assert c.close_code == 1008  # no request is left
    assert c.types()["error"] == 2


def test_an_id_in_use_is_an_error_of_that_request(api_server: ApiServer) -> None:
    with client(api_server) as c:
        c.setup(client_req_id="a")
        c.setup(client_req_id="a")
        assert "in use" in c.receive_until("error")["message"]


def test_an_id_is_free_again_when_the_end_is_received(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end was sent first and the id freed after, so that a quick client got "in use"."""
    soon = socket_module.GradiumConnection.call_soon

    def late(self: GradiumConnection, call: Callable[..., object], *args: object) -> None:
        time.sleep(0.1)
        soon(self, call, *args)

    monkeypatch.setattr(socket_module.GradiumConnection, "call_soon", late)
    with client(api_server) as c:
        for _ in range(3):
            c.setup(client_req_id="a", close_ws_on_eos=False)
            c.send(type="end_of_stream", client_req_id="a")
            c.receive_until("end_of_stream")
    assert c.types() == {"ready": 3, "end_of_stream": 3}


def test_a_kept_socket_serves_one_request_after_the_other(api_server: ApiServer) -> None:
    with client(api_server) as c:
        for _ in range(3):
            c.setup(close_ws_on_eos=False)
            c.audio(silence(1))
            c.send(type="end_of_stream")
            c.receive_until("end_of_stream")
        c.send(type="end_of_stream")
        c.receive_all()
    assert [m["text"] for m in c.messages if m["type"] == "text"] == ["w0"] * 3
    assert c.close_code == 1000


def test_one_stream_too_many_gets_an_error_or_waits_for_a_free_one(api_server: ApiServer) -> None:
    with (
        client(api_server) as a,
        client(api_server) as b,
        client(api_server) as c,
        client(api_server) as d,
    ):
        for taken in (a, b):
            taken.setup()
            taken.receive()
        c.setup()
        (error,) = c.receive_all()
        assert error["code"] == 1011
        assert "all 2 streams" in error["message"]
        d.setup(retry_for_s=10)
        a.send(type="end_of_stream")
        assert d.receive()["type"] == "ready"


def test_an_internal_failure_is_1011_and_does_not_affect_other_streams(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(api_server) as other, client(api_server) as c:
        other.setup()
        other.audio(silence(1))
        other.receive_until("step")
        monkeypatch.setattr(ScriptedSession, "fail_at", 1)
        c.setup()
        c.audio(silence(2))
        error = c.receive_all()[-1]
        assert error["code"] == 1011
        assert "ZeroDivisionError" in error["message"]
        assert c.close_code == 1011
        monkeypatch.setattr(ScriptedSession, "fail_at", -1)
        other.audio(silence(1))
        other.receive_until("step")


def test_a_client_that_sends_too_fast_is_held_back(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is dropped: 100 s of audio come out as 1250 steps, in bounded memory."""
    waiting: list[float] = []
    push = ScriptedSession.push

    def slow(self: ScriptedSession, frame: object, backlog: bool = False) -> object:
        waiting.append(api_server.streams.waiting_s)
        return push(self, frame, backlog)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedSession, "push", slow)
    with client(api_server) as c:
        c.setup()
        for _ in range(125):
            c.audio(silence(10))
        c.send(type="end_of_stream")
        c.receive_all(60)
    assert c.types()["step"] == 1250
    assert max(waiting) < stream.MAX_WAITING_S + 2


def test_a_client_that_does_not_read_pauses_only_its_own_stream(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_writer, "MAX_UNSENT", 1 << 16)
    monkeypatch.setattr(
        ScriptedSession, "word", "w" * 50_000
    )  # 20 MB of answers: no kernel buffers that
    with client(api_server, max_queue=1) as unread, client(api_server) as c:
        unread.setup(input_format="ulaw_8000")  # small: this client does not read while it sends

        def send() -> None:
            for _ in range(4):
                unread.audio(b"\xff" * 64_000)
            unread.send(type="end_of_stream")

        sender = threading.Thread(target=send)
        sender.start()
        (paused,) = until(lambda: api_server.streams.streams, "the stream")
        until(lambda: paused._client.is_full(), "nothing more can be sent")
        c.setup()
        c.audio(silence(5))
        c.send(type="end_of_stream")
        c.receive_all()
        assert c.types()["step"] == 5
        assert paused.step_idx < 300  # what the kernel's buffers take
        unread.receive_all(60)  # now it reads, and lacks nothing
        sender.join()
        assert unread.types()["step"] == 400


def test_live_events_go_on_while_another_stream_is_fed_a_file(api_server: ApiServer) -> None:
    with client(api_server, close_timeout=0.2) as file, client(api_server) as live:
        file.setup()
        for _ in range(10):
            file.audio(silence(100))
        live.setup()
        for _ in range(10):
            live.audio(silence(1))
            live.receive_until("step", timeout=5)
        assert api_server.streams.count == 2


def test_stopping_the_server_sends_an_error_to_every_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_api_server(scripted_sessions()) as api_server, client(api_server) as c:
        c.setup()
        c.receive()
        api_server.stop()
        assert c.receive_all()[-1]["message"] == "edged is stopping"


def test_a_client_that_vanishes_frees_its_stream(api_server: ApiServer) -> None:
    for _ in range(5):
        with client(api_server) as c:
            c.setup()
            c.audio(silence(50))
            c.receive()
            c.socket.socket.close()
    free(api_server)
    with client(api_server) as c:
        c.setup()
        assert json.dumps(c.receive()["type"]) == '"ready"'
