"""The API server: a thread with one event loop that serves HTTP and WebSockets.

The microphone is never disturbed: recognition runs on worker threads that give way to it, and if
the port cannot be opened, it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edged.config.rules import is_loopback
from edged.errors import EdgedError, PeerError
from edged.events import Event
from edged.logs import log_event, log_exception
from edged.server.access import AccessControl
from edged.server.connection_limits import ConnectionLimits
from edged.server.gradium_api import GradiumApi
from edged.server.http_context import HttpContext
from edged.server.listener import REQUEST_S, ListenAddress, Listener
from edged.server.metrics import Metrics
from edged.server.openai_realtime import OpenAiRealtime
from edged.server.openai_transcriptions import OpenAiTranscriptions
from edged.server.routes import Routes
from edged.server.stream_pool import SessionProvider, StreamPool
from edged.server.subscribers import state_message

if TYPE_CHECKING:
    from edged.server.wyoming_server import WyomingServer
    from edged.server.zeroconf_announcement import ZeroconfAnnouncement

STOP_S = 1.0  # for answers that are being sent when the server stops
LAST_WORDS_S = 0.1  # for sending the last messages to WebSockets
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to open a port that is in use
_TICK_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WyomingAddress:
    """Where to serve Wyoming, and the name under which zeroconf announces it; None: it does not."""

    address: ListenAddress
    announced_name: str | None = None


@dataclass
class _ListeningPort:
    """One port: `setting` names it in messages, `scheme` is that of its URL."""

    setting: str
    scheme: str
    address: ListenAddress
    listener: Listener
    url: str = ""
    error: PeerError | None = None
    tried: bool = False

    def label(self) -> str:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"{host}:{self.listener.port}"


class ApiServer:
    """`start`, `stop` and the `publish_` methods may be called from any thread."""

    def __init__(
        self,
        address: ListenAddress | None,
        access: AccessControl,
        sessions: SessionProvider,
        max_streams: int,
        health: Callable[[], Mapping[str, Any]] = dict,
        problems: Callable[[], list[str]] = list,
        microphone: bool = False,
        set_mute: Callable[[bool], None] | None = None,
        wyoming: WyomingAddress | None = None,
    ) -> None:
        """Opens nothing yet.

        address: where to serve HTTP; None: not at all.
        health: the daemon's health, for `/metrics`.
        problems: what `/healthz` should report, as sentences.
        microphone: whether `publish_events` will be called with the microphone's events.
        set_mute: called on the server's thread when a client wants to mute or unmute.
        wyoming: where to serve Wyoming; None: not at all.
        """
        self.heartbeat = time.monotonic()
        self.url = ""  # of HTTP, once it is open
        self.wyoming_url = ""  # likewise
        self.metrics = Metrics()
        self.streams = StreamPool(sessions, max_streams, self.metrics)
        self.access = access
        self.gradium: GradiumApi | None = None  # once it is open
        self._address = address
        self._wyoming_address = wyoming
        self._wyoming: WyomingServer | None = None
        self._announcement: ZeroconfAnnouncement | None = None
        self._problems = problems
        self._health = health
        self._microphone = microphone
        self._set_mute = set_mute
        self._states: dict[str, str] = {}  # the latest `state` message of each name
        self._routes: Routes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_requested = False
        self._opened = threading.Event()
        self._error: EdgedError | None = None
        self._tls: ssl.SSLContext | None = None
        self._thread = threading.Thread(target=self._main, name="api", daemon=True)

    def start(self) -> None:
        """Starts the thread and returns at once: a port that is in use now may be free later.
        Raises ConfigError if the certificate cannot be used."""
        self._tls = self._address.tls() if self._address is not None else None
        self._thread.start()

    def wait_open(self, timeout_s: float = 10.0) -> str:
        """Waits until the server is open and returns its URL. Raises PeerError if the first
        attempt to open a port failed."""
        self._opened.wait(timeout_s)
        if self._error is not None or not (self.url or self.wyoming_url):
            raise self._error or PeerError("the API server could not be opened in time")
        return self.url or self.wyoming_url

    def stop(self, timeout_s: float = 3.0) -> None:
        """Sends every client an error, closes, and waits for that up to `timeout_s`."""
        self._stop_requested = True
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(stopping.set)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def subscribers(self) -> int:
        """The number of clients that receive the microphone's events."""
        return self._routes.subscribers.count if self._routes is not None else 0

    def publish_events(self, events: Sequence[Event]) -> None:
        """Sends the microphone's events to the subscribers. Never blocks."""
        if self._routes is not None:
            self._routes.subscribers.publish(events)

    def publish_state(self, name: str, value: Mapping[str, Any] | str) -> None:
        """Sends a state to the subscribers that want states, now and when they connect. Never
        blocks."""
        message = state_message(name, value)
        self._states = {**self._states, name: message}  # replaced: the event loop reads it
        if self._routes is not None:
            self._routes.subscribers.publish_state(message)

    # -- on the server's thread

    def _main(self) -> None:
        # A malformed request is answered; it is not worth a log line.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        try:
            asyncio.run(self._run())
        except Exception:
            log_exception(_log, "api-failed", "the API server failed")
        finally:
            self._opened.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_LoopErrors())
        self._stopping = asyncio.Event()
        context = HttpContext(self.access, self.streams, self.metrics)
        gradium = GradiumApi(context)
        routes = Routes(
            context,
            [gradium, OpenAiTranscriptions(context), OpenAiRealtime(context)],
            self._problems,
            self._microphone,
            lambda: list(self._states.values()),
            self._set_mute,
        )
        gauges = routes.gauges() | {
            "sockets": ("Open WebSockets for speech.", lambda: len(gradium.connections))
        }
        self.metrics.add_gauges(gauges, lambda: self.streams.main.name)
        self.metrics.add_health(self._health)
        runner = web.AppRunner(
            routes.application(),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=REQUEST_S,
            shutdown_timeout=STOP_S,
        )
        await runner.setup()
        self.streams.start()
        endpoints = self._endpoints(runner, routes, context)
        opening = [asyncio.create_task(self._open(e, endpoints)) for e in endpoints]
        self._routes, self.gradium = routes, gradium
        try:
            await self._serve(endpoints)
            for endpoint in endpoints:
                endpoint.listener.close()
            routes.stop()
            if self._wyoming is not None:
                self._wyoming.stop()
            await asyncio.sleep(LAST_WORDS_S)
        finally:
            for task in opening:
                task.cancel()
            self.streams.stop()
            if self._announcement is not None:
                await self._announcement.close()
            await runner.cleanup()

    def _endpoints(
        self, runner: web.AppRunner, routes: Routes, context: HttpContext
    ) -> list[_ListeningPort]:
        limits = ConnectionLimits()
        endpoints: list[_ListeningPort] = []
        if self._address is not None:
            assert runner.server is not None
            listener = Listener(
                self._address, runner.server, limits, self.metrics, self._tls, routes.health
            )
            scheme = "https" if self._tls else "http"
            endpoints.append(_ListeningPort("EDGED_LISTEN", scheme, self._address, listener))
        if self._wyoming_address is not None:
            from edged.server.wyoming_server import WyomingServer

            self._wyoming = WyomingServer(context)
            address = self._wyoming_address.address
            listener = Listener(address, self._wyoming.make_protocol, limits, self.metrics)
            endpoints.append(_ListeningPort("EDGED_WYOMING", "tcp", address, listener))
        return endpoints

    async def _serve(self, endpoints: Sequence[_ListeningPort]) -> None:
        """Runs until the server is stopped."""
        assert self._stopping is not None
        while not self._stopping.is_set() and not self._stop_requested:
            self.heartbeat = time.monotonic()
            for endpoint in endpoints:
                endpoint.listener.drop_idle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK_S)

    async def _open(self, endpoint: _ListeningPort, endpoints: Sequence[_ListeningPort]) -> None:
        """Tries to open a port until that succeeds."""
        for attempt in itertools.count():
            try:
                await endpoint.listener.bind()
            except OSError as problem:
                self._open_failed(endpoint, problem, first=attempt == 0)
            else:
                await self._open_succeeded(endpoint)
            endpoint.tried = True
            if all(other.tried for other in endpoints):
                self._error = next((e.error for e in endpoints if e.error is not None), None)
                self._opened.set()
            if endpoint.error is None:
                return
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])

    async def _open_succeeded(self, endpoint: _ListeningPort) -> None:
        endpoint.error = None
        url = f"{endpoint.scheme}://{endpoint.label()}"
        if endpoint.setting == "EDGED_LISTEN":
            self.url = url
            log_event(_log, logging.INFO, "api-open", f"the API server listens at {url}/api/")
            return
        self.wyoming_url = url
        log_event(_log, logging.INFO, "api-open", f"the Wyoming server listens at {url}")
        assert self._wyoming_address is not None
        name, host = self._wyoming_address.announced_name, endpoint.address.host
        if name is not None and not is_loopback(host):
            from edged.server.zeroconf_announcement import ZeroconfAnnouncement

            self._announcement = ZeroconfAnnouncement(name, host, endpoint.listener.port)
            await self._announcement.open()

    def _open_failed(self, endpoint: _ListeningPort, problem: OSError, first: bool) -> None:
        address = f"{endpoint.address.host}:{endpoint.address.port}"
        reason = problem.strerror or problem
        endpoint.error = PeerError(f"{endpoint.setting} {address} cannot be opened: {reason}")
        if first:
            message = f"{endpoint.error}; it will be tried again"
            log_event(_log, logging.WARNING, "api-closed", message)


class _LoopErrors:
    """Logs the first unhandled exception of the event loop, and counts the others.

    What clients do to their connections ends up here, so that a line for each would let them fill
    the log.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._count += 1
        if self._count == 1:
            message = f"unhandled error in the API server: {context.get('message')}"
            log_exception(_log, "api-loop-error", message, context.get("exception"))
