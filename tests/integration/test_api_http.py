"""The rest of the door: upload, health, metrics, the microphone's events, keys, pages, abuse."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from edged import __version__
from edged.events import Step, Text
from edged.server import (
    access,
    gradium_upload,
    routes,
    streams,
    websocket_incoming,
    websocket_outgoing,
)
from edged.server import api_server as api_server_module
from edged.server import gradium_websocket as socket_module
from edged.server.access import Origins
from edged.server.api_server import Address, ApiServer
from tests.support.api_fuzz import hostile_message
from tests.support.api_server import (
    Scripted,
    as_wav,
    client,
    open_api_server,
    scripted_source,
    silence,
    socket_url,
)
from tests.support.mosquitto import until

SPEECH = Path(__file__).parents[2] / "models" / "samples" / "good-influence.flac"
KEY = "correct horse"


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "Session", Scripted)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit on new sessions."""
    monkeypatch.setattr(access, "BURST", 1_000_000)


@pytest.fixture
def api_server(many: None) -> Iterator[ApiServer]:
    with open_api_server(scripted_source(), microphone=True) as opened:
        yield opened


def post(api_server: ApiServer, data: object, **given: object) -> requests.Response:
    url = f"{api_server.url}/api/post/speech/asr"
    return requests.post(url, data=data, timeout=30, **given)  # type: ignore[arg-type]


def healthz(api_server: ApiServer) -> requests.Response:
    return requests.get(f"{api_server.url}/healthz", timeout=10)


def lines(answer: requests.Response) -> list[dict]:
    return [json.loads(line) for line in answer.text.splitlines()]


# -- upload


def test_a_whole_file_goes_in_and_its_words_come_out_as_lines(api_server: ApiServer) -> None:
    answer = post(api_server, as_wav(SPEECH))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    heard = lines(answer)
    assert {m["type"] for m in heard} == {"text", "end_text"}
    assert [m["text"] for m in heard if m["type"] == "text"] == [f"w{n}" for n in range(57)]


def test_the_format_of_an_upload_comes_from_its_type_or_the_query(api_server: ApiServer) -> None:
    for given in (
        {"headers": {"Content-Type": "audio/pcm"}},
        {"params": {"input_format": "pcm"}},
        {"params": {"input_format": "pcm"}, "headers": {"Content-Type": "audio/ogg"}},
    ):
        assert len(lines(post(api_server, silence(3), **given))) == 6
    given = {"params": {"input_format": "pcm", "json_config": '{"turns": true}'}}
    assert lines(post(api_server, silence(1), **given))[-1]["type"] == "turn"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "error from server 1008: the audio is not WAV"),
        ({"input_format": "mp3"}, "error from server 1008: input_format must be one of"),
        ({"Content-Type": "audio/mpeg"}, "1008: Content-Type must be one of audio/wav, audio/pcm"),
        ({"input_format": "pcm", "model": "x"}, "error from server 1008: model_name must be"),
        ({"input_format": "pcm", "json_config": "{"}, "1008: json_config is not valid JSON"),
    ],
)
def test_what_is_wrong_before_the_first_line_is_a_500_in_plain_text(
    api_server: ApiServer, params: dict, words: str
) -> None:
    headers = {key: params[key] for key in params if key == "Content-Type"}
    answer = post(api_server, silence(1), params=params if not headers else {}, headers=headers)
    assert answer.status_code == 500
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert words in answer.text
    until(lambda: api_server._streams.count == 0, "its stream is free")


def test_what_fails_in_the_middle_is_an_error_line(
    api_server: ApiServer, monkeypatch: object
) -> None:
    monkeypatch.setattr(Scripted, "fail_at", 2)  # type: ignore[attr-defined]

    def slowly() -> Iterator[bytes]:
        yield silence(2)
        time.sleep(0.5)
        yield silence(2)

    heard = lines(post(api_server, slowly(), params={"input_format": "pcm"}))
    assert [m["type"] for m in heard] == ["text", "end_text"] * 2 + ["error"]
    assert heard[-1]["code"] == 1011


def test_an_upload_that_stalls_or_breaks_off_frees_its_stream(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradium_upload, "READ_S", 0.5)
    head = b"POST /api/post/speech/asr?input_format=pcm HTTP/1.1\r\nHost: x\r\n"
    head += b"Content-Length: 9999\r\n\r\n"
    with _raw(api_server, head) as stalled:
        assert b"the body stalled" in stalled.recv(4096)
    with _raw(api_server, head):
        until(lambda: api_server._streams.count == 1, "an upload")
    until(lambda: api_server._streams.count == 0, "its stream is free")


