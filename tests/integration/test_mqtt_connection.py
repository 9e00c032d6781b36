"""How a connection comes about, what refuses it, and what is said about it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from edged.errors import PeerError
from edged.events import Text, Turn, Word
from edged.mqtt import link
from edged.mqtt.backoff import Backoff
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import Timing
from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.embedded_broker import EmbeddedBroker
from edged.mqtt.paho_client import PahoClient, make_client
from tests.support.mosquitto import Mosquitto, Subscriber, certificates, free_port, until
from tests.support.mqtt_publisher import FAST, Rig, assert_gapless, words

pytestmark = pytest.mark.broker

KITCHEN: dict[str, Any] = {"username": "kitchen", "password": SecretStr("secret-kitchen")}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker with passwords, ACL and TLS."""
    with Mosquitto(tmp_path_factory.mktemp("guarded"), protected=True) as broker:
        yield broker


def tls(port: int, **more: Any) -> dict[str, Any]:
    return {
        "address": BrokerAddress("localhost", port, tls=True),
        "ca_file": certificates() / "ca.crt",
        **more,
    }


def test_every_connection_begins_with_online_then_info_then_states(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.publisher.state("mute", "off")
        rig.publisher.info({"version": "1"})
        rig.connected()
        rig.publish_words(0, 1)
        until(lambda: ear.on("text"), "a word")
        names = [h.topic.removeprefix("edged/kitchen/") for h in ear.heard]
        assert names[0] == "availability"
        assert set(names[1:3]) == {"info", "state/mute"}
        broker.stop()
        rig.was(ConnectionStatus.NETWORK)
        ear.heard.clear()
        rig.publisher.state("mute", "on")
        broker.start()
        until(lambda: [h.payload for h in ear.on("state/mute")][-1:] == [b"on"], "the newest")
        assert ear.on("availability")[-1].payload == b"online"
    with Mosquitto(tmp_path) as again, Subscriber(again.port) as late:
        until(lambda: late.on("state/mute"), "kept by the broker")
        assert late.on("state/mute")[0].retained


def test_small_packets_are_not_held_back_by_our_own_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word 10 ms behind a step took 36 ms in the median, until the broker's system had
    acknowledged the step (Nagle's algorithm, paho's default); 3 ms without."""
    made: list[PahoClient] = []

    def make(*args: Any, **more: Any) -> PahoClient:
        made.append(make_client(*args, **more))
        return made[-1]

    monkeypatch.setattr(link, "make_client", make)
    with Mosquitto(tmp_path) as broker, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        sock = made[0].socket()
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_only_the_last_value_of_a_state_is_published_and_only_when_it_changes(
    tmp_path: Path,
) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        for n in range(50):
            rig.publisher.state("health", {"n": n})
        rig.connected()
        until(lambda: ear.on("state/health"), "a state")
        assert [h.json()["n"] for h in ear.on("state/health")] == [49]
        rig.publisher.state("health", {"n": 49})
        rig.publisher.state("health", {"n": 50})
        until(lambda: len(ear.on("state/health")) == 2, "the change")
        time.sleep(0.1)
        assert [h.json()["n"] for h in ear.on("state/health")] == [49, 50]


def test_the_broker_says_offline_for_a_device_that_vanished(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        TcpRelay(broker.port) as relay,
    ):
        with Rig(tmp_path, relay.port) as rig:
            rig.connected()
            until(lambda: ear.on("availability"), "online")
            relay.cut()
            until(lambda: ear.on("availability")[-1].payload == b"offline", "the Will")
            assert ear.on("availability")[-1].qos == 1


def test_a_short_drop_does_not_show(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        TcpRelay(broker.port) as relay,
    ):
        with Rig(tmp_path, relay.port) as rig:
            rig.connected()
            until(lambda: ear.on("availability"), "online")
            relay.drop()
            until(lambda: len([s for s in rig.states if s.connected]) == 2, "connected again")
            time.sleep(1.3)  # the Will Delay is 1 s here
            assert {h.payload for h in ear.on("availability")} == {b"online"}


class TcpRelay:
    """A TCP relay that can drop its connections, or be cut."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.open: list[socket.socket] = []

    def __enter__(self) -> TcpRelay:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)  # or a blocked accept() takes one more
        self.server.close()
        self.drop()

    def drop(self) -> None:
        for end in self.open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def _accept(self) -> None:
        try:
            while True:
                here, _ = self.server.accept()
                there = socket.create_connection(("127.0.0.1", self.to))
                self.open += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()
        except OSError:
            pass

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def test_tls_with_user_and_password_works(guarded: Mosquitto, tmp_path: Path) -> None:
    with Rig(tmp_path, 0, **tls(guarded.tls_port), **KITCHEN) as rig:
        with Subscriber(guarded.port, ("edged/kitchen/#",), username="hub") as ear:
            rig.connected()
            rig.publish_words(0, 50)
            until(lambda: len(ear.events()) == 100, "all words")
            ear.publish("edged/kitchen/cmd/reload", "")
            until(lambda: rig.commands, "the command")


