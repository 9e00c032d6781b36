"""The broker kit: a box writes its own tree alone, over TLS, and nothing is lost by a restart."""

from __future__ import annotations

import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.deployed_broker import DeployedBroker
from tests.support.mosquitto import until


class Peer:
    """A client over TLS that notes what it hears and what became of what it published."""

    def __init__(
        self, broker: DeployedBroker, user: str, password: str | None = None, clean: bool = True
    ) -> None:
        self.heard: list[tuple[str, str]] = []
        self.refused: list[str] = []
        self.connected: list[str] = []
        version = CallbackAPIVersion.VERSION2
        self.client = Client(version, user, protocol=MQTTProtocolVersion.MQTTv311,
                             clean_session=clean)  # fmt: skip
        self.client.tls_set(str(broker.certs / "ca.crt"))
        self.client.username_pw_set(user, password or broker.passwords[user])
        self.client.on_connect = lambda *a: self.connected.append(str(a[3]))
        self.client.on_message = lambda _, __, m: self.heard.append((m.topic, m.payload.decode()))
        self.client.connect("localhost", broker.port)
        self.client.loop_start()
        until(lambda: self.connected, "an answer to CONNECT")

    def listen(self, *topics: str) -> Peer:
        done = threading.Event()
        self.client.on_subscribe = lambda *_: done.set()
        self.client.subscribe([(topic, 1) for topic in topics])
        assert done.wait(10)
        return self

    def say(self, topic: str, text: str = "hello", retain: bool = False) -> None:
        self.client.publish(topic, text, 1, retain).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[DeployedBroker]:
    kit = DeployedBroker(tmp_path / "mosquitto")
    for user in ("kitchen", "hall", "homeassistant", "fleet"):
        kit.add_user(user)
    with kit:
        yield kit


def test_a_box_writes_its_own_tree_and_no_other(broker: DeployedBroker) -> None:
    home = Peer(broker, "homeassistant").listen("#")
    kitchen = Peer(broker, "kitchen")
    for topic in (
        "edged/hall/turn",
        "edged/hall/cmd/mute",
        "homeassistant/device/hall/config",
        "homeassistant/status",
        "zigbee2mqtt/lamp/set",
        "edged/kitchen/turn",
        "homeassistant/device/kitchen/config",
    ):
        kitchen.say(topic)
    until(lambda: len(home.heard) >= 2, "what was allowed")
    home.say("edged/kitchen/cmd/flush", "{}")  # after all of the above in the broker
    until(lambda: ("edged/kitchen/cmd/flush", "{}") in home.heard, "the last message")
    allowed = {"edged/kitchen/turn", "homeassistant/device/kitchen/config"}
    assert {topic for topic, _ in home.heard} - {"edged/kitchen/cmd/flush"} == allowed
    for peer in (home, kitchen):
        peer.close()


def test_a_box_hears_its_own_commands_and_no_other_box(broker: DeployedBroker) -> None:
    kitchen = Peer(broker, "kitchen").listen("#")
    home = Peer(broker, "homeassistant")
    for topic in ("edged/hall/cmd/mute", "edged/hall/turn", "edged/kitchen/cmd/mute"):
        home.say(topic)
    home.say("homeassistant/status", "online")
    until(lambda: len(kitchen.heard) >= 2, "command and birth message")
    assert {t for t, _ in kitchen.heard} == {"edged/kitchen/cmd/mute", "homeassistant/status"}
    for peer in (home, kitchen):
        peer.close()


def test_who_pushes_settings_sees_the_answers_but_not_what_is_said(broker: DeployedBroker) -> None:
    fleet = Peer(broker, "fleet").listen("edged/#")
    kitchen = Peer(broker, "kitchen")
    kitchen.say("edged/kitchen/turn", "secret")
    kitchen.say("edged/kitchen/state/config", '{"ok": true}')
    until(lambda: fleet.heard, "the answer")
    assert fleet.heard == [("edged/kitchen/state/config", '{"ok": true}')]
    for peer in (fleet, kitchen):
        peer.close()


def test_nobody_comes_in_without_a_password_or_with_a_wrong_one(broker: DeployedBroker) -> None:
    wrong = Peer(broker, "kitchen", "guess")
    assert wrong.connected[0] == "Not authorized"
    wrong.close()


def test_a_stranger_in_the_middle_is_noticed(broker: DeployedBroker, tmp_path: Path) -> None:
    other = DeployedBroker(tmp_path / "other")
    client = Client(CallbackAPIVersion.VERSION2)
    client.tls_set(str(other.certs / "ca.crt"))
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect("localhost", broker.port)


def test_what_waits_for_a_listener_survives_a_restart_of_the_broker(
    broker: DeployedBroker,
) -> None:
    home = Peer(broker, "homeassistant", clean=False).listen("edged/+/turn")
    home.close()
    kitchen = Peer(broker, "kitchen")
    kitchen.say("edged/kitchen/turn", "kept")
    kitchen.say("edged/kitchen/state/mute", "on", retain=True)
    kitchen.close()
    broker.stop()
    broker.start()
    home = Peer(broker, "homeassistant", clean=False)
    until(lambda: home.heard == [("edged/kitchen/turn", "kept")], "the turn")
    home.listen("edged/+/state/mute")
    until(lambda: ("edged/kitchen/state/mute", "on") in home.heard, "the retained state")
    home.close()


def test_certificates_are_checked_named_and_never_overwritten(tmp_path: Path) -> None:
    kit = DeployedBroker(tmp_path / "m")
    kit.certificates("device", "kitchen")
    made = kit.certs / "kitchen.crt"
    done = subprocess.run(
        ["openssl", "verify", "-purpose", "sslclient", "-CAfile", kit.certs / "ca.crt", made],
        capture_output=True,
        text=True,
    )
    assert "OK" in done.stdout
    assert stat.S_IMODE((kit.certs / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((kit.certs / "kitchen.key").stat().st_mode) == 0o640
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", kit.certs / "server.crt"],
        capture_output=True,
        text=True,
    ).stdout
    assert "DNS:localhost, IP Address:127.0.0.1" in text
    before = made.read_bytes()
    with pytest.raises(RuntimeError, match="exists: move it away first"):
        kit.certificates("device", "kitchen")
    assert made.read_bytes() == before
    with pytest.raises(RuntimeError, match="neither a host name nor an address"):
        kit.certificates("server", "hub.local,DNS:evil")


def test_a_user_gets_a_new_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    kit = DeployedBroker(tmp_path / "m")
    first = kit.add_user("kitchen")
    kit.add_user("hall")
    assert kit.add_user("kitchen") != first
    lines = (kit.folder / "edged.passwd").read_text().splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["hall", "kitchen"]
    assert not any(word in "".join(lines) for word in kit.passwords.values())
    with pytest.raises(RuntimeError, match="a name is 1 to 63"):
        kit.add_user("Kitchen Sink")
