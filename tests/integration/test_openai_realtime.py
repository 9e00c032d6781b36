"""OpenAI's realtime transcription, with the unmodified `openai` package and a scripted session."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai.resources.realtime.realtime import RealtimeConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from edged.events import EndOfStream, EndText, Event, Step, Text, Turn
from edged.options import Options
from edged.server import access, openai_realtime
from edged.server.api_server import ApiServer
from edged.server.stream_pool import SessionProvider
from tests.support.api_server import (
    ScriptedSession,
    client,
    open_api_server,
    scripted_sessions,
    sessions_of,
    silence,
    socket_url,
)
from tests.support.mosquitto import until

KEY = "correct horse"
PERIOD = 60  # steps from one turn to the next
PATH = "/v1/realtime?intent=transcription"


class TalkingSession(ScriptedSession):
    """Two words and a turn every PERIOD steps; before that a cough, which is no word."""

    last_options = Options()

    def __init__(self, models: object, options: Options, **executors: object) -> None:
        super().__init__(models, options)
        TalkingSession.last_options = options
        self._open_turn = False

    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        at, self.step_idx = self.step_idx, self.step_idx + 1
        n, place = divmod(at, PERIOD)
        begin = n * PERIOD * 0.08
        self.speaking = place in (1, 2) or 45 <= place < 52  # a cough, then speech
        events: list[Event] = []
        if place in (48, 50):
            self._open_turn = True
            word = "Hello" if place == 48 else f"number {n}."
            events = [Text(word, begin + 0.08 * (place - 2)), EndText(begin + 0.08 * (place - 1))]
        events.append(Step(at))
        if place == 56:
            self._open_turn = False
            events.append(Turn(f"Hello, number {n}.", begin + 3.7, begin + 3.92))
        return events

    def end(self) -> list[Event]:
        turn = [Turn("Cut off.", 0.0, 1.0)] if self._open_turn else []
        return [*turn, EndOfStream()]


def talking_sessions() -> SessionProvider:
    return sessions_of(scripted_sessions().models.main, cast(Any, TalkingSession))


@pytest.fixture(autouse=True)
def _many_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BURST", 1_000_000)


@pytest.fixture
def api_server() -> Iterator[ApiServer]:
    with open_api_server(talking_sessions(), api_key=KEY) as opened:
        yield opened


@contextlib.contextmanager
def session(
    api_server: ApiServer, turn_detection: Any = "default", **given: Any
) -> Iterator[RealtimeConnection]:
    """A session of the SDK, with its settings updated."""
    sdk = openai.OpenAI(base_url=f"{api_server.url}/v1", api_key=KEY, max_retries=0)
    with sdk.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "session.created"
        settings: dict[str, Any] = {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": "gpt-4o-transcribe", "language": "en", "prompt": "edged"},
            **given,
        }
        if turn_detection != "default":
            settings["turn_detection"] = turn_detection
        update: Any = {"type": "transcription", "audio": {"input": settings}}
        connection.session.update(session=update)
        assert connection.recv().type == "session.updated"
        yield connection


def append(connection: RealtimeConnection, steps: int) -> None:
    connection.input_audio_buffer.append(audio=base64.b64encode(silence(steps)).decode())


def receive(connection: RealtimeConnection, last: str, count: int = 1) -> list[Any]:
    """Events up to the `count`-th whose type ends with `last`."""
    events: list[Any] = []
    while sum(event.type.endswith(last) for event in events) < count:
        events.append(connection.recv())
    return events


def kinds(events: list[Any]) -> list[str]:
    """The types of events, without what they have in common."""
    prefixes = ("conversation.item.input_audio_transcription.", "input_audio_buffer.")
    names = []
    for event in events:
        name = event.type
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        names.append(name)
    return names


def test_turns_are_items_with_deltas_times_and_the_completed_text(api_server: ApiServer) -> None:
    with session(api_server, {"type": "server_vad"}) as connection:
        append(connection, 2 * PERIOD)
        events = receive(connection, ".completed", 4)
    item = ["delta", "delta", "speech_stopped", "committed", "conversation.item.added", "completed"]
    cough = ["speech_started", "speech_stopped", "committed", "conversation.item.added",
             "completed"]  # fmt: skip
    assert kinds(events) == [*cough, "speech_started", *item, *cough, "speech_started", *item]
    first = events[5:12]
    assert len({event.item_id for event in first if hasattr(event, "item_id")}) == 1
    assert first[0].audio_start_ms == 3680
    assert [event.delta for event in first[1:3]] == ["Hello", " number 0."]
    assert first[3].audio_end_ms == 3920
    assert first[4].previous_item_id == events[4].item_id
    assert first[-1].transcript == "Hello, number 0."
    assert first[-1].usage.type == "duration"
    assert events[4].transcript == ""  # nothing was recognised in the cough
    until(lambda: api_server.streams.count == 0, "its stream is free")


def test_without_turn_detection_the_client_commits(api_server: ApiServer) -> None:
    with session(api_server, None) as connection:
        for text in ("Hello, number 0.", "Cut off."):
            append(connection, 58 if text.startswith("Hello") else 52)
            connection.input_audio_buffer.commit()
            events = receive(connection, ".completed")
            assert "speech_started" not in kinds(events)
            assert events[-1].transcript == text
            (committed,) = [e for e in events if e.type.endswith(".committed")]
            assert committed.item_id == events[-1].item_id


def test_a_commit_of_nothing_is_an_error_and_the_session_goes_on(api_server: ApiServer) -> None:
    with session(api_server, None) as connection:
        connection.input_audio_buffer.commit()
        event: Any = connection.recv()
        assert event.type == "error"
        assert event.error.code == "input_audio_buffer_commit_empty"
        append(connection, 58)
        connection.input_audio_buffer.commit()
        assert receive(connection, ".completed")[-1].transcript == "Hello, number 0."


def test_cleared_audio_is_not_transcribed(api_server: ApiServer) -> None:
    with session(api_server, None) as connection:
        append(connection, 47)
        connection.input_audio_buffer.clear()
        assert connection.recv().type == "input_audio_buffer.cleared"
        append(connection, 10)
        connection.input_audio_buffer.commit()
        assert receive(connection, ".completed")[-1].transcript == ""


def test_times_go_on_after_a_commit(api_server: ApiServer) -> None:
    with session(api_server) as connection:
        append(connection, 10)  # 0.8 s
        connection.input_audio_buffer.commit()
        receive(connection, ".completed")
        append(connection, PERIOD)
        events = receive(connection, ".completed", 2)
        (_, started) = [e.audio_start_ms for e in events if e.type.endswith("speech_started")]
        assert started == 3680 + 800


def test_settings_become_options_of_the_session(api_server: ApiServer) -> None:
    detection = {"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 900}
    with session(api_server, detection) as connection:
        append(connection, 58)
        receive(connection, ".completed")
    options = TalkingSession.last_options
    assert (options.vad_threshold, options.turn_silence_ms, options.turns) == (0.7, 900, True)
    assert options.keyterms == ("edged",), "the prompt gives key terms"


@pytest.mark.parametrize("form", ["audio/pcmu", "audio/pcma"])
def test_telephone_formats(api_server: ApiServer, form: str) -> None:
    with session(api_server, None, format={"type": form}) as connection:
        connection.input_audio_buffer.append(audio=base64.b64encode(bytes(8000 * 5)).decode())
        connection.input_audio_buffer.commit()
        assert receive(connection, ".completed")[-1].transcript == "Hello, number 0."


# -- a bare client


@contextlib.contextmanager
def bare(api_server: ApiServer, **headers: str) -> Iterator[Connection]:
    headers = {"Authorization": f"Bearer {KEY}", **headers}
    url = socket_url(api_server, PATH)
    socket = connect(url, additional_headers=headers, compression=None, max_size=None)
    with socket:
        yield socket


def ask(socket: Connection, message: Any) -> dict[str, Any]:
    socket.send(message if isinstance(message, str) else json.dumps(message))
    answer: dict[str, Any] = json.loads(socket.recv(10))
    return answer


def test_the_old_form_of_a_session(api_server: ApiServer) -> None:
    with bare(api_server, **{"OpenAI-Beta": "realtime=v1"}) as socket:
        created = json.loads(socket.recv(10))
        assert created["type"] == "transcription_session.created"
        assert created["session"]["input_audio_format"] == "pcm16"
        update = {
            "type": "transcription_session.update",
            "session": {
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {"type": "server_vad", "threshold": 0.5},
                "input_audio_noise_reduction": {"type": "near_field"},
            },
        }
        updated = ask(socket, update)
        assert updated["type"] == "transcription_session.updated"
        assert updated["session"]["input_audio_format"] == "g711_ulaw"
        assert updated["session"]["input_audio_transcription"]["model"] == "whisper-1"


def test_a_browsers_key_is_in_the_subprotocol(api_server: ApiServer) -> None:
    url = socket_url(api_server, PATH)
    subprotocols: Any = ["realtime", "openai-insecure-api-key.correct%20horse"]
    with pytest.raises(InvalidStatus) as caught:
        connect(url, subprotocols=subprotocols)
    assert caught.value.response.status_code == 401
    with open_api_server(talking_sessions(), api_key="simple-key") as server:
        subprotocols[1] = "openai-insecure-api-key.simple-key"
        with connect(socket_url(server, PATH), subprotocols=subprotocols) as socket:
            assert socket.subprotocol == "realtime"
            assert json.loads(socket.recv(10))["type"] == "session.created"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "one JSON object"),
        ("[]", "must be a JSON object"),
        ("[" * 5000, "more than 4096 values"),
        ({}, "type must be session.update"),
        ({"type": "response.create"}, "type must be session.update"),
        ({"type": "input_audio_buffer.append"}, "audio must be a string"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "not valid base64"),
        ({"type": "session.update"}, "session must be an object"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "transcription sessions"),
        ({"type": "session.update", "session": {"audio": 1}}, "audio must be an object"),
        ({"type": "session.update", "session": {"audio": {"input": []}}}, "input must be an"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": "mp3"}}}},
            "format must be one of",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            },
            "rate of audio/pcm",
        ),
        (
            {"type": "transcription_session.update",
             "session": {"input_audio_transcription": {"language": "xx"}}},
            "language must be auto or the code of a language",
        ),
        (
            {"type": "transcription_session.update", "session": {"turn_detection": "on"}},
            "turn_detection must be",
        ),
        (
            {"type": "transcription_session.update",
             "session": {"turn_detection": {"threshold": "high"}}},
            "threshold must be a number",
        ),
    ],
)  # fmt: skip
def test_a_wrong_event_gets_an_error_and_the_session_goes_on(
    api_server: ApiServer, message: Any, words: str
) -> None:
    with bare(api_server) as socket:
        socket.recv(10)
        if isinstance(message, dict):
            message |= {"event_id": "mine"}
        answer = ask(socket, message)
        assert answer["type"] == "error"
        assert words in answer["error"]["message"]
        if isinstance(message, dict):
            assert answer["error"]["event_id"] == "mine"
        assert ask(socket, {"type": "session.update", "session": {}})["type"] == "session.updated"


def test_a_wrong_key_is_refused(api_server: ApiServer) -> None:
    with pytest.raises(InvalidStatus) as caught, bare(api_server, Authorization="Bearer no"):
        pass
    assert caught.value.response.status_code == 401
    body = caught.value.response.body
    assert body is not None
    assert json.loads(body)["error"]["code"] == "invalid_api_key"


def test_streams_are_taken_with_the_first_audio_and_shared(api_server: ApiServer) -> None:
    right: dict[str, Any] = {"additional_headers": {"x-api-key": KEY}}
    audio = {"type": "input_audio_buffer.append", "audio": "AAAA"}
    with (
        bare(api_server) as idle,
        client(api_server, **right) as a,
        client(api_server, **right) as b,
    ):
        idle.recv(10)
        for other in (a, b):
            other.setup()
            other.receive()
        answer = ask(idle, audio)
        assert "all 2 streams" in answer["error"]["message"]
        with pytest.raises(ConnectionClosed):
            idle.recv(10)
        assert idle.close_code == 1013


def test_an_idle_session_and_a_failing_recogniser_end_it(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TalkingSession, frame: object, backlog: bool = False) -> list[Event]:
        raise ZeroDivisionError

    monkeypatch.setattr(TalkingSession, "push", fail)
    with bare(api_server) as socket:
        socket.recv(10)
        audio = base64.b64encode(silence(2)).decode()
        answer = ask(socket, {"type": "input_audio_buffer.append", "audio": audio})
        assert "ZeroDivisionError" in answer["error"]["message"]
        with pytest.raises(ConnectionClosed):
            socket.recv(10)
        assert socket.close_code == 1011
    monkeypatch.setattr(openai_realtime, "IDLE_S", 0.2)
    with bare(api_server) as socket:
        socket.recv(10)
        assert "nothing was received" in json.loads(socket.recv(10))["error"]["message"]
    until(lambda: api_server.streams.count == 0, "all streams are free")


def test_stopping_the_server_sends_an_error() -> None:
    with open_api_server(talking_sessions(), api_key=KEY) as server, bare(server) as socket:
        socket.recv(10)
        server.stop()
        assert "edged is stopping" in json.loads(socket.recv(10))["error"]["message"]


def test_hostile_events_do_not_affect_others(api_server: ApiServer) -> None:
    rng = random.Random(9)
    names = ("type", "audio", "session", "event_id", "input", "format", "turn_detection")
    values: list[Any] = [None, 1, -1.5, "", "AAAA", "audio/pcm", [], {}, {"input": {}}, True, "x"]
    types = (
        "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear",
        "session.update", "transcription_session.update", "response.create",
    )  # fmt: skip
    with bare(api_server) as good:
        good.recv(10)
        for _ in range(40):
            with contextlib.suppress(ConnectionClosed, TimeoutError), bare(api_server) as bad:
                for _ in range(25):
                    message = {name: rng.choice(values) for name in rng.sample(names, 4)}
                    message["type"] = rng.choice(types)
                    text = json.dumps(message)
                    bad.send(text if rng.random() < 0.8 else text[: rng.randrange(len(text))])
        assert ask(good, {"type": "session.update", "session": {}})["type"] == "session.updated"
    until(lambda: api_server.streams.count == 0, "all streams are free")
