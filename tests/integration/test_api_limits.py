"""Bounds on what one client can use: memory, streams and time, with real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import requests
from websockets.exceptions import ConnectionClosed

from edged.server import (
    access,
    gradium_api,
    gradium_upload,
    http_context,
    routes,
    websocket_reader,
    websocket_writer,
)
from edged.server import gradium_websocket as socket_module
from edged.server.api_server import ApiServer
from tests.support.api_server import (
    ScriptedSession,
    client,
    open_api_server,
    scripted_sessions,
    silence,
)
from tests.support.mosquitto import until

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SETUP = b'{"type":"setup","input_format":"pcm"}'


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(access, "BURST", 1_000_000)
    with open_api_server(scripted_sessions(), microphone=True, set_mute=lambda _: None) as opened:
        yield opened


def raw(api_server: ApiServer, data: bytes, receive_bytes: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", int(api_server.url.rpartition(":")[2])))
    sock.sendall(data)
    return sock


def raw_websocket(
    api_server: ApiServer, path: bytes = b"/api/speech/asr", **options: int
) -> socket.socket:
    sock = raw(api_server, HANDSHAKE % path, **options)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert b" 101 " in head
    return sock


def frame(payload: bytes, opcode: int = 1, first_bits: int = 0x80, masked: bool = True) -> bytes:
    mask = 0x80 if masked else 0
    size = len(payload)
    short = size < 126
    length = bytes([mask | size]) if short else bytes([mask | 126]) + struct.pack(">H", size)
    return bytes([first_bits | opcode]) + length + bytes(4 if masked else 0) + payload


def everything(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 16):
            received += data
    sock.close()
    return received


def all_free(api_server: ApiServer) -> None:
    until(lambda: api_server.streams.count == 0, "all streams are free")


# -- time


def test_pings_do_not_keep_an_idle_socket_open(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ping restarted the wait, and `websockets` sends one every 20 s: such a client was never
    idle, and kept its stream for ever."""
    monkeypatch.setattr(socket_module, "SETUP_S", 0.5)
    monkeypatch.setattr(socket_module, "IDLE_S", 0.5)
    with (
        client(api_server, ping_interval=0.05) as silent,
        client(api_server, ping_interval=0.05) as idle,
    ):
        idle.setup()
        assert "no setup was received" in silent.receive_all(5)[-1]["message"]
        assert "nothing was received for" in idle.receive_all(5)[-1]["message"]
    all_free(api_server)


