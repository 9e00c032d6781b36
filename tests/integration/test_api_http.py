"""HTTP paths of the API server: upload, health, metrics, events, keys, origins and abuse."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from edged import __version__
from edged.errors import PeerError
from edged.events import Step, Text
from edged.server import (
    access,
    connection_limits,
    gradium_upload,
    listener,
    silent_sockets,
    stream_pool,
    websocket_reader,
    websocket_writer,
)
from edged.server import api_server as api_server_module
from edged.server import gradium_websocket as socket_module
from edged.server.access import AccessControl, Origins
from edged.server.api_server import ApiServer
from edged.server.listener import ListenAddress
from tests.support.api_fuzz import hostile_message
from tests.support.api_server import (
    ScriptedSession,
    as_wav,
    client,
    open_api_server,
    scripted_sessions,
    silence,
    socket_url,
)
from tests.support.mosquitto import until

SPEECH = Path(__file__).parents[1] / "support" / "speech" / "good-influence.flac"
KEY = "correct horse"
LOOPBACK = ("127.0.0.1", "127.0.0.2")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit on new sessions."""
    monkeypatch.setattr(access, "BURST", 1_000_000)


@pytest.fixture
def api_server(many: None) -> Iterator[ApiServer]:
    with open_api_server(scripted_sessions(), microphone=True) as opened:
        yield opened


def post(api_server: ApiServer, data: object, **given: object) -> requests.Response:
    url = f"{api_server.url}/api/post/speech/asr"
    return requests.post(url, data=data, timeout=30, **given)  # type: ignore[arg-type]


def healthz(api_server: ApiServer) -> requests.Response:
    return requests.get(f"{api_server.url}/healthz", timeout=10)


def lines(answer: requests.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


# -- upload


def test_an_upload_returns_its_words_as_lines(api_server: ApiServer) -> None:
    answer = post(api_server, as_wav(SPEECH))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    received = lines(answer)
    assert {m["type"] for m in received} == {"text", "end_text"}
    assert [m["text"] for m in received if m["type"] == "text"] == [f"w{n}" for n in range(57)]


def test_the_format_of_an_upload_is_its_content_type_or_in_the_query(api_server: ApiServer) -> None:
    for given in (
        {"headers": {"Content-Type": "audio/pcm"}},
        {"params": {"input_format": "pcm"}},
        {"params": {"input_format": "pcm"}, "headers": {"Content-Type": "audio/ogg"}},
    ):
        assert len(lines(post(api_server, silence(3), **given))) == 6
    given = {"params": {"input_format": "pcm", "json_config": '{"turns": true}'}}
    assert lines(post(api_server, silence(1), **given))[-1]["type"] == "turn"


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({}, 400, "error from server 1008: the wav input cannot be decoded: it is not WAV"),
        ({"input_format": "mp3"}, 400, "error from server 1008: input_format must be one of"),
        ({"Content-Type": "audio/mpeg"}, 415, "1008: Content-Type must be one of audio/wav"),
        ({"input_format": "pcm", "model": "x"}, 400, "error from server 1008: model_name must be"),
        ({"input_format": "pcm", "json_config": "{"}, 400, "1008: json_config is not valid JSON"),
    ],
)
def test_a_fault_of_the_client_before_the_first_line_is_a_4xx_in_plain_text(
    api_server: ApiServer, params: dict[str, str], status: int, words: str
) -> None:
    headers = {key: params[key] for key in params if key == "Content-Type"}
    answer = post(api_server, silence(1), params=params if not headers else {}, headers=headers)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert words in answer.text
    until(lambda: api_server.streams.count == 0, "its stream is free")


def test_an_error_after_the_first_line_is_a_line(
    api_server: ApiServer, monkeypatch: object
) -> None:
    monkeypatch.setattr(ScriptedSession, "fail_at", 2)  # type: ignore[attr-defined]

    def slowly() -> Iterator[bytes]:
        yield silence(2)
        time.sleep(0.5)
        yield silence(2)

    received = lines(post(api_server, slowly(), params={"input_format": "pcm"}))
    assert [m["type"] for m in received] == ["text", "end_text"] * 2 + ["error"]
    assert received[-1]["code"] == 1011


