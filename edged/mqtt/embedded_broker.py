"""The broker inside the daemon, for `EDGED_MQTT_URL=embedded`: amqtt on loopback, no passwords.

It is for trying edged without installing a broker. It speaks MQTT 3.1.1, keeps nothing on disk and
listens on this device only; a lasting installation should use mosquitto.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

from edged.errors import PeerError
from edged.logs import log_event, log_exception
from edged.mqtt.broker_address import BrokerAddress

_log = logging.getLogger(__name__)
_START_S = 10.0
PORT = 1883


class EmbeddedBroker:
    """One amqtt broker on its own thread. The constructor opens nothing.

    Connect with `BrokerSettings(broker.address, protocol=4)`: it never answers MQTT 5.
    """

    def __init__(self, port: int = PORT, host: str = "127.0.0.1") -> None:
        self.address = BrokerAddress(host, port)
        self._bind = f"{host}:{port}"
        self._stop: asyncio.Event | None = None
        self._running: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edged-broker", daemon=True)

    def start(self) -> None:
        """Starts the broker and waits until it listens.

        Raises PeerError if amqtt is not installed or the port is in use.
        """
        self._thread.start()
        if not self._started.wait(_START_S):
            raise PeerError(f"the embedded broker did not start within {_START_S:g} s")
        match self._failure:
            case None:
                message = f"the embedded broker listens at {self.address}"
                log_event(_log, logging.INFO, "embedded-broker", message)
            case ImportError():
                raise PeerError(
                    "EDGED_MQTT_URL=embedded needs the package amqtt, which only a checkout has: "
                    "install a broker (`apt install mosquitto`)"
                )
            case error:
                raise PeerError(
                    f"the embedded broker cannot listen at {self._bind}: {error}; "
                    "if a broker runs there already, set EDGED_MQTT_URL=mqtt://localhost"
                )

    def stop(self, timeout_s: float = 3) -> None:
        running, stop = self._running, self._stop
        if running is not None and stop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # its loop has just ended
                running.call_soon_threadsafe(stop.set)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = self._failure or error
            if self._started.is_set():
                log_exception(_log, "embedded-broker-failed", "the embedded broker failed")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        from amqtt.broker import Broker

        _quieten()
        self._running, self._stop = asyncio.get_running_loop(), asyncio.Event()
        broker = Broker(_config(self._bind))
        await broker.start()
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            await broker.shutdown()


def _config(bind: str) -> dict[str, Any]:
    return {
        "listeners": {"default": {"type": "tcp", "bind": bind}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }


def _quieten() -> None:
    """Silences its loggers: it logs each connection, and each lost one as an error."""
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
