"""Wyoming, with the unmodified client of the `wyoming` package and a scripted session."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import requests
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from edged.errors import PeerError
from edged.events import Event, Turn
from edged.options import Options
from edged.server import access, connection_limits, wyoming_server
from edged.server.access import AccessControl, Origins
from edged.server.api_server import ApiServer, WyomingAddress
from edged.server.listener import ListenAddress
from tests.support.api_server import ScriptedSession, client, open_api_server, scripted_sessions
from tests.support.mosquitto import until
from tests.support.wyoming_client import receive_until, send_audio, streamed_text, text_of

STEP = 2560  # bytes of 80 ms at 16 kHz
Talk = Callable[[AsyncTcpClient], Awaitable[None]]


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(access, "BURST", 1_000_000)
    wyoming = WyomingAddress(ListenAddress("127.0.0.1", 0))
    with open_api_server(scripted_sessions(), wyoming=wyoming) as opened:
        yield opened


def port_of(api_server: ApiServer) -> int:
    return int(api_server.wyoming_url.rpartition(":")[2])


def talk(api_server: ApiServer, conversation: Talk) -> None:
    async def run() -> None:
        async with AsyncTcpClient("127.0.0.1", port_of(api_server)) as wyoming:
            await conversation(wyoming)

    asyncio.run(run())


def raw(api_server: ApiServer, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port_of(api_server)), timeout=10)
    sock.sendall(data)
    return sock


def received(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(4096):
            data += part
    return data


def test_describe_is_answered_with_a_streaming_program(api_server: ApiServer) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await wyoming.write_event(Describe().event())
        event = await wyoming.read_event()
        assert event is not None
        (program,) = Info.from_event(event).asr
        assert program.supports_transcript_streaming
        assert not program.requires_external_vad
        (model,) = program.models
        assert (model.name, model.languages) == ("tiny-en", ["en"])

    talk(api_server, conversation)


def test_an_utterance_gets_chunks_and_always_a_final_transcript(api_server: ApiServer) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await wyoming.write_event(Transcribe(language="en-GB").event())
        await send_audio(wyoming, bytes(3 * STEP))
        events = await receive_until(wyoming, "transcript-stop")
        kinds = [event.type for event in events]
        assert kinds[0] == "transcript-start"
        assert kinds[-2:] == ["transcript", "transcript-stop"]
        assert streamed_text(events) == "w0 w1 w2"
        assert text_of(events) == "all"  # the turn, decoded again
        assert events[-2].data["language"] == "en"

    talk(api_server, conversation)
    until(lambda: api_server.streams.count == 0, "its stream is free")


def test_names_and_terms_become_key_terms_of_the_utterances_that_follow(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come first: if there are too many, terms are left out."""
    seen: list[tuple[str, ...]] = []
    init = ScriptedSession.__init__

    def record(
        self: ScriptedSession, models: object, options: Options, **executors: object
    ) -> None:
        seen.append(options.keyterms)
        init(self, models, options, **executors)

    monkeypatch.setattr(ScriptedSession, "__init__", record)

    async def conversation(wyoming: AsyncTcpClient) -> None:
        given = Transcribe(transcript_terms=["Ecobee", "x"], transcript_names=["Helstone"])
        for event in (given, Transcribe(language="en")):
            await wyoming.write_event(event.event())
            await send_audio(wyoming, bytes(STEP))
            await receive_until(wyoming, "transcript-stop")

    talk(api_server, conversation)
    assert seen == [("Helstone", "Ecobee"), ()]


def test_several_utterances_follow_each_other_on_one_connection(api_server: ApiServer) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        for steps in (1, 4, 0, 2):
            await send_audio(wyoming, bytes(steps * STEP))
            events = await receive_until(wyoming, "transcript-stop")
            assert streamed_text(events) == " ".join(f"w{n}" for n in range(steps))

    talk(api_server, conversation)