def test_an_upload_that_stalls_or_breaks_off_frees_its_stream(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradium_upload, "READ_S", 0.5)
    head = b"POST /api/post/speech/asr?input_format=pcm HTTP/1.1\r\nHost: x\r\n"
    head += b"Content-Length: 9999\r\n\r\n"
    with _raw(api_server, head) as stalled:
        assert b"the body stalled" in stalled.recv(4096)
    with _raw(api_server, head):
        until(lambda: api_server.streams.count == 1, "an upload")
    until(lambda: api_server.streams.count == 0, "its stream is free")


# -- the state of things


def test_health_is_ok_or_lists_the_problems_and_needs_no_key(many: None) -> None:
    problems: list[str] = []
    with open_api_server(scripted_sessions(), api_key=KEY, problems=lambda: problems) as api_server:
        answer = requests.get(f"{api_server.url}/healthz", timeout=10)
        assert (answer.status_code, answer.text) == (200, "ok\n")
        problems.append("no sign of life from engine")
        answer = requests.get(f"{api_server.url}/healthz", timeout=10)
        assert (answer.status_code, answer.text) == (503, "no sign of life from engine\n")


def test_metrics_are_prometheus_text_with_counters_histogram_and_the_daemons_health(
    many: None,
) -> None:
    """Parsed by the library's own parser, which finds what promtool would."""
    health = {
        "lag_s": 0.16,
        "xruns": 3,
        "level_dbfs": None,
        "clipping": False,
        "rejected_by_reason": {"unsure": 2, "loop": 1},
        "rejected": 3,
    }
    with open_api_server(scripted_sessions(), health=lambda: health) as api_server:
        post(api_server, silence(40), params={"input_format": "pcm"})
        post(api_server, silence(5), params={"input_format": "mp3"})
        with client(api_server) as c:
            c.setup()
            c.audio(silence(1))
            c.send(type="flush", flush_id=1)
            c.receive_until("flushed")
            answer = requests.get(f"{api_server.url}/metrics", timeout=10)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert found["edged_api_sessions_total", "gradium_upload"] == 1
    assert found["edged_api_sessions_total", "gradium_websocket"] == 1
    assert found["edged_api_errors_total", "1008"] == 1
    assert found["edged_api_errors_total", "1011"] == 0
    assert found["edged_api_refused_total", "key"] == 0
    assert found["edged_api_step_seconds_count",] == 41
    assert found["edged_api_answer_seconds_count",] == 1  # of the file nobody waits for steps
    assert found["edged_api_flush_seconds_count",] == 1
    assert found["edged_api_streams",] == found["edged_api_sockets",] == 1
    assert found["edged_api_streams_max",] == 2
    assert found["edged_info", "tiny-en", __version__] == 1
    assert found["process_resident_memory_bytes",] > 10e6
    assert found["edged_lag_seconds",] == 0.16
    assert found["edged_xruns_total",] == 3
    assert found["edged_clipping",] == 0
    assert found["edged_rejected_texts_total", "unsure"] == 2
    assert not any("level" in name or name == "edged_rejected" for name, *_ in found)


def test_a_step_that_never_ends_is_a_health_problem(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_pool, "STUCK_S", 0.2)
    free = threading.Event()
    monkeypatch.setattr(ScriptedSession, "push", lambda *_: free.wait(20) and [])
    with client(api_server) as c:
        c.setup()
        c.audio(silence(1))
        until(
            lambda: "a step of a stream has not ended in" in healthz(api_server).text, "a problem"
        )
        assert healthz(api_server).status_code == 503
        free.set()
    until(lambda: healthz(api_server).ok, "no problem any more")


def test_the_microphones_events_can_be_received_and_nothing_can_be_sent(
    api_server: ApiServer,
) -> None:
    with client(api_server, "/api/events") as a, client(api_server, "/api/events") as b:
        assert a.receive()["type"] == b.receive()["type"] == "ready"
        api_server.publish_events([Text("hello", 1.0), Step(13)])
        for c in (a, b):
            assert c.receive() == {"type": "text", "text": "hello", "start_s": 1.0, "stream_id": 0}
            assert c.receive()["step_idx"] == 13
        a.send(type="setup")
        assert "read-only" in a.receive_all()[-1]["message"]
        api_server.publish_events([Text("again", 2.0)])
        assert b.receive()["text"] == "again"


def test_a_subscriber_that_reads_too_slowly_is_disconnected_without_a_gap(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_writer, "MAX_UNSENT", 100_000)
    with client(api_server, "/api/events", max_queue=1) as slow:
        slow.receive()
        until(lambda: api_server.subscribers, "it has subscribed")
        for number in range(200):
            api_server.publish_events([Text(f"{number} " + "x" * 100_000, 0.0)])
        until(lambda: not api_server.subscribers, "it was disconnected")
        received = slow.receive_all()
    numbers = [int(m["text"].split()[0]) for m in received if m["type"] == "text"]
    assert numbers == list(range(len(numbers)))
    assert received[-1]["message"] == "this client reads too slowly"