def test_wrong_credentials_are_told_apart_from_a_missing_broker(
    guarded: Mosquitto, tmp_path: Path
) -> None:
    wrong: dict[str, Any] = {"username": "kitchen", "password": SecretStr("wr0ng-s3cret")}
    with Rig(tmp_path, guarded.port, **wrong) as rig:
        state = rig.was(ConnectionStatus.AUTH)
        assert "as kitchen" in state.message
        assert rig.publisher.stats().auth_failed
        assert "wr0ng" not in repr((rig.states, rig.broker, rig.publisher.stats()))
    with Rig(tmp_path, free_port()) as rig:
        assert "no broker listens" in rig.was(ConnectionStatus.NETWORK).message
        assert not rig.publisher.stats().auth_failed
    with Rig(tmp_path, 1, address=BrokerAddress("no-such-host.invalid")) as rig:
        assert "no-such-host.invalid is not known" in rig.was(ConnectionStatus.NETWORK).message


def test_wrong_credentials_wait_up_to_a_minute_and_a_missing_broker_half_a_minute() -> None:
    refused, missing = Backoff(Timing()), Backoff(Timing())
    waits = [refused.wait_s(ConnectionStatus.AUTH) for _ in range(8)]
    assert 4 <= waits[0] <= 6
    assert all(48 <= w <= 72 for w in waits[4:])
    waits = [missing.wait_s(ConnectionStatus.NETWORK) for _ in range(8)]
    assert 0.8 <= waits[0] <= 1.2
    assert all(24 <= w <= 36 for w in waits[5:])


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"ca_file": certificates() / "otherca.crt"}, ConnectionStatus.TLS, "is not trusted"),
        (
            {"ca_file": Path("/no/such/ca.crt")},
            ConnectionStatus.CONFIG,
            "/no/such/ca.crt cannot be used",
        ),
        (
            {"ca_file": certificates() / "server.key"},
            ConnectionStatus.CONFIG,
            "server.key cannot be used",
        ),
    ],
)
def test_a_certificate_that_does_not_fit_is_said(
    guarded: Mosquitto, tmp_path: Path, settings: dict[str, Path], kind: ConnectionStatus, says: str
) -> None:
    with Rig(tmp_path, 0, **(tls(guarded.tls_port) | settings), **KITCHEN) as rig:
        assert says in rig.was(kind).message


def test_tls_to_a_plain_port_and_plain_to_a_tls_port_are_said(
    guarded: Mosquitto, tmp_path: Path
) -> None:
    with Rig(tmp_path, 0, **tls(guarded.port)) as rig:
        until(lambda: rig.states, "a state")
        assert "TLS" in rig.states[0].message
    with Rig(tmp_path, guarded.tls_port) as rig:
        assert "mqtts://" in rig.was(ConnectionStatus.NETWORK).message


def test_a_client_certificate_is_shown_and_its_absence_is_said(
    guarded: Mosquitto, tmp_path: Path
) -> None:
    own = {"cert_file": certificates() / "client.crt", "key_file": certificates() / "client.key"}
    with Rig(tmp_path, 0, **tls(guarded.mutual_port, **own)) as rig:
        rig.connected()
        rig.publish_words(0, 3)
        rig.drained()
        assert rig.publisher.stats().dropped.get("refused") is None
    with Rig(tmp_path, 0, **tls(guarded.mutual_port)) as rig:
        assert "refused our TLS certificate" in rig.was(ConnectionStatus.TLS).message


