"""A real mosquitto on loopback: TLS, passwords, ACL and persistence, on free ports.

`Mosquitto` is one broker that can be stopped, killed and started again on the same ports;
`Subscriber` keeps all it receives.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PASSWORDS = {"kitchen": "secret-kitchen", "hall": "secret-hall", "hub": "secret-hub"}
ACL = """
user kitchen
topic write edged/kitchen/#
topic read edged/kitchen/cmd/+
topic read homeassistant/status
topic write homeassistant/device/kitchen/config
user hall
topic write edged/hall/#
topic deny edged/hall/turn
topic read edged/hall/cmd/+
user hub
topic readwrite #
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
    """Waits for `true()`; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


@functools.cache
def certificates() -> Path:
    """A folder with ca.crt, server.crt/.key, client.crt/.key and the strange otherca.crt."""
    folder = Path(tempfile.mkdtemp(prefix="edged-test-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def run(*args: str, extensions: str = "") -> None:
        command = ["openssl", *args]
        if extensions:
            (folder / "ext").write_text(extensions)
            command += ["-extfile", "ext"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for ca in ("ca", "otherca"):
        authority = ("-addext", "basicConstraints=critical,CA:TRUE")
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        run("req", "-x509", *curve, "-days", "2", "-subj", f"/CN=edged test {ca}", *authority,
            *usage, "-keyout", f"{ca}.key", "-out", f"{ca}.crt")  # fmt: skip
    for name, common in (("server", "localhost"), ("client", "kitchen")):
        run("req", *curve, "-subj", f"/CN={common}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr")  # fmt: skip
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-out", f"{name}.crt",
            extensions="subjectAltName=DNS:localhost,IP:127.0.0.1\n"
            "extendedKeyUsage=serverAuth,clientAuth\n")  # fmt: skip
    return folder


class Mosquitto:
    """One broker. `port` is plain, `tls_port` TLS, `mutual_port` TLS with a client certificate.

    `options` are lines for the whole broker, such as `max_packet_size 4096`; `listener_options`
    are lines for the plain listener, such as `max_qos 0`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: str = "",
        listener_options: str = "",
        protected: bool = False,
    ) -> None:
        self.folder = folder
        self.port, self.tls_port, self.mutual_port = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        tls = certificates()
        secured = f"cafile {tls}/ca.crt\ncertfile {tls}/server.crt\nkeyfile {tls}/server.key\n"
        guard = "allow_anonymous true\n"
        if protected:
            guard = f"allow_anonymous false\npassword_file {folder}/passwd\nacl_file {folder}/acl\n"
            (folder / "passwd").touch(mode=0o600)
            for user, password in PASSWORDS.items():
                subprocess.run(
                    ["mosquitto_passwd", "-b", folder / "passwd", user, password],
                    check=True,
                    capture_output=True,
                )
            (folder / "acl").write_text(ACL)
            (folder / "acl").chmod(0o600)
        user = "root" if os.getuid() == 0 else os.environ.get("USER", "mosquitto")
        (folder / "mosquitto.conf").write_text(
            f"user {user}\nper_listener_settings false\n{guard}"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 100000\n"
            f"{options}\n"
            f"listener {self.port} 127.0.0.1\n{listener_options}\n"
            f"listener {self.tls_port} 127.0.0.1\n{secured}"
            f"listener {self.mutual_port} 127.0.0.1\n{secured}"
            "require_certificate true\nuse_identity_as_username true\n"
        )

    def start(self) -> Mosquitto:
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-v", "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        until(self._listens, f"mosquitto listens: {(self.folder / 'log').read_text()[-500:]}")
        return self

    def stop(self) -> None:
        """Its database is saved."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def freeze(self, frozen: bool) -> None:
        """Like a network that swallows everything: the connection stays, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(19 if frozen else 18)

    def __enter__(self) -> Mosquitto:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(18)
        self.stop()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass(frozen=True)
class ReceivedMessage:
    topic: str
    payload: bytes
    retained: bool
    qos: int
    properties: Any
    at: float  # monotonic seconds

    def json(self) -> Any:
        return json.loads(self.payload)


@dataclass
class Subscriber:
    """A subscriber that keeps all it receives, with a session that outlives the broker's restarts.

    Each has a client id of its own: one with the id of an earlier one would inherit its session and
    its topics.
    """

    port: int
    topics: tuple[str, ...] = ("#",)
    username: str | None = None
    heard: list[ReceivedMessage] = field(default_factory=list)

    def __enter__(self) -> Subscriber:
        self.ready = threading.Event()
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"subscriber-{uuid.uuid4().hex}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.on_connect = lambda c, *_: c.subscribe([(t, 1) for t in self.topics])
        client.on_subscribe = lambda *_: self.ready.set()
        client.on_message = self._hear
        client.reconnect_delay_set(1, 1)
        if self.username:
            client.username_pw_set(self.username, PASSWORDS[self.username])
        asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", self.port, 30, clean_start=False, properties=asked)
        client.loop_start()
        self.client = client
        assert self.ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def on(self, ending: str) -> list[ReceivedMessage]:
        """What came on the topics that end so, in order."""
        return [h for h in list(self.heard) if h.topic.endswith(f"/{ending}")]

    def events(self) -> list[Any]:
        """All numbered messages, in order."""
        names = ("text", "end_text", "turn", "flushed", "error", "end_of_stream")
        return [
            h.json()
            for h in list(self.heard)
            if h.topic.split("/")[-1] in names and h.topic.startswith("edged/")
        ]

    def publish(self, topic: str, payload: str | bytes, retain: bool = False, **more: Any) -> None:
        properties = None
        if more:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in more.items():
                setattr(properties, name, value)
        info = self.client.publish(topic, payload, 1, retain, properties)
        info.wait_for_publish(5)

    def _hear(self, _: Client, __: Any, message: MQTTMessage) -> None:
        self.heard.append(
            ReceivedMessage(
                message.topic,
                bytes(message.payload),
                message.retain,
                message.qos,
                message.properties,
                time.monotonic(),
            )
        )
