"""Subscribes to a broker and shows what its devices recognise, for `edged listen`.

In a terminal finished turns scroll by above a live part: who speaks, the words as they come, and
three bars with the inactivity probabilities. In a pipe there is one line for each turn and each
change of state; with --json each message is one JSON line with `device` and `topic` added.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from paho.mqtt.client import Client, MQTTMessage
from rich.console import Console

from edged.cli.listen_view import JsonLines, ListenView, LiveView, PlainLines
from edged.errors import PeerError
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connection_failure import describe_failure
from edged.mqtt.paho_client import connect, make_client

KEEPALIVE_S = 30
CONNECT_S = 5.0
MAX_MESSAGE_BYTES = 1024 * 1024  # of a packet; edged itself sends at most 256 KiB
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
    """Shows the messages of `device`, or of all devices, until Ctrl-C or `stop` is set.

    Reconnects by itself. `broker.device` is not used. Raises PeerError if the broker refuses the
    user name or password.
    """
    with _view(console, as_json) as view:
        ListenClient(broker, device, view).run(stop or threading.Event())


def _view(console: Console, as_json: bool) -> ListenView:
    if as_json:
        return JsonLines(console)
    return LiveView(console) if console.is_terminal else PlainLines(console)


class ListenClient:
    """An MQTT 3.1.1 client that only subscribes and leaves no session at the broker."""

    def __init__(self, broker: BrokerSettings, device: str, view: ListenView) -> None:
        self._broker = broker
        self._device = device
        self._view = view
        self._refused: str | None = None

    def run(self, stop: threading.Event) -> None:
        broker = self._broker
        client = make_client(
            broker, 4, "", connect_timeout_s=CONNECT_S, max_incoming=MAX_MESSAGE_BYTES
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._view.notice(f"connecting to {broker.address}")
        wait_s: float = RETRY_S[0]
        while not stop.is_set():
            try:
                connect(client, broker, KEEPALIVE_S)
                wait_s = RETRY_S[0]
                _loop_until(stop, client.loop)
                client.disconnect()
            except OSError as problem:
                self._view.notice(f"{describe_failure(broker, problem)[1]}; trying again")
            if self._refused:
                raise PeerError(
                    f"the broker {broker.address} refused the connection: {self._refused}"
                )
            stop.wait(wait_s)
            wait_s = min(wait_s * 2, RETRY_S[1])

    def _on_connect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            if str(reason) in WRONG_LOGIN:
                self._refused = str(reason).lower()
            return
        self._view.notice("connected")
        client.subscribe(f"{self._broker.base}/{self._device}/#", 0)

    def _on_disconnect(self, client: Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure and not self._refused:
            self._view.notice("the connection was lost; trying again")

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        found = split_topic(message.topic, self._broker.base)
        if found and not found[1].startswith("cmd/") and found[1] != "event":
            self._view.message(*found, decode(bytes(message.payload)))


def _loop_until(stop: threading.Event, loop: Callable[[float], int]) -> None:
    """Runs the client's loop until the connection is lost or `stop` is set."""
    while not stop.is_set() and loop(0.25) == 0:
        pass


def split_topic(topic: str, base: str) -> tuple[str, str] | None:
    """Splits `<base>/<device>/<name>` into (device, name). Returns None for any other topic."""
    device, _, name = topic.removeprefix(f"{base}/").partition("/")
    return (device, name) if topic.startswith(f"{base}/") and device and name else None


def decode(payload: bytes) -> Any:
    """Parses a payload as JSON; returns text if it is not JSON."""
    text = payload.decode("utf-8", errors="replace")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