def test_without_a_microphone_there_are_no_events() -> None:
    with open_api_server(scripted_sessions()) as api_server, pytest.raises(InvalidStatus) as caught:
        connect(socket_url(api_server, "/api/events"))
    assert caught.value.response.status_code == 404


def test_stopping_the_server_ends_uploads_with_an_error(
    many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, and the server waited for the rest of the file until its time was over."""
    begun = threading.Event()
    push = ScriptedSession.push

    def slow(self: ScriptedSession, frame: object, backlog: bool = False) -> object:
        begun.set()
        time.sleep(0.02)
        return push(self, frame, backlog)  # type: ignore[arg-type]

    monkeypatch.setattr(ScriptedSession, "push", slow)
    answers: list[str] = []
    with open_api_server(scripted_sessions()) as api_server:
        sender = threading.Thread(
            target=lambda: answers.append(
                post(api_server, silence(2000), params={"input_format": "pcm"}).text
            )
        )
        sender.start()
        begun.wait(20)
        api_server.stop(30)
        assert not api_server.is_alive
    sender.join(20)
    assert "edged is stopping" in answers[0].splitlines()[-1]


def test_an_upload_is_a_file_however_slowly_it_arrives(api_server: ApiServer) -> None:
    """Its first second counted as live speech if the network paused after it."""

    def slowly() -> Iterator[bytes]:
        for _ in range(3):
            yield silence(5)
            time.sleep(0.3)

    post(api_server, slowly(), params={"input_format": "pcm"})
    assert api_server.metrics.step_seconds._sum.get() > 0
    assert api_server.metrics.answer_seconds._sum.get() == 0  # there was no live answer


# -- who may come in


def test_every_path_requires_the_key(many: None) -> None:
    with open_api_server(scripted_sessions(), api_key=KEY, microphone=True) as api_server:
        for headers in ({}, {"x-api-key": "wrong"}):
            with client(api_server, additional_headers=headers) as c:
                (error,) = c.receive_all()
                assert error["code"] == 1008
                assert "x-api-key" in error["message"]
            answer = post(api_server, b"", headers=headers)  # as in the cloud
            assert answer.status_code == 401
            assert answer.text == "error from server 1008: the x-api-key is missing or wrong\n"
            assert (
                requests.get(f"{api_server.url}/metrics", headers=headers, timeout=9).status_code
                == 401
            )
            with pytest.raises(InvalidStatus):
                connect(socket_url(api_server, "/api/events"), additional_headers=headers)
        for good in ({"x-api-key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            with client(api_server, additional_headers=good) as c:
                c.setup()
                assert c.receive()["type"] == "ready"
            assert requests.get(f"{api_server.url}/metrics", headers=good, timeout=9).ok
        with client(api_server, "/api/events?token=correct%20horse") as c:  # a browser
            assert c.receive()["type"] == "ready"


def test_keys_cannot_be_guessed_faster_than_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only sessions were limited, and a client without the right key begins none: it could guess
    without end."""
    monkeypatch.setattr(access, "BURST", 3)
    monkeypatch.setattr(access, "NEW_PER_S", 1e-6)
    with open_api_server(scripted_sessions(), api_key=KEY) as api_server:
        right = {"x-api-key": KEY}

        def status(key: str) -> int:
            url, headers = f"{api_server.url}/metrics", {"x-api-key": key}
            return requests.get(url, headers=headers, timeout=9).status_code

        assert status(KEY) == 200
        assert [status("wrong") for _ in range(4)] == [401, 401, 401, 429]
        assert status(KEY) == 429
        with client(api_server, additional_headers=right) as c:
            assert "too many wrong keys" in c.receive_all()[0]["message"]
        monkeypatch.setattr(access, "NEW_PER_S", 1e6)  # a while later
        assert status(KEY) == 200


def test_a_foreign_page_may_not_connect_and_a_listed_one_may(many: None) -> None:
    listed = Origins(frozenset({"https://kiosk.example"}))
    with open_api_server(scripted_sessions(), origins=listed) as api_server:
        with pytest.raises(InvalidStatus) as caught:
            connect(socket_url(api_server), origin="https://evil.example")  # type: ignore[arg-type]
        assert caught.value.response.status_code == 403
        assert post(api_server, b"", headers={"Origin": "https://evil.example"}).status_code == 403
        for origin in ("https://kiosk.example", api_server.url):
            with client(api_server, origin=origin) as c:
                c.setup()
                assert c.receive()["type"] == "ready"


def test_too_many_new_sessions_are_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BURST", 3)
    monkeypatch.setattr(access, "NEW_PER_S", 0.001)
    with open_api_server(scripted_sessions()) as api_server:
        assert [post(api_server, b"").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert "1008: too many new sessions" in post(api_server, b"").text
        with client(api_server) as c:
            c.setup()
            assert "too many new sessions" in c.receive_all()[0]["message"]


def test_with_a_certificate_the_server_speaks_tls(many: None) -> None:
    import ssl

    from tests.support.mosquitto import certificates

    folder = certificates()
    address = ListenAddress("127.0.0.1", 0, folder / "server.crt", folder / "server.key")
    with open_api_server(scripted_sessions(), address=address) as api_server:
        assert api_server.url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        trust.check_hostname = False
        with client(api_server, ssl=trust) as c:
            c.setup()
            assert c.receive()["type"] == "ready"


# -- abuse


def test_a_message_of_100_mb_closes_its_socket_and_leaves_no_memory(
    api_server: ApiServer,
) -> None:
    process = psutil.Process()
    with client(api_server) as good, client(api_server) as c:
        good.setup()
        good.receive()
        before = process.memory_info().rss
        huge = "x" * 100_000_000
        after_huge = process.memory_info().rss - before
        with contextlib.suppress(ConnectionClosed):
            c.socket.send(huge)
        c.receive_all()
        assert c.close_code in (1009, 1006)  # too big, or dropped before that could be sent
        assert process.memory_info().rss - before - after_huge < 300e6  # the client's own copy
        good.audio(silence(1))
        good.receive_until("step")


def test_slow_requests_are_dropped_and_others_served(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "REQUEST_S", 1.0)
    loris = [
        _raw(api_server, b"GET /api/speech/asr HTTP/1.1\r\nHost: x\r\nX-a: ") for _ in range(30)
    ]
    answered = _raw(api_server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal")
    assert requests.get(f"{api_server.url}/healthz", timeout=10).ok
    deadline = time.monotonic() + 20
    for sock in [*loris, answered]:
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(ConnectionError):
            while sock.recv(1000):
                pass
        sock.close()
    assert time.monotonic() < deadline


def test_connections_are_bounded(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 10)
    held = [_raw(api_server, b"GET /") for _ in range(10)]
    until(lambda: b"503" in _all(_raw(api_server, _METRICS)), "one too many gets 503")
    assert b"200 OK" in _all(_raw(api_server, _HEALTH))  # from the reserve
    for sock in held:
        sock.close()
    until(lambda: b"200 OK" in _all(_raw(api_server, _METRICS)), "it serves again")
    metrics = requests.get(f"{api_server.url}/metrics", timeout=10).text
    (refused,) = re.findall(r'edged_api_refused_total{reason="connections"} (\S+)', metrics)
    assert float(refused) >= 2


def test_one_address_cannot_take_all_connections(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 connections from one client shut out everybody, health checks included."""
    monkeypatch.setattr(connection_limits, "MAX_PER_ADDRESS", 5)
    held = [_raw(api_server, b"GET /") for _ in range(40)]
    until(lambda: b"503" in _all(_raw(api_server, _METRICS)), "its share is used up")
    for _ in range(20):
        assert b"200 OK" in _all(_raw(api_server, _HEALTH))
        assert b"200 OK" in _all(_raw(api_server, _METRICS, "127.0.0.2"))
    for sock in held:
        sock.close()


def test_silent_connections_are_bounded_and_keep_nobody_out(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_sockets, "MAX_SILENT_PER_ADDRESS", 5)
    monkeypatch.setattr(silent_sockets, "MAX_SILENT", 8)
    held = [_raw(api_server, b"", source) for _ in range(20) for source in LOOPBACK]
    for source in LOOPBACK:
        assert b"200 OK" in _all(_raw(api_server, _METRICS, source))
    for sock in held:
        sock.setblocking(False)

    def is_open(sock: socket.socket) -> bool:
        try:
            return sock.recv(1) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    until(lambda: sum(map(is_open, held)) <= 8, "only the newest are open")
    for sock in held:
        sock.close()


def test_a_connection_in_reserve_that_sends_nothing_is_closed(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 0)
    monkeypatch.setattr(listener, "HEALTH_CHECK_S", 0.1)
    assert _all(_raw(api_server, b"GET /heal")) == b""


def test_a_keep_alive_connection_that_is_used_is_not_idle(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a request that was being answered when the server looked, once a second, counted: a
    monitor that kept its connection lost it after 10 s, however often it asked."""
    monkeypatch.setattr(listener, "REQUEST_S", 1.5)
    port = int(api_server.url.rpartition(":")[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as kept:
        kept.connect()
        first = kept.sock
        for _ in range(12):
            kept.request("GET", "/healthz")
            assert kept.getresponse().read() == b"ok\n"
            time.sleep(0.3)
        assert kept.sock is first


def test_a_socket_without_setup_and_an_idle_one_are_closed(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_module, "SETUP_S", 0.3)
    monkeypatch.setattr(socket_module, "IDLE_S", 0.5)
    with client(api_server) as silent, client(api_server) as idle:
        idle.setup()
        assert "no setup was received" in silent.receive_all()[-1]["message"]
        assert "nothing was received" in idle.receive_all()[-1]["message"]
        assert idle.close_code == 1008


def test_a_half_open_socket_is_detected_by_ping_and_its_stream_freed(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_reader, "HEARTBEAT_S", 0.4)
    key = (
        b"GET /api/speech/asr HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    )
    key += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    text = b'{"type":"setup","input_format":"pcm"}'
    frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
    with _raw(api_server, key + frame):  # and never a pong
        until(lambda: api_server.streams.count == 1, "its stream")
        until(lambda: api_server.streams.count == 0, "its stream is free", 20)


def test_hostile_messages_do_not_affect_other_sockets(api_server: ApiServer) -> None:
    """1500 messages here; 50 000 with `make api-bench`, and in test_gradium_messages.py without
    sockets."""
    rng = random.Random(7)
    with client(api_server) as good:
        good.setup()
        good.receive()
        sent = 0
        while sent < 1500:
            gone = contextlib.suppress(ConnectionClosed, TimeoutError)
            with client(api_server) as c, gone:
                if rng.random() < 0.7:
                    c.setup(client_req_id="a", close_ws_on_eos=False)
                for _ in range(rng.randrange(1, 30)):
                    c.socket.send(hostile_message(rng))
                    sent += 1
                c.send(type="flush", flush_id="last", client_req_id="a")
                c.receive(1)
            if rng.random() < 0.2:
                good.audio(silence(1))
                good.receive_until("step")
        good.send(type="end_of_stream")
        good.receive_all()
        assert good.close_code == 1000
    until(lambda: api_server.streams.count == 0, "all streams are free")


@pytest.mark.parametrize("noise", [b"\0" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 100])
def test_bytes_that_are_not_http_are_answered_or_dropped(
    api_server: ApiServer, noise: bytes
) -> None:
    with _raw(api_server, noise) as sock, contextlib.suppress(ConnectionError):
        sock.shutdown(socket.SHUT_WR)
        _all(sock)
    assert requests.get(f"{api_server.url}/healthz", timeout=10).ok


# -- the port


def test_a_port_in_use_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server_module, "RETRY_S", (0.1,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        late = ApiServer(
            ListenAddress("127.0.0.1", port), AccessControl(None, Origins()), scripted_sessions(), 2
        )
        late.start()
        with pytest.raises(PeerError, match=rf"EDGED_LISTEN 127.0.0.1:{port} cannot"):
            late.wait_open()
    until(lambda: late.url, "it opens when the port is free")
    assert requests.get(f"{late.url}/healthz", timeout=10).ok
    late.stop()
    assert not late.is_alive


def test_a_server_that_never_opened_can_be_stopped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = ListenAddress("127.0.0.1", taken.getsockname()[1])
        stuck = ApiServer(address, AccessControl(None, Origins()), scripted_sessions(), 2)
        stuck.start()
        stuck.stop()
        assert not stuck.is_alive


_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def _raw(api_server: ApiServer, data: bytes, source: str = "127.0.0.1") -> socket.socket:
    port = int(api_server.url.rpartition(":")[2])
    sock = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
    with contextlib.suppress(ConnectionError):  # it may have been refused already
        sock.sendall(data)
    return sock


def _all(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(4096):
            received += data
    sock.close()
    return received
