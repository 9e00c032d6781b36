"""The broker's configuration: each user has its own rights, over TLS, and restarts lose nothing."""

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

from tests.support.deployed_broker import KIT, DeployedBroker
from tests.support.mosquitto import until

pytestmark = pytest.mark.broker


class Peer:
    """A client over TLS that keeps what it hears."""

    def __init__(
        self,
        broker: DeployedBroker,
        user: str,
        password: str | None = None,
        clean: bool = True,
        client_id: str | None = None,
    ) -> None:
        self.heard: list[tuple[str, str]] = []
        self.connected: list[str] = []
        self.lost: list[str] = []
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id or user,
            protocol=MQTTProtocolVersion.MQTTv311,
            clean_session=clean,
        )
        self.client.on_disconnect = lambda *a: self.lost.append(str(a[3]))
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

    def publish(self, topic: str, text: str = "hello", retain: bool = False) -> None:
        self.client.publish(topic, text, 1, retain).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[DeployedBroker]:
    kit = DeployedBroker(tmp_path / "mosquitto")
    for user in ("kitchen", "hall", "homeassistant", "fleet"):
        kit.add_user(user)
    kit.add_user("kitchen", kiosk=True)
    with kit:
        yield kit


OWN = ("text", "end_text", "turn", "flushed", "error", "end_of_stream", "step", "event", "info",
       "availability", "doctor", "state/mute", "state/config", "state/settings")  # fmt: skip
COMMANDS = ("cmd/mute", "cmd/flush", "cmd/config", "cmd/reload", "cmd/restart")
RESULTS = ("cmd/mute/result", "cmd/reload/result")
TOPICS = [
    *(f"edged/{d}/{n}" for d in ("kitchen", "hall", "new") for n in OWN + COMMANDS + RESULTS),
    *(f"edged/{u}/text" for u in ("kiosk-kitchen", "homeassistant", "fleet", "stranger")),
    *(f"homeassistant/device/{d}/config" for d in ("kitchen", "hall", "new", "kiosk-kitchen",
                                                   "fleet", "stranger")),
    "homeassistant/sensor/x/config", "homeassistant/status", "edged/kitchen", "edged",
    "zigbee2mqtt/lamp/set", "other/kitchen/text", "x/edged/kitchen/text",
]  # fmt: skip


def may_write(user: str, topic: str) -> bool:
    """The rules as README.md of this folder's kit tells them."""
    if user == "homeassistant":
        return topic.startswith("homeassistant/") or is_command(topic)
    if user == "fleet":
        return topic.startswith("edged/") and topic.endswith("/cmd/reload")
    if user == "kiosk-kitchen":
        return topic == "edged/kitchen/cmd/mute"
    if user in ("kitchen", "hall"):
        own = (f"edged/{user}", f"homeassistant/device/{user}/config")
        return topic in own or topic.startswith(f"edged/{user}/")
    return False


def may_read(user: str, topic: str) -> bool:
    if user == "homeassistant":
        return topic.startswith(("homeassistant/", "edged/")) or topic == "edged"
    if user == "fleet":
        ends = ("state/config", "availability", "info", "cmd/reload/result")
        return topic.startswith("edged/") and topic.split("/", 2)[-1] in ends
    if user == "kiosk-kitchen":
        name = topic.removeprefix("edged/kitchen/")
        return topic.startswith("edged/kitchen/") and not name.startswith("cmd/")
    if user in ("kitchen", "hall"):
        return may_write(user, topic) or topic == "homeassistant/status"
    return False


def is_command(topic: str) -> bool:
    levels = topic.split("/")
    return levels[0] == "edged" and len(levels) == 4 and levels[2] == "cmd"


USERS = ("kitchen", "hall", "homeassistant", "fleet", "kiosk-kitchen", "stranger")


@pytest.mark.parametrize("retain", [False, True])
def test_each_user_may_do_with_each_topic_what_is_meant_and_no_more(
    broker: DeployedBroker, retain: bool
) -> None:
    """`pattern` lines hold for every user: the captions page, whose password every visitor has,
    could announce devices to Home Assistant, and write below its own name."""
    broker.add_password("stranger")
    broker.add_password("admin")
    broker.allow("\nuser admin\ntopic readwrite #\n")
    broker.reload()
    admin = Peer(broker, "admin").listen("#")
    peers = {user: Peer(broker, user) for user in USERS}
    for user, peer in peers.items():
        for topic in TOPICS:
            peer.publish(topic, f"{user} {topic}", retain)
    admin.publish("end", "")
    until(lambda: ("end", "") in admin.heard, "the last message")
    written = {tuple(text.split(" ")) for topic, text in admin.heard if topic != "end"}
    wanted = {(user, t) for user in USERS for t in TOPICS if may_write(user, t)}
    assert written - wanted == set(), "may write too much"
    assert wanted - written == set(), "may write too little"

    if not retain:
        for peer in peers.values():
            peer.listen("#")
    for topic in TOPICS:
        admin.publish(topic, f"admin {topic}", retain)
    if retain:  # then who subscribes now gets it all
        for peer in peers.values():
            peer.listen("#")
    for user, peer in peers.items():
        wanted_topics = {t for t in TOPICS if may_read(user, t)}
        until(lambda: {t for t, _ in peer.heard} >= wanted_topics, f"{user} reads")  # noqa: B023
    admin.publish("edged/kitchen/availability", "last")
    until(lambda: ("edged/kitchen/availability", "last") in peers["fleet"].heard, "the last")
    for user, peer in peers.items():
        assert {t for t, _ in peer.heard} == {t for t in TOPICS if may_read(user, t)}, user
    for peer in (admin, *peers.values()):
        peer.close()


def test_with_the_user_name_as_client_id_nobody_takes_a_devices_place(tmp_path: Path) -> None:
    """Any user could connect with the client id of a device, and throw it off."""
    kit = DeployedBroker(tmp_path / "m", user_is_client_id=True)
    for user in ("kitchen", "hall"):
        kit.add_user(user)
    with kit:
        kitchen = Peer(kit, "kitchen", client_id="edged-kitchen")
        liar = Peer(kit, "hall", client_id="edged-kitchen")
        liar.close()
        liar = Peer(kit, "hall", client_id="kitchen")
        kitchen.publish("edged/kitchen/turn")
        assert kitchen.lost == []
        assert len(kitchen.connected) == 1
        for peer in (kitchen, liar):
            peer.close()


def test_rules_can_be_added_for_a_device_that_has_its_password(tmp_path: Path) -> None:
    """After an upgrade from rules with `pattern` lines, no device needs a new password."""
    kit = DeployedBroker(tmp_path / "m")
    password = kit.add_user("kitchen")
    (kit.folder / "edged.acl").write_text((KIT / "edged.acl").read_text())
    kit.add_rules("kitchen")
    kit.add_rules("kitchen")
    assert (kit.folder / "edged.acl").read_text().count("user kitchen\n") == 1
    with kit:
        kitchen = Peer(kit, "kitchen", password).listen("edged/kitchen/text")
        kitchen.publish("edged/kitchen/text")
        until(lambda: kitchen.heard, "its own text")
        kitchen.close()


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
    kitchen.publish("edged/kitchen/turn", "kept")
    kitchen.publish("edged/kitchen/state/mute", "on", retain=True)
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
    with pytest.raises(RuntimeError, match="a name has 1 to 63"):
        kit.add_user("Kitchen Sink")
