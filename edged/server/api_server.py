"""The API server: a thread with one event loop that serves HTTP and WebSockets.

The microphone is never disturbed: recognition runs on worker threads that give way to it, and if
the port cannot be opened, it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from edged.errors import EdgedError, PeerError
from edged.events import Event
from edged.logs import log_event, log_exception
from edged.server.access import AccessControl
from edged.server.connection_limits import ConnectionLimits
from edged.server.gradium_api import GradiumApi
from edged.server.http_context import HttpContext
from edged.server.listener import REQUEST_S, ListenAddress, Listener
from edged.server.metrics import Metrics
from edged.server.routes import Routes
from edged.server.stream_pool import SessionProvider, StreamPool
from edged.server.subscribers import state_message

STOP_S = 1.0  # for answers that are being sent when the server stops
LAST_WORDS_S = 0.1  # for sending the last messages to WebSockets
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts to open a port that is in use
_TICK_S = 1.0

_log = logging.getLogger(__name__)


class ApiServer:
    """`start`, `stop` and the `publish_` methods may be called from any thread."""

    def __init__(
        self,
        address: ListenAddress,
        access: AccessControl,
        sessions: SessionProvider,
        max_streams: int,
        health: Callable[[], Mapping[str, Any]] = dict,
        problems: Callable[[], list[str]] = list,
        microphone: bool = False,
        set_mute: Callable[[bool], None] | None = None,
    ) -> None:
        """Opens nothing yet.

        health: the daemon's health, for `/metrics`.
        problems: what `/healthz` should report, as sentences.
        microphone: whether `publish_events` will be called with the microphone's events.
        set_mute: called on the server's thread when a client wants to mute or unmute.
        """
        self.heartbeat = time.monotonic()
        self.url = ""  # once it is open
        self.metrics = Metrics()
        self.streams = StreamPool(sessions, max_streams, self.metrics)
        self.access = access
        self.gradium: GradiumApi | None = None  # once it is open
        self._address = address
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
        self._tls = self._address.tls()
        self._thread.start()

    def wait_open(self, timeout_s: float = 10.0) -> str:
        """Waits until the server is open and returns its URL. Raises PeerError if the first
        attempt to open the port failed."""
        self._opened.wait(timeout_s)
        if self._error is not None or not self.url:
            raise self._error or PeerError("the API server could not be opened in time")
        return self.url

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
            [gradium],
            self._problems,
            self._microphone,
            lambda: list(self._states.values()),
            self._set_mute,
        )
        gauges = routes.gauges() | {
            "sockets": ("Open WebSockets for speech.", lambda: len(gradium.connections))
        }
        self.metrics.add_gauges(gauges, lambda: self.streams.model_name)
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
        try:
            listener = await self._open(runner, routes)
            if listener is not None:
                self._routes, self.gradium = routes, gradium
                await self._serve(listener)
                listener.close()
                routes.stop()
                await asyncio.sleep(LAST_WORDS_S)
        finally:
            self.streams.stop()
            await runner.cleanup()

    async def _serve(self, listener: Listener) -> None:
        """Runs until the server is stopped."""
        assert self._stopping is not None
        while not self._stopping.is_set() and not self._stop_requested:
            self.heartbeat = time.monotonic()
            listener.drop_idle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK_S)

    async def _open(self, runner: web.AppRunner, routes: Routes) -> Listener | None:
        """Tries to open the port until that succeeds; None if the server is stopped first."""
        assert self._stopping is not None
        assert runner.server is not None
        listener = Listener(
            self._address,
            runner.server,
            ConnectionLimits(),
            self.metrics,
            self._tls,
            routes.health,
        )
        attempt = 0
        while not self._stop_requested:
            try:
                await listener.bind()
            except OSError as problem:
                self._open_failed(problem, first=attempt == 0)
                wait_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                until = time.monotonic() + wait_s
                while time.monotonic() < until and not self._stop_requested:
                    self.heartbeat = time.monotonic()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), min(_TICK_S, wait_s))
                attempt += 1
                continue
            self._open_succeeded(listener)
            return listener
        return None

    def _open_succeeded(self, listener: Listener) -> None:
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        self.url = f"{'https' if self._tls else 'http'}://{host}:{listener.port}"
        self._error = None
        log_event(_log, logging.INFO, "api-open", f"the API server listens at {self.url}/api/")
        self._opened.set()

    def _open_failed(self, problem: OSError, first: bool) -> None:
        address = f"{self._address.host}:{self._address.port}"
        reason = problem.strerror or problem
        self._error = PeerError(f"EDGED_LISTEN {address} cannot be opened: {reason}")
        if first:
            log_event(_log, logging.WARNING, "api-closed", f"{self._error}; it will be tried again")
        self._opened.set()


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
