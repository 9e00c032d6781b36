"""`edged listen`: what the boxes of a broker hear, live.

On a terminal finished turns scroll by above a live part: who speaks, the words as they come, the
three inactivity bars. In a pipe one line for each turn and each change of state; with `as_json`
every message as one JSON line with `device` and `topic` added.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from rich.console import Console

from edged.cli.listen_view import Devices, JsonLines, PlainLines, TerminalView, View
from edged.errors import PeerError
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connect_errors import explain
from edged.mqtt.tls import tls_context

KEEPALIVE_S = 30
RETRY_S = (1, 15)
WRONG_LOGIN = ("Bad user name or password", "Not authorized")
EVERY_DEVICE = "+"


def listen(
    broker: BrokerSettings,
    console: Console,
    device: str = EVERY_DEVICE,
    as_json: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Shows what `device` (or every one) hears, until Ctrl-C or `stop`; reconnects by itself.

    `broker.device` is not used. Raises PeerError when the broker refuses the user or password.
    """
    with _view(console, as_json) as view:
        Listener(broker, device, view).run(stop or threading.Event())


def _view(console: Console, as_json: bool) -> View:
    if as_json:
        return JsonLines(console)
    return TerminalView(console, Devices()) if console.is_terminal else PlainLines(console)


class Listener:
    """One MQTT 3.1.1 client that only subscribes: any broker will do, and nothing is left there."""

    def __init__(self, broker: BrokerSettings, device: str, view: View) -> None:
        self._broker = broker
        self._device = device
        self._view = view
        self._refused: str | None = None

    def run(self, stop: threading.Event) -> None:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        broker = self._broker
        if broker.username is not None:
            password = broker.password.get_secret_value() if broker.password else None
            client.username_pw_set(broker.username, password)
        if broker.address.tls:
            client.tls_set_context(tls_context(broker))
            client.tls_insecure_set(broker.insecure)
        host, port = broker.address.host, broker.address.port
        self._view.note(f"connecting to {host}:{port}")
        wait_s: float = RETRY_S[0]
        while not stop.is_set():
            try:
                client.connect(host, port, KEEPALIVE_S)
                wait_s = RETRY_S[0]
                _until(stop, client.loop)
                client.disconnect()
            except OSError as problem:
                self._view.note(f"{explain(broker, problem)[1]}; trying again")
            if self._refused:
                raise PeerError(f"the broker {host}:{port} refused us: {self._refused}")
            stop.wait(wait_s)
            wait_s = min(wait_s * 2, RETRY_S[1])

    def _on_connect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            if str(reason) in WRONG_LOGIN:
                self._refused = str(reason).lower()
            return
        self._view.note("connected")
        client.subscribe(f"{self._broker.base}/{self._device}/#", 0)

    def _on_disconnect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure and not self._refused:
            self._view.note("the connection was lost, trying again")

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        found = split_topic(message.topic, self._broker.base)
        if found and not found[1].startswith("cmd/") and found[1] != "event":
            self._view.message(*found, decoded(bytes(message.payload)))


def _until(stop: threading.Event, loop: Callable[[float], int]) -> None:
    """Turns the client's loop until it fails (the link is gone) or `stop`."""
    while not stop.is_set() and loop(0.25) == 0:
        pass


def split_topic(topic: str, base: str) -> tuple[str, str] | None:
    """`<base>/<device>/<name>` -> (device, name); None for anything else."""
    device, _, name = topic.removeprefix(f"{base}/").partition("/")
    return (device, name) if topic.startswith(f"{base}/") and device and name else None


def decoded(payload: bytes) -> Any:
    """JSON if it is JSON, else text."""
    text = payload.decode("utf-8", errors="replace")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