# -- the state of things


def test_health_says_ok_or_what_is_wrong_and_needs_no_key(many: None) -> None:
    problems: list[str] = []
    with open_api_server(scripted_source(), api_key=KEY, problems=lambda: problems) as api_server:
        answer = requests.get(f"{api_server.url}/healthz", timeout=10)
        assert (answer.status_code, answer.text) == (200, "ok\n")
        problems.append("no sign of life from engine")
        answer = requests.get(f"{api_server.url}/healthz", timeout=10)
        assert (answer.status_code, answer.text) == (503, "no sign of life from engine\n")


def test_metrics_are_prometheus_text_with_counters_histogram_and_the_daemons_health(
    many: None,
) -> None:
    """Checked by the library's own parser: what promtool would find is found here."""
    health = {
        "lag_s": 0.16,
        "xruns": 3,
        "level_dbfs": None,
        "clipping": False,
        "rejected_by_reason": {"unsure": 2, "loop": 1},
        "rejected": 3,
    }
    with open_api_server(scripted_source(), health=lambda: health) as api_server:
        post(api_server, silence(40), params={"input_format": "pcm"})
        post(api_server, silence(5), params={"input_format": "mp3"})
        with client(api_server) as c:
            c.setup()
            c.audio(silence(1))
            c.say(type="flush", flush_id=1)
            c.until("flushed")
            answer = requests.get(f"{api_server.url}/metrics", timeout=10)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert found["edged_api_sessions_total", "post"] == 1
    assert found["edged_api_sessions_total", "socket"] == 1
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