def test_the_end_of_a_live_turn_ends_the_utterance(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home Assistant then need not detect the end itself; what it still sends is ignored."""
    push = ScriptedSession.push

    def with_turn(self: ScriptedSession, frame: object, backlog: bool = False) -> list[Event]:
        events = push(self, frame, backlog)  # type: ignore[arg-type]
        return [*events, Turn("Lights on.", 0.0, 1.0)] if self.step_idx == 10 else events

    monkeypatch.setattr(ScriptedSession, "push", with_turn)

    async def conversation(wyoming: AsyncTcpClient) -> None:
        for _ in range(2):
            await send_audio(wyoming, bytes(14 * STEP), stop=False, pace=0.9)
            events = await receive_until(wyoming, "transcript-stop")
            assert text_of(events) == "Lights on."
            await wyoming.write_event(AudioStop().event())

    talk(api_server, conversation)


def test_the_end_of_a_turn_in_a_file_does_not_end_the_utterance(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that is sent as fast as possible may have pauses after which it goes on."""
    push = ScriptedSession.push

    def with_turns(self: ScriptedSession, frame: object, backlog: bool = False) -> list[Event]:
        events = push(self, frame, backlog)  # type: ignore[arg-type]
        return [*events, Turn(f"T{self.step_idx}", 0.0, 1.0)] if self.step_idx % 40 == 0 else events

    monkeypatch.setattr(ScriptedSession, "push", with_turns)

    async def conversation(wyoming: AsyncTcpClient) -> None:
        await send_audio(wyoming, bytes(100 * STEP))
        assert text_of(await receive_until(wyoming, "transcript-stop")) == "T40 T80 all"

    talk(api_server, conversation)


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(16_000, 2, 1), (48_000, 4, 2), (44_100, 3, 1), (8000, 1, 1)]
)
def test_audio_of_any_rate_width_and_channels(
    api_server: ApiServer, rate: int, width: int, channels: int
) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await send_audio(wyoming, bytes(rate * width * channels), rate, width, channels)
        events = await receive_until(wyoming, "transcript-stop")
        assert len(streamed_text(events).split()) == 13  # steps of 80 ms in one second

    talk(api_server, conversation)


def test_a_client_that_sends_no_audio_start_is_understood(api_server: ApiServer) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await wyoming.write_event(AudioChunk(16_000, 2, 1, bytes(2 * STEP)).event())
        await wyoming.write_event(AudioStop().event())
        assert streamed_text(await receive_until(wyoming, "transcript-stop")) == "w0 w1"

    talk(api_server, conversation)


def test_a_ping_is_answered_and_unknown_events_are_ignored(api_server: ApiServer) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await wyoming.write_event(Ping("x").event())
        event = await wyoming.read_event()
        assert event is not None
        assert Pong.from_event(event).text == "x"

    talk(api_server, conversation)
    with raw(api_server, b'{"type": "new-in-2030", "data": {"a": 1}}\n{"type": "ping"}\n') as sock:
        assert b'"pong"' in sock.recv(4096)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no json\n", "not valid JSON"),
        (b"[]\n", "must be a JSON object"),
        (b"{}\n", "needs a type"),
        (b'{"type": 1}\n', "needs a type"),
        (b'{"type": "ping", "data": [1]}\n', "data of an event"),
        (b'{"type": "ping", "data_length": -1}\n', "data_length must be"),
        (b'{"type": "ping", "data_length": 99999999}\n', "data_length must be"),
        (b'{"type": "audio-chunk", "payload_length": 99999999999}\n', "payload_length must be"),
        (b'{"type": "audio-chunk", "payload_length": "1"}\n', "payload_length must be"),
        (b'{"type": "audio-start"}\n', "'audio-start' event is malformed"),
        (b'{"type": "audio-start", "data": {"rate": 1, "width": 2, "channels": 1}}\n', "rate"),
        (b'{"type": "audio-start", "data": {"rate": 16000, "width": 9, "channels": 1}}\n', "width"),
        (b'{"type": "audio-start", "data": {"rate": 1e9, "width": 2, "channels": 1}}\n', "rate"),
        (b'{"type": "audio-chunk", "data": {"rate": 1}}\n', "'audio-chunk' event is malformed"),
        (
            b'{"type": "transcribe", "data": {"language": "xx"}}\n',
            "language must be auto or the code of a language",
        ),
        (
            b'{"type": "transcribe", "data": {"language": {}}}\n',
            "language must be auto or the code of a language",
        ),
        (b'{"type": "' + b"x" * 140_000, "may have 65536 bytes"),
        (b'{"type": "ping", "data": {"a": ' + b"[" * 5000 + b"}\n", "more than 4096 values"),
    ],
)
def test_a_wrong_event_gets_an_error_and_closes_the_connection(
    api_server: ApiServer, data: bytes, message: str
) -> None:
    with raw(api_server, data) as sock:
        answer = received(sock)
    header, _, rest = answer.partition(b"\n")
    assert json.loads(header)["type"] == "error", answer
    assert message in json.loads(rest)["text"]


