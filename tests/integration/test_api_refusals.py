"""Clients that are refused: what they can use, and what they are logged."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edged.server import access, gradium_api, http_context, routes
from edged.server.access import Origins
from edged.server.api_server import ApiServer
from tests.support.api_server import client, open_api_server, scripted_sessions
from tests.support.mosquitto import until

KEY = "correct horse"
HANDSHAKE = (
    b"GET /api/speech/asr HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BURST", 1_000_000)


@pytest.fixture
def api_server() -> Iterator[ApiServer]:
    with open_api_server(scripted_sessions(), api_key=KEY) as opened:
        yield opened


def test_clients_without_the_key_do_not_keep_out_those_who_have_it(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets refused for a wrong key counted as open, each for the 5 s that its client had to
    close it, and 8 of 8 clients with the key got "too many sockets are open"."""
    monkeypatch.setattr(http_context, "SPARE_SOCKETS", 1)  # 3 sockets with the 2 streams
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            refused = stack.enter_context(unclosed(api_server))
        for _ in range(2):
            good = stack.enter_context(client(api_server, additional_headers={"x-api-key": KEY}))
            good.setup()
            assert good.receive()["type"] == "ready"
        assert b"the x-api-key is missing or wrong" in refused.recv(4096)


def test_most_refused_clients_get_an_http_error_instead_of_a_socket(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradium_api, "MAX_REFUSED", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(unclosed(api_server))
        with pytest.raises(InvalidStatus) as caught, client(api_server):
            pass
    assert caught.value.response.status_code == 401
    assert caught.value.response.body == b"the x-api-key is missing or wrong\n"
    until(
        lambda: api_server.gradium and not api_server.gradium.refused, "the unclosed ones are gone"
    )
    with client(api_server) as later:  # there is room again
        assert later.receive_all()[-1]["code"] == 1008


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[" * 200_000, {}),
        (b'{"mute": true}', {"Content-Encoding": "gzip"}),
        (b"\xff", {}),
        (b"{}", {}),
        (b"[]", {}),
        (b"", {}),
    ],
)
def test_a_wrong_mute_request_gets_400_and_the_right_form(
    body: bytes, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Deep nesting and a body that is not gzip were "a bug in edged", each with a traceback in the
    log."""
    with open_api_server(
        scripted_sessions(), microphone=True, set_mute=lambda _: None
    ) as api_server:
        answer = requests.post(f"{api_server.url}/api/mute", data=body, headers=headers, timeout=10)
    assert (answer.status_code, answer.text) == (400, 'the body must be {"mute": true} or false\n')
    assert not warnings_of(caplog)


def test_a_server_without_a_key_refuses_foreign_host_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A page whose name resolved to the device (DNS rebinding) could read /metrics. Under a name
    that the router gives, the captions page was loaded and then showed "No connection" for ever,
    with nothing in the log."""
    message = (
        "kitchen.fritz.box:8080 is not known as a name of this device: add "
        "http://kitchen.fritz.box:8080 to EDGED_LISTEN_ORIGINS, or use its IP address"
    )
    foreign = {"Host": "kitchen.fritz.box:8080"}
    page = {**foreign, "Origin": "http://kitchen.fritz.box:8080"}
    with open_api_server(scripted_sessions(), microphone=True) as api_server:
        for _ in range(2):
            for path in ("/metrics", "/kiosk/", "/"):
                answer = requests.get(f"{api_server.url}{path}", headers=foreign, timeout=10)
                assert (answer.status_code, answer.text) == (403, message + "\n")
        assert requests.get(f"{api_server.url}/healthz", headers=foreign, timeout=10).ok
        port = int(api_server.url.rpartition(":")[2])
        named = f"ws://kitchen.fritz.box:{port}/api/events"
        with connect(named, sock=socket.create_connection(("127.0.0.1", port))):
            pass  # not a browser, whose WebSocket would have an Origin
        answer = requests.get(f"{api_server.url}/metrics", headers=page, timeout=10)
        assert answer.text.startswith(
            "the page http://kitchen.fritz.box:8080 may not connect: EDGED"
        )
        for host in ("127.0.0.1:1", "localhost", "kitchen", socket.gethostname()):
            assert requests.get(f"{api_server.url}/metrics", headers={"Host": host}, timeout=10).ok
        for number in range(100):
            headers = {"Host": f"{number}.example"}
            assert (
                requests.get(f"{api_server.url}/", headers=headers, timeout=10).status_code == 403
            )
    logged = warnings_of(caplog)
    assert logged[0] == f"a request was refused: {message}"
    assert len(logged) == len(set(logged)) == routes.MAX_LOGGED

    listed = Origins(frozenset({"http://kitchen.fritz.box:8080"}))
    with open_api_server(scripted_sessions(), origins=listed) as api_server:
        for headers in (foreign, page):
            assert requests.get(f"{api_server.url}/metrics", headers=headers, timeout=10).ok


def test_clients_with_the_key_may_use_any_host_name(api_server: ApiServer) -> None:
    foreign = {"Host": "kitchen.example:8765"}
    right = {**foreign, "x-api-key": KEY}
    assert requests.get(f"{api_server.url}/metrics", headers=right, timeout=10).ok
    assert requests.get(f"{api_server.url}/metrics", headers=foreign, timeout=10).status_code == 401
    assert requests.get(f"{api_server.url}/kiosk/", headers=foreign, timeout=10).status_code == 403


@contextlib.contextmanager
def unclosed(api_server: ApiServer) -> Iterator[socket.socket]:
    """A socket without a key whose client never closes its half."""
    port = int(api_server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert b" 101 " in head
        yield sock