def test_a_step_that_never_ends_is_a_problem_of_the_box(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STUCK_S", 0.2)
    free = threading.Event()
    monkeypatch.setattr(Scripted, "push", lambda *_: free.wait(20) and [])
    with client(api_server) as c:
        c.setup()
        c.audio(silence(1))
        until(
            lambda: "a step of a stream has not ended in" in healthz(api_server).text, "a problem"
        )
        assert healthz(api_server).status_code == 503
        free.set()
    until(lambda: healthz(api_server).ok, "no problem any more")


def test_the_microphones_events_can_be_followed_and_nothing_can_be_said(
    api_server: ApiServer,
) -> None:
    with client(api_server, "/api/events") as a, client(api_server, "/api/events") as b:
        assert a.hear()["type"] == b.hear()["type"] == "ready"
        api_server.heard([Text("hello", 1.0), Step(13)])
        for c in (a, b):
            assert c.hear() == {"type": "text", "text": "hello", "start_s": 1.0, "stream_id": 0}
            assert c.hear()["step_idx"] == 13
        a.say(type="setup")
        assert "read-only" in a.rest()[-1]["message"]
        api_server.heard([Text("again", 2.0)])
        assert b.hear()["text"] == "again"


def test_a_follower_that_does_not_keep_up_is_sent_away_and_not_given_gaps(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_outgoing, "MAX_UNSENT", 100_000)
    with client(api_server, "/api/events", max_queue=1) as slow:
        slow.hear()
        until(lambda: api_server._app and api_server._app.followers.count, "it follows")
        for number in range(200):
            api_server.heard([Text(f"{number} " + "x" * 100_000, 0.0)])
        until(lambda: api_server._app and not api_server._app.followers.count, "it was sent away")
        heard = slow.rest()
    numbers = [int(m["text"].split()[0]) for m in heard if m["type"] == "text"]
    assert numbers == list(range(len(numbers)))
    assert heard[-1]["message"] == "too slow to follow"


def test_without_a_microphone_there_is_nothing_to_follow() -> None:
    with open_api_server(scripted_source()) as api_server, pytest.raises(InvalidStatus) as caught:
        connect(socket_url(api_server, "/api/events"))
    assert caught.value.response.status_code == 404


def test_closing_the_api_server_tells_who_uploads(
    many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was told, and the door waited for the rest of the file until its time was over."""
    begun = threading.Event()
    push = Scripted.push

    def slow(self: Scripted, frame: object, backlog: bool = False) -> object:
        begun.set()
        time.sleep(0.02)
        return push(self, frame, backlog)  # type: ignore[arg-type]

    monkeypatch.setattr(Scripted, "push", slow)
    answers: list[str] = []
    with open_api_server(scripted_source()) as api_server:
        sender = threading.Thread(
            target=lambda: answers.append(
                post(api_server, silence(2000), params={"input_format": "pcm"}).text
            )
        )
        sender.start()
        begun.wait(20)
        api_server.stop(30)
        assert not api_server._thread.is_alive()
    sender.join(20)
    assert "edged is stopping" in answers[0].splitlines()[-1]


def test_an_upload_is_a_file_however_slowly_it_comes(api_server: ApiServer) -> None:
    """Its first second was taken for live speech if the network paused behind it."""

    def slowly() -> Iterator[bytes]:
        for _ in range(3):
            yield silence(5)
            time.sleep(0.3)

    post(api_server, slowly(), params={"input_format": "pcm"})
    assert api_server._metrics.step_seconds._sum.get() > 0
    assert api_server._metrics.answer_seconds._sum.get() == 0  # nobody waited for a live answer


# -- who may come in


def test_with_a_key_nobody_comes_in_without_it(many: None) -> None:
    with open_api_server(scripted_source(), api_key=KEY, microphone=True) as api_server:
        for headers in ({}, {"x-api-key": "wrong"}):
            with client(api_server, additional_headers=headers) as c:
                (error,) = c.rest()
                assert error["code"] == 1008
                assert "x-api-key" in error["message"]
            answer = post(api_server, b"", headers=headers)  # as in the cloud
            assert answer.status_code == 500
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
                assert c.hear()["type"] == "ready"
            assert requests.get(f"{api_server.url}/metrics", headers=good, timeout=9).ok
        with client(api_server, "/api/events?token=correct%20horse") as c:  # a browser
            assert c.hear()["type"] == "ready"


def test_keys_cannot_be_guessed_faster_than_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """They could, without end: sessions were counted, and who has no key begins none."""
    monkeypatch.setattr(access, "BURST", 3)
    monkeypatch.setattr(access, "NEW_PER_S", 1e-6)
    with open_api_server(scripted_source(), api_key=KEY) as api_server:
        right = {"x-api-key": KEY}
        assert (
            requests.get(f"{api_server.url}/metrics", headers=right, timeout=9).status_code == 200
        )
        for _ in range(3):
            assert requests.get(f"{api_server.url}/metrics", timeout=9).status_code == 401
        assert (
            requests.get(f"{api_server.url}/metrics", headers=right, timeout=9).status_code == 401
        )
        with client(api_server, additional_headers=right) as c:
            assert "too many wrong keys" in c.rest()[0]["message"]
        monkeypatch.setattr(access, "NEW_PER_S", 1e6)  # a while later
        assert (
            requests.get(f"{api_server.url}/metrics", headers=right, timeout=9).status_code == 200
        )


def test_a_foreign_page_may_not_connect_and_a_listed_one_may(many: None) -> None:
    listed = Origins(frozenset({"https://kiosk.example"}))
    with open_api_server(scripted_source(), origins=listed) as api_server:
        with pytest.raises(InvalidStatus) as caught:
            connect(socket_url(api_server), origin="https://evil.example")  # type: ignore[arg-type]
        assert caught.value.response.status_code == 403
        assert post(api_server, b"", headers={"Origin": "https://evil.example"}).status_code == 403
        for origin in ("https://kiosk.example", api_server.url):
            with client(api_server, origin=origin) as c:
                c.setup()
                assert c.hear()["type"] == "ready"


def test_too_many_new_sessions_are_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BURST", 3)
    monkeypatch.setattr(access, "NEW_PER_S", 0.001)
    with open_api_server(scripted_source()) as api_server:
        assert [post(api_server, b"").status_code for _ in range(4)] == [200, 200, 200, 500]
        assert "1008: too many new sessions" in post(api_server, b"").text
        with client(api_server) as c:
            c.setup()
            assert "too many new sessions" in c.rest()[0]["message"]


def test_the_api_server_speaks_tls_with_a_certificate(many: None) -> None:
    import ssl

    from tests.support.mosquitto import certificates

    folder = certificates()
    address = Address("127.0.0.1", 0, folder / "server.crt", folder / "server.key")
    with open_api_server(scripted_source(), address=address) as api_server:
        assert api_server.url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        trust.check_hostname = False
        with client(api_server, ssl=trust) as c:
            c.setup()
            assert c.hear()["type"] == "ready"


# -- abuse


def test_a_hundred_megabytes_in_one_message_close_that_socket_and_no_memory_is_kept(
    api_server: ApiServer,
) -> None:
    process = psutil.Process()
    with client(api_server) as good, client(api_server) as c:
        good.setup()
        good.hear()
        before = process.memory_info().rss
        huge = "x" * 100_000_000
        after_huge = process.memory_info().rss - before
        with contextlib.suppress(ConnectionClosed):
            c.socket.send(huge)
        c.rest()
        assert c.close_code in (1009, 1006)  # too big; or cut before it could be said
        assert process.memory_info().rss - before - after_huge < 300e6  # the client's own copy
        good.audio(silence(1))
        good.until("step")


def test_slow_loris_are_cut_and_others_served(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server_module, "REQUEST_S", 1.0)
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
    monkeypatch.setattr(api_server_module, "MAX_CONNECTIONS", 10)
    held = [_raw(api_server, b"") for _ in range(10)]
    until(lambda: b"503" in _all(_raw(api_server, _GET)), "one too many is told so")
    for sock in held:
        sock.close()
    until(lambda: b"200 OK" in _all(_raw(api_server, _GET)), "it serves again")
    metrics = requests.get(f"{api_server.url}/metrics", timeout=10).text
    (refused,) = re.findall(r'edged_api_refused_total{why="connections"} (\S+)', metrics)
    assert float(refused) >= 1


def test_a_socket_without_setup_and_an_idle_one_are_closed(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_module, "SETUP_S", 0.3)
    monkeypatch.setattr(socket_module, "IDLE_S", 0.5)
    with client(api_server) as silent, client(api_server) as idle:
        idle.setup()
        assert "no setup was received" in silent.rest()[-1]["message"]
        assert "nothing was received" in idle.rest()[-1]["message"]
        assert idle.close_code == 1008


def test_a_half_open_socket_is_found_by_ping_and_its_stream_freed(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_incoming, "HEARTBEAT_S", 0.4)
    key = (
        b"GET /api/speech/asr HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    )
    key += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    text = b'{"type":"setup","input_format":"pcm"}'
    frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
    with _raw(api_server, key + frame):  # and never a pong
        until(lambda: api_server._streams.count == 1, "its stream")
        until(lambda: api_server._streams.count == 0, "its stream is free", 20)


def test_hostile_messages_over_real_sockets_leave_others_unharmed(api_server: ApiServer) -> None:
    """1500 here, on as many connections as they cost; 50 000 with `make door-bench`, and through
    the parser in test_door_messages.py."""
    rng = random.Random(7)
    with client(api_server) as good:
        good.setup()
        good.hear()
        sent = 0
        while sent < 1500:
            gone = contextlib.suppress(ConnectionClosed, TimeoutError)
            with client(api_server) as c, gone:
                if rng.random() < 0.7:
                    c.setup(client_req_id="a", close_ws_on_eos=False)
                for _ in range(rng.randrange(1, 30)):
                    c.socket.send(hostile_message(rng))
                    sent += 1
                c.say(type="flush", flush_id="last", client_req_id="a")
                c.hear(1)
            if rng.random() < 0.2:
                good.audio(silence(1))
                good.until("step")
        good.say(type="end_of_stream")
        good.rest()
        assert good.close_code == 1000
    until(lambda: api_server._streams.count == 0, "all streams are free")


@pytest.mark.parametrize("noise", [b"\0" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 100])
def test_what_is_not_http_is_answered_or_cut(api_server: ApiServer, noise: bytes) -> None:
    with _raw(api_server, noise) as sock, contextlib.suppress(ConnectionError):
        sock.shutdown(socket.SHUT_WR)
        _all(sock)
    assert requests.get(f"{api_server.url}/healthz", timeout=10).ok


# -- the port


def test_a_port_that_is_taken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server_module, "RETRY_S", (0.1,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        late = ApiServer(
            Address("127.0.0.1", port), routes.Access(None, Origins()), scripted_source(), 2
        )
        late.start()
        with pytest.raises(
            api_server_module.PeerError, match=rf"EDGED_LISTEN 127.0.0.1:{port} cannot"
        ):
            late.wait_open()
    until(lambda: late.url, "it opens when the port is free")
    assert requests.get(f"{late.url}/healthz", timeout=10).ok
    late.stop()
    assert not late._thread.is_alive()


def test_a_api_server_that_never_opened_can_be_closed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        stuck = ApiServer(address, routes.Access(None, Origins()), scripted_source(), 2)
        stuck.start()
        stuck.stop()
        assert not stuck._thread.is_alive()


_GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def _raw(api_server: ApiServer, data: bytes) -> socket.socket:
    sock = socket.create_connection(
        ("127.0.0.1", int(api_server.url.rpartition(":")[2])), timeout=10
    )
    sock.sendall(data)
    return sock


def _all(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(4096):
            received += data
    sock.close()
    return received