def test_streams_are_shared_with_the_other_protocols(api_server: ApiServer) -> None:
    with client(api_server) as one, client(api_server) as two:
        for other in (one, two):
            other.setup()
            other.receive()

        async def conversation(wyoming: AsyncTcpClient) -> None:
            await send_audio(wyoming, bytes(STEP), stop=False)
            event = await wyoming.read_event()
            assert event is not None
            assert "all 2 streams" in Error.from_event(event).text
            assert await wyoming.read_event() is None  # closed, so that nobody waits for ever

        talk(api_server, conversation)
    assert api_server.metrics.refused.labels("streams")._value.get() == 1


def test_new_utterances_are_limited_per_address(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BURST", 2)
    monkeypatch.setattr(access, "NEW_PER_S", 1e-6)

    async def conversation(wyoming: AsyncTcpClient) -> None:
        for _ in range(2):
            await send_audio(wyoming, bytes(STEP))
            await receive_until(wyoming, "transcript-stop")
        await send_audio(wyoming, bytes(STEP))
        event = (await receive_until(wyoming, "error"))[-1]
        assert "too many new sessions" in Error.from_event(event).text

    talk(api_server, conversation)


def test_connections_are_limited_together_with_http(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "MAX_PER_ADDRESS", 3)
    held = [raw(api_server, b'{"type"') for _ in range(3)]
    with raw(api_server, b'{"type": "describe"}\n') as sock:
        assert received(sock) == b""
    for sock in held:
        sock.close()


def test_an_idle_client_and_one_that_stops_in_an_utterance_are_closed(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wyoming_server, "IDLE_S", 0.3)
    monkeypatch.setattr(wyoming_server, "CHUNK_S", 0.3)
    with raw(api_server, b'{"type": "describe"}\n') as idle:
        assert b"nothing was received" in received(idle)
    start = b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n'
    with raw(api_server, start) as halted:
        assert b"nothing was received" in received(halted)
    until(lambda: api_server.streams.count == 0, "its stream is free")


def test_a_client_that_never_stops_gets_its_transcript(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wyoming_server, "MAX_UTTERANCE_S", 1.0)

    async def conversation(wyoming: AsyncTcpClient) -> None:
        await send_audio(wyoming, bytes(50 * STEP), stop=False)
        assert text_of(await receive_until(wyoming, "transcript-stop")) == "all"

    talk(api_server, conversation)


def test_a_client_that_vanishes_frees_its_stream(api_server: ApiServer) -> None:
    async def conversation(wyoming: AsyncTcpClient) -> None:
        await send_audio(wyoming, bytes(50 * STEP), stop=False)

    for _ in range(5):
        talk(api_server, conversation)
    until(lambda: api_server.streams.count == 0, "its stream is free")


def test_stopping_the_server_sends_an_error() -> None:
    wyoming = WyomingAddress(ListenAddress("127.0.0.1", 0))
    with open_api_server(scripted_sessions(), wyoming=wyoming) as server:
        with raw(server, b'{"type": "describe"}\n') as sock:
            assert b'"info"' in sock.recv(4096)
            server.stop()
            assert b"edged is stopping" in received(sock)


def test_wyoming_can_be_served_without_http() -> None:
    wyoming = WyomingAddress(ListenAddress("127.0.0.1", 0))
    with open_api_server(scripted_sessions(), address=None, wyoming=wyoming) as server:
        assert server.url == ""
        with raw(server, b'{"type": "describe"}\n') as sock:
            assert b'"info"' in sock.recv(4096)


def test_a_wyoming_port_in_use_is_reported_and_http_is_served_all_the_same() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = ApiServer(
            ListenAddress("127.0.0.1", 0),
            AccessControl(None, Origins()),
            scripted_sessions(),
            2,
            wyoming=WyomingAddress(ListenAddress("127.0.0.1", port)),
        )
        server.start()
        with pytest.raises(PeerError, match=f"EDGED_WYOMING 127.0.0.1:{port} cannot be opened"):
            server.wait_open()
        assert requests.get(f"{server.url}/healthz", timeout=10).ok
        server.stop()


def test_random_events_do_not_affect_others(api_server: ApiServer) -> None:
    rng = random.Random(5)
    whole = (
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n'
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, '
        b'"payload_length": 8}\n12345678{"type": "audio-stop"}\n{"type": "describe"}\n'
    )
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with raw(api_server, bytes(data[: rng.randrange(len(data))])) as sock:
            sock.shutdown(socket.SHUT_WR)
            received(sock)
    until(lambda: api_server.streams.count == 0, "all streams are free")

    async def conversation(wyoming: AsyncTcpClient) -> None:
        await send_audio(wyoming, bytes(STEP))
        assert text_of(await receive_until(wyoming, "transcript-stop")) == "all"

    talk(api_server, conversation)