def test_a_client_that_waits_for_answers_is_not_idle(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audio may wait long for the microphone, which goes first. If the timeout was over at the same
    moment as the last event, an error followed `end_of_stream`."""
    monkeypatch.setattr(socket_module, "IDLE_S", 0.2)
    free = threading.Event()
    push = ScriptedSession.push

    def slow(self: ScriptedSession, frame: object, backlog: bool = False) -> object:
        free.wait(10)
        return push(self, frame, backlog)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedSession, "push", slow)
    with client(api_server) as c:
        c.setup()
        c.audio(silence(3))
        c.send(type="end_of_stream")
        time.sleep(1)
        free.set()
        assert c.receive_all()[-1]["type"] == "end_of_stream"


def test_a_client_that_waits_for_the_last_turn_is_not_idle(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work in progress counted as done: if the timeout was over while the last turn was decoded
    again, the client got the error that nothing was received."""
    monkeypatch.setattr(socket_module, "IDLE_S", 0.2)
    end = ScriptedSession.end

    def slow(self: ScriptedSession) -> object:
        time.sleep(1)
        return end(self)

    monkeypatch.setattr(ScriptedSession, "end", slow)
    with client(api_server) as c:
        c.setup()
        c.audio(silence(3))
        c.send(type="end_of_stream")
        assert c.receive_all()[-1]["type"] == "end_of_stream"


def test_a_client_that_is_held_back_is_not_dropped(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp's heartbeat dropped it: the pong waits behind audio that is not read yet."""
    monkeypatch.setattr(websocket_reader, "HEARTBEAT_S", 0.2)
    push = ScriptedSession.push

    def slow(self: ScriptedSession, frame: object, backlog: bool = False) -> object:
        time.sleep(0.005)
        return push(self, frame, backlog)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedSession, "push", slow)
    with client(api_server) as c:
        c.setup()
        for _ in range(6):
            c.audio(silence(100))
        c.send(type="end_of_stream")
        received = c.receive_all(60)
    assert received[-1]["type"] == "end_of_stream"
    assert c.types()["step"] == 600


def test_a_half_open_subscriber_is_detected_by_ping(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_reader, "HEARTBEAT_S", 0.3)
    with raw_websocket(api_server, b"/api/events"):  # and never a pong
        until(lambda: api_server.subscribers, "it has subscribed")
        until(lambda: not api_server.subscribers, "it is gone")


def test_a_half_closed_socket_frees_its_stream(api_server: ApiServer) -> None:
    with raw_websocket(api_server) as sock:
        sock.sendall(frame(SETUP))
        until(lambda: api_server.streams.count == 1, "its stream")
        sock.shutdown(socket.SHUT_WR)
        all_free(api_server)


def test_a_mute_without_its_body_is_answered(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_S", 0.3)
    head = b"POST /api/mute HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nConnection: close\r\n\r\n"
    with raw(api_server, head) as sock:
        assert b"400 Bad Request" in sock.recv(4096)


# -- memory


def test_errors_for_a_client_that_does_not_read_are_bounded(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request kept the socket open, and each wrong message of another one was answered with an
    error that was never read, without end."""
    monkeypatch.setattr(websocket_writer, "MAX_UNSENT", 1 << 16)
    monkeypatch.setattr(websocket_writer, "SEND_S", 3.0)
    with raw_websocket(api_server, receive_bytes=4096) as sock:
        sock.sendall(frame(b'{"type":"setup","input_format":"pcm","client_req_id":"good"}'))
        until(lambda: api_server.streams.count == 1, "its stream")
        (connection,) = api_server.gradium.connections  # type: ignore[union-attr]
        wrong = frame(b'{"type":"audio","audio":"?","client_req_id":"%s"}' % (b"x" * 200))
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                sock.sendall(wrong * 100)
        assert connection.writer.unsent < 2 * websocket_writer.MAX_UNSENT
        all_free(api_server)  # a client that neither reads nor writes is dropped


@pytest.mark.parametrize("kind", ["flush", "end_of_stream"])
def test_small_messages_in_a_row_are_bounded(
    api_server: ApiServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a step took long, only audio was counted, and the end not at all."""
    monkeypatch.setattr("edged.server.stream.MAX_WAITING", 1 << 16)
    free = threading.Event()
    monkeypatch.setattr(ScriptedSession, "push", lambda *_: free.wait(20) and [])
    with raw_websocket(api_server) as sock:
        sock.sendall(frame(SETUP) + frame(b'{"type":"audio","audio":"%s"}' % (b"A" * 5120)))
        (stream,) = until(lambda: api_server.streams.streams, "its stream")
        message = frame(b'{"type":"%s","flush_id":1}' % kind.encode())
        sock.settimeout(1)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                sock.sendall(message * 100)
        assert stream.queued < 300
        free.set()
    all_free(api_server)


def test_flushes_for_a_client_that_does_not_read_are_bounded(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_writer, "MAX_UNSENT", 1 << 16)
    monkeypatch.setattr(websocket_writer, "SEND_S", 3.0)
    flush = frame(b'{"type":"flush","flush_id":"%s"}' % (b"x" * 200))
    with raw_websocket(api_server, receive_bytes=4096) as sock:
        sock.sendall(frame(SETUP))
        until(lambda: api_server.streams.count == 1, "its stream")
        (stream,) = api_server.streams.streams
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                sock.sendall(flush * 100)
        assert stream.queued < 10_000
        all_free(api_server)


def test_an_upload_whose_answer_is_not_read_frees_its_stream(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for ever, and kept its stream."""
    monkeypatch.setattr(gradium_upload, "SEND_S", 0.5)
    monkeypatch.setattr(ScriptedSession, "word", "w" * 100_000)
    body = silence(200)
    head = b"POST /api/post/speech/asr?input_format=pcm HTTP/1.1\r\nHost: x\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    with raw(api_server, head + body, receive_bytes=4096):
        until(lambda: api_server.streams.count == 1, "its stream")
        all_free(api_server)


def test_waiting_lines_hold_an_upload_back_and_none_is_lost(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradium_upload, "MAX_LINES", 10)
    answer = requests.post(
        f"{api_server.url}/api/post/speech/asr?input_format=pcm", data=silence(300), timeout=30
    )
    words = [json.loads(line) for line in answer.text.splitlines()]
    assert [m["text"] for m in words if m["type"] == "text"] == [f"w{n}" for n in range(300)]


def test_more_sockets_than_streams_are_bounded(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_context, "SPARE_SOCKETS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(client(api_server)).setup(retry_for_s=30)
        with client(api_server) as c:
            (error,) = c.receive_all(5)
            assert error["message"] == "too many sockets are open: try again later"
            assert error["code"] == 1011


def test_a_message_that_is_too_large_gets_an_error(api_server: ApiServer) -> None:
    with client(api_server) as c:
        c.setup()
        c.receive()
        with contextlib.suppress(ConnectionClosed):
            c.socket.send("x" * (websocket_reader.MAX_MESSAGE + 1))
        assert c.receive_all()[-1]["message"] == "a message may have 4 MB at most"
        assert c.close_code == 1009


def test_sixty_large_messages_at_once_take_bounded_memory(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets beyond the limit are refused before they can send anything."""
    monkeypatch.setattr(gradium_api, "MAX_REFUSED", 60)  # all of them
    process, before = psutil.Process(), psutil.Process().memory_info().rss
    part = bytes([0x01, 0xFF]) + struct.pack(">Q", websocket_reader.MAX_MESSAGE - 1) + bytes(4)
    part += b"x" * (websocket_reader.MAX_MESSAGE - 1000)
    socks = []
    for _ in range(60):
        sock = raw_websocket(api_server)
        with contextlib.suppress(ConnectionError):
            sock.sendall(part)
        socks.append(sock)
    most = (2 + http_context.SPARE_SOCKETS) * 2 * websocket_reader.MAX_MESSAGE
    assert process.memory_info().rss - before < most + 50e6
    for sock in socks:
        sock.close()


# -- frames


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(b"\xff\xfe"), b"text frames must be UTF-8"),
        (frame(b"{}", opcode=3), b"not a valid WebSocket frame"),
        (frame(b"{}", first_bits=0xC0), b"not a valid WebSocket frame"),
        (frame(b"{}", opcode=0), b"not a valid WebSocket frame"),
        (frame(b"x" * 126, opcode=9), b"not a valid WebSocket frame"),
        (frame(b"{", first_bits=0) + frame(b"{"), b"not a valid WebSocket frame"),
        (bytes([0x81, 0xFF]) + b"\xff" * 8 + bytes(4), b"1008"),
        (frame(b"x" * 10, opcode=2), b"messages are JSON in text frames"),
        (frame(b"{}"), b"type must be setup"),
    ],
)
def test_an_invalid_frame_gets_an_error_and_closes_the_socket(
    api_server: ApiServer, data: bytes, words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_reader, "CLOSE_S", 0.2)
    monkeypatch.setattr(websocket_reader, "LINGER_S", 0.2)
    with raw_websocket(api_server) as sock:
        sock.sendall(data)
        assert words in everything(sock)


def test_a_message_in_many_fragments_is_one_message(api_server: ApiServer) -> None:
    with raw_websocket(api_server) as sock:
        sock.sendall(frame(SETUP[:1], first_bits=0))
        for at in range(1, len(SETUP)):
            sock.sendall(frame(b"", opcode=9) + frame(SETUP[at : at + 1], 0, first_bits=0))
        sock.sendall(frame(b"", opcode=0))
        received = b""
        while b'"ready"' not in received:
            received += sock.recv(4096)


def test_a_client_is_read_while_it_waits_for_a_free_stream(api_server: ApiServer) -> None:
    """The socket was not read until there was a stream: another request on it had to wait for up
    to a minute, and a client that had gone was still waiting."""
    with client(api_server) as a, client(api_server) as b:
        a.setup(client_req_id="first", close_ws_on_eos=False)
        b.setup()
        until(lambda: api_server.streams.count == 2, "both streams are taken")
        a.setup(client_req_id="second", retry_for_s=30, close_ws_on_eos=False)
        a.audio(silence(2), client_req_id="second")
        a.send(type="flush", flush_id=1, client_req_id="second")
        a.send(type="end_of_stream", client_req_id="second")
        a.audio(silence(3), client_req_id="first")
        a.send(type="flush", flush_id=2, client_req_id="first")
        assert a.receive_until("flushed")["flush_id"] == 2
        with client(api_server) as gone:
            gone.setup(retry_for_s=30)
        b.send(type="end_of_stream")
        assert a.receive_until("ready")["client_req_id"] == "second"
        assert a.receive_until("flushed")["flush_id"] == 1
        assert a.receive_until("end_of_stream")["client_req_id"] == "second"
        until(
            lambda: api_server.gradium and len(api_server.gradium.connections) == 1,
            "b and gone are gone",
        )
    all_free(api_server)


def test_waiting_for_a_free_stream_is_bounded_in_size_and_time(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_module, "MAX_EARLY", 10_000)
    with client(api_server) as a, client(api_server) as b, client(api_server, max_queue=None) as c:
        for taken in (a, b):
            taken.setup()
            taken.receive()
        c.setup(retry_for_s=1.0)
        for _ in range(20):
            c.audio(silence(1))
        (error,) = c.receive_all()
        assert "all 2 streams of this device are in use" in error["message"]
        assert api_server.metrics.refused.labels("streams")._value.get() == 1  # and not one a retry
        assert error["code"] == c.close_code == 1011


def test_random_frames_do_not_affect_others(api_server: ApiServer) -> None:
    rng = random.Random(3)
    whole = frame(SETUP) + frame(b'{"type":"audio","audio":"AAAA"}') + frame(b"", opcode=9)
    with client(api_server) as good:
        good.setup()
        good.receive()
        for n in range(300):
            data = bytearray(whole if n % 2 else os.urandom(rng.randrange(200)))
            for _ in range(rng.randrange(4)):
                if data:
                    data[rng.randrange(len(data))] = rng.randrange(256)
            with raw_websocket(api_server) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(bytes(data))
            if n % 50 == 0:
                good.audio(silence(1))
                good.receive_until("step")
        good.send(type="end_of_stream")
        assert good.receive_all()[-1]["type"] == "end_of_stream"
    all_free(api_server)


def test_a_flood_of_pings_whose_pongs_are_not_read_is_dropped(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_reader, "PONG_S", 0.5)
    with raw_websocket(api_server, receive_bytes=4096) as sock, client(api_server) as good:
        sock.settimeout(10)
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            for _ in range(100_000):
                sock.sendall(frame(b"x" * 125, opcode=9) * 100)
            raise AssertionError("it was never dropped")
        good.setup()
        assert good.receive()["type"] == "ready"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """A recogniser that does one step for each release."""
    allowed = threading.Semaphore(0)
    push = ScriptedSession.push

    def one(self: ScriptedSession, frame: object, backlog: bool = False) -> object:
        allowed.acquire(timeout=20)
        return push(self, frame, backlog)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedSession, "push", one)
    return allowed


def test_little_audio_is_buffered_for_a_slow_recogniser(
    api_server: ApiServer, steps: threading.Semaphore
) -> None:
    """A client's pings wait behind its audio, and the `websockets` library gives up after 20 s:
    with 107 s of audio in buffers, a device that processes twice real time lost the client."""
    with raw_websocket(api_server) as sock:
        sock.sendall(frame(SETUP))
        message = frame(b'{"type":"audio","audio":"%s"}' % (b"A" * 5120))
        sock.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 8 << 20:
                sent += sock.send(message)
        steps.release(1000)
    assert sent / 5120 * 0.08 < 10 + 30  # s: what may wait, and what is in buffers


def test_pings_behind_audio_are_answered_as_soon_as_some_of_it_is_processed(
    api_server: ApiServer, steps: threading.Semaphore
) -> None:
    """Half of the waiting audio had to be processed before more was read."""
    with client(api_server, max_queue=None) as c:  # a pong comes after words that wait
        c.setup()
        for _ in range(132):  # 10.5 s: more than may wait
            c.audio(silence(1))
        pong = c.socket.ping()
        assert not pong.wait(0.5)
        steps.release(30)
        assert pong.wait(10)
        steps.release(1000)