def test_an_unchecked_certificate_is_warned_of_at_each_start(
    guarded: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange: dict[str, Any] = {"ca_file": certificates() / "otherca.crt", "insecure": True}
    with Rig(tmp_path, 0, **(tls(guarded.tls_port) | strange), **KITCHEN) as rig:
        rig.connected()
    assert "certificate is not checked" in caplog.text


def test_a_refused_publish_is_counted_said_once_and_not_sent_again(
    guarded: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hall: dict[str, Any] = {
        "device": "hall",
        "username": "hall",
        "password": SecretStr("secret-hall"),
    }
    with Subscriber(guarded.port, ("edged/hall/#",), username="hub") as ear:
        with Rig(tmp_path, guarded.port, **hall) as rig:
            rig.connected()
            for n in range(3):
                rig.publisher.event(Turn(f"turn {n}", 0, 1))
                rig.publisher.event(Text(f"word{n}", 0))
            rig.drained()
            until(lambda: len(ear.on("text")) == 3 and ear.on("error"), "all that is allowed")
            assert rig.publisher.stats().dropped["refused"] == 3
            assert not ear.on("turn")
            assert [h.json()["message"] for h in ear.on("error")] == [
                "the broker refuses edged/hall/turn: not authorized"
            ]
            assert "refuses edged/hall/turn" in rig.states[-1].message
    assert caplog.text.count("the broker refuses") == 2  # the reason, and the state that shows it


def test_a_message_larger_than_the_broker_takes_is_dropped_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    """Sent, it would make the broker hang up, and be sent again, for ever: seen with paho alone."""
    with (
        Mosquitto(tmp_path, options="max_packet_size 4000") as broker,
        Subscriber(broker.port) as ear,
    ):
        with Rig(tmp_path, broker.port) as rig:
            rig.connected()
            rig.publisher.event(Turn("a", 0, 1, tuple(Word("word", 0, 1) for _ in range(200))))
            rig.publish_words(0, 2)
            until(lambda: ear.on("error"), "an error says so")
            assert (
                "too large for the broker (at most 4000 bytes)"
                in ear.on("error")[0].json()["message"]
            )
            assert words(ear.events()) == ["word0", "word1"]
            assert rig.publisher.stats().dropped["too_large"] == 1
            assert len([s for s in rig.states if s.connected]) == 1, "never disconnected"


def test_a_message_over_which_an_old_broker_hangs_up_is_found_and_given_up(
    tmp_path: Path,
) -> None:
    """MQTT 3.1.1 cannot say which size it takes, nor which message it minds."""
    with (
        Mosquitto(tmp_path, options="max_packet_size 4000") as broker,
        Subscriber(broker.port) as ear,
    ):
        with Rig(tmp_path, broker.port, protocol=4) as rig:
            rig.connected()
            rig.publish_words(0, 5)
            rig.publisher.event(Turn("a", 0, 1, tuple(Word("word", 0, 1) for _ in range(200))))
            rig.publish_words(5, 10)
            until(lambda: ear.on("error"), "an error says so", 15)
            assert "for edged/kitchen/turn was dropped" in ear.on("error")[0].json()["message"]
            assert set(words(ear.events())) == {f"word{n}" for n in range(10)}
            assert rig.publisher.stats().dropped["poison"] == 1


def test_mqtt_311_is_spoken_to_brokers_that_know_nothing_else(tmp_path: Path) -> None:
    """amqtt is one: it never answers MQTT 5. Others refuse it by name, or hang up."""
    broker = EmbeddedBroker(free_port())
    broker.start()
    try:
        quick = replace(FAST, connect_s=0.3)
        with Rig(tmp_path, 0, timing=quick, address=broker.address) as rig:
            assert "MQTT 3.1.1" in rig.was(ConnectionStatus.CONNECTED).message
            rig.publish_words(0, 20)
            rig.drained()
    finally:
        broker.stop()


@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00", b""])
def test_a_broker_that_refuses_mqtt_5_is_asked_again_with_311(
    tmp_path: Path, answer: bytes
) -> None:
    """A stub, for mosquitto 2.0 cannot be told to refuse: 3.1.1's refusal, 5's own, a hang-up."""
    with stub(lambda level: answer if level == 5 else b"\x20\x02\x00\x00") as (port, levels):
        with Rig(tmp_path, port) as rig:
            assert "MQTT 3.1.1" in rig.was(ConnectionStatus.CONNECTED).message
    assert levels[0] == 5
    assert [level for level in levels if level > 0][-1] == 4


def test_no_more_is_under_way_than_the_broker_takes(tmp_path: Path) -> None:
    """paho alone resends its whole queue at once after a reconnection; this broker takes five."""
    for limit, expected in (
        (b"\x20\x06\x00\x00\x03\x21\x00\x05", 5),
        (b"\x20\x03\x00\x00\x00", 16),
    ):
        with stub(lambda _, limit=limit: limit) as (port, levels):
            with Rig(
                tmp_path, port, timing=replace(FAST, keepalive_timeout_s=60, ack_timeout_s=60)
            ) as rig:
                rig.connected()
                rig.publish_words(0, 100)
                time.sleep(0.3)
                assert levels.count(-3) == expected
                rig.publisher.stop(0.5)


@contextmanager
def stub(connack):  # type: ignore[no-untyped-def]
    """A broker that only answers CONNECT, with `connack(level)`; each PUBLISH counts as -3."""
    seen: list[int] = []

    def serve(end: socket.socket) -> None:
        data = bytearray()
        with end:
            while chunk := _received(end):
                data += chunk
                while (size := _packet_size(data)) and len(data) >= size:
                    packet = bytes(data[:size])
                    del data[:size]
                    if packet[0] == 0x10:
                        level = packet[packet.index(b"MQTT") + 4]
                        seen.append(level)
                        answer = connack(level)
                        if not answer:
                            return
                        end.sendall(answer)
                    elif packet[0] & 0xF0 == 0x30:
                        seen.append(-3)

    def accept() -> None:
        while True:
            try:
                end, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(end,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], seen


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _packet_size(data: bytes | bytearray) -> int:
    """The whole size of the packet that begins here, 0 while it is not known."""
    length, shift = 0, 0
    for n, byte in enumerate(data[1:5], 2):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return n + length
    return 0


def test_two_devices_share_a_broker(guarded: Mosquitto, tmp_path: Path) -> None:
    hall: dict[str, Any] = {
        "device": "hall",
        "username": "hall",
        "password": SecretStr("secret-hall"),
    }
    with Subscriber(guarded.port, ("edged/#",), username="hub") as ear:
        with (
            Rig(tmp_path / "a", guarded.port, **KITCHEN) as one,
            Rig(tmp_path / "b", guarded.port, **hall) as two,
        ):
            one.connected().publish_words(0, 20)
            two.connected().publish_words(0, 20)
            until(lambda: len(ear.events()) >= 80, "both heard")
            ear.publish("edged/hall/cmd/mute", "on")
            until(lambda: two.commands, "the command reaches the hall")
            assert not one.commands


def test_two_devices_of_one_name_are_reported(tmp_path: Path) -> None:
    """They throw each other out in turn: the commonest fault of cloned cards."""
    with Mosquitto(tmp_path) as broker, Rig(tmp_path / "a", broker.port) as one:
        one.connected()
        with Rig(tmp_path / "b", broker.port):
            assert "its own EDGED_DEVICE" in one.was(ConnectionStatus.DUPLICATE).message


def test_a_change_of_broker_loses_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "1") as old, Mosquitto(tmp_path / "2") as new:
        with (
            Subscriber(old.port) as before,
            Subscriber(new.port) as after,
            Rig(tmp_path, old.port) as rig,
        ):
            rig.connected()
            rig.publish_words(0, 100)
            rig.publisher.reconfigure(
                replace(rig.broker, address=BrokerAddress("127.0.0.1", new.port))
            )
            rig.publish_words(100, 200)
            until(lambda: words(after.events())[-1:] == ["word199"], "the last word")
            until(lambda: before.on("availability")[-1].payload == b"offline", "offline there")
            heard = before.events() + after.events()
            assert_gapless(heard)
            assert set(words(heard)) == {f"word{n}" for n in range(200)}


def test_new_credentials_are_taken_at_once(guarded: Mosquitto, tmp_path: Path) -> None:
    slow = replace(FAST, retry_refused=(60, 60))
    wrong: dict[str, Any] = {"username": "kitchen", "password": SecretStr("wrong")}
    with Rig(tmp_path, guarded.port, timing=slow, **wrong) as rig:
        rig.was(ConnectionStatus.AUTH)
        rig.publisher.reconfigure(replace(rig.broker, password=KITCHEN["password"]))
        rig.connected()


def test_a_fault_in_a_callback_of_the_daemon_does_not_end_the_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        rig = Rig(tmp_path, broker.port)
        rig.states = None  # type: ignore[assignment]
        with rig:
            rig.publish_words(0, 5)
            until(lambda: len(words(ear.events())) == 5, "all words")
    assert "the daemon's on_status failed" in caplog.text


def test_a_link_that_dies_of_a_bug_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paho's own thread ends silently on an exception in a callback, and nothing reconnects."""
    from edged.mqtt.link import Link

    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        with monkeypatch.context() as patch:
            patch.setattr(Link, "_publish_queued", lambda *_: 1 / 0)
            rig.publish_words(0, 5)
            rig.was(ConnectionStatus.PROTOCOL)
        rig.drained()
        until(lambda: set(words(ear.events())) == {f"word{n}" for n in range(5)}, "all words")


def test_the_embedded_broker_names_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PeerError, match=f"cannot listen at 127.0.0.1:{port}"):
            EmbeddedBroker(port).start()


def test_no_password_is_ever_logged(
    guarded: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Rig(tmp_path, guarded.port, **KITCHEN) as rig:
        rig.connected()
    assert "secret-kitchen" not in caplog.text + repr(rig.broker)
