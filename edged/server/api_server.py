"""The door: a thread with one event loop that serves HTTP and WebSockets.

Whatever goes on here, the microphone is not disturbed: recognition runs on the crew's threads,
which stand back for it, and a port that cannot be had is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from edged.errors import ConfigError, EdgedError, PeerError
from edged.events import Event
from edged.logs import log_event
from edged.server.metrics import Metrics
from edged.server.routes import Access, App
from edged.server.streams import Source, Streams
from edged.server.subscribers import state_message

MAX_CONNECTIONS = 128
STOP_S = 1.0  # for answers that are under way when the door closes
REQUEST_S = 10.0  # from connecting, or the last answer, to a whole request's headers
# What the kernels hold of a client that sends a file faster than it is heard. Its pings wait behind
# that, and most libraries give up after 20 s: the 6 MB that kernels hold by themselves cost the
# clients of a board that hears at twice real time their connection.
RECEIVE_BYTES = 1 << 15
SEGMENT_BYTES = 1400  # the client's own buffer grows with these; on loopback they have 64 kB
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # between attempts at a port that is taken
_TICK_S = 1.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: 21\r\n\r\ntoo many connections\n"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where to listen. `cert_file` (with its key) makes it TLS; port 0 takes any."""

    host: str
    port: int
    cert_file: Path | None = None
    key_file: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """Raises ConfigError for files that cannot be used."""
        if self.cert_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise ConfigError(
                f"EDGED_TLS_CERT_FILE {self.cert_file} and its key cannot be used: {reason}"
            ) from None
        return context


class ApiServer:
    """`start`, `stop` and `heard` may be called from any thread. The constructor opens nothing."""

    def __init__(
        self,
        address: Address,
        access: Access,
        source: Source,
        max_streams: int,
        health: Callable[[], Mapping[str, Any]] = dict,
        problems: Callable[[], list[str]] = list,
        microphone: bool = False,
        mute: Callable[[bool], None] | None = None,
    ) -> None:
        """`health` and `problems` are the daemon's, for /metrics and /healthz. `microphone`: its
        events come by `heard`. `mute` asks for it; it is called on the door's thread."""
        self.heartbeat = time.monotonic()
        self.url = ""  # once it is open
        self._address = address
        self._access = access
        self._problems = problems
        self._health = health
        self._microphone = microphone
        self._mute = mute
        self._states: dict[str, str] = {}  # `state` messages: the last of each name
        self._metrics = Metrics()
        self._streams = Streams(source, max_streams, self._metrics)
        self._app: App | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_asked = False
        self._opened = threading.Event()
        self._problem: EdgedError | None = None
        self._tls: ssl.SSLContext | None = None
        self._thread = threading.Thread(target=self._main, name="api", daemon=True)

    def start(self) -> None:
        """Returns at once: a port that cannot be had now may be free later. Raises ConfigError for
        a certificate that cannot be used."""
        self._tls = self._address.tls()
        self._thread.start()

    def wait_open(self, timeout_s: float = 10.0) -> str:
        """The URL. Raises PeerError if it cannot be opened now."""
        self._opened.wait(timeout_s)
        if self._problem is not None or not self.url:
            raise self._problem or PeerError("the door could not be opened in time")
        return self.url

    def stop(self, timeout_s: float = 3.0) -> None:
        """Tells everybody who is connected, and closes."""
        self._stop_asked = True
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(stopping.set)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def heard(self, events: Sequence[Event]) -> None:
        """The microphone's events, on the engine's thread. Never blocks."""
        if self._app is not None:
            self._app.followers.tell(events)

    def state(self, name: str, value: Mapping[str, Any] | str) -> None:
        """What followers who ask for states are told, now and when they come. Never blocks."""
        message = state_message(name, value)
        self._states = {**self._states, name: message}  # replaced whole: the loop reads it
        if self._app is not None:
            self._app.followers.tell_state(message)

    # -- the door's thread

    def _main(self) -> None:
        # A broken request is the client's affair: it is answered, and not logged line by line.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        try:
            asyncio.run(self._run())
        except Exception:
            _log.exception("the door failed", extra={"EDGED_CODE": "api-failed"})
        finally:
            self._opened.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = App(
            self._access,
            self._streams,
            self._metrics,
            self._problems,
            self._microphone,
            lambda: list(self._states.values()),
            self._mute,
        )
        self._metrics.open(app.gauges(), lambda: self._streams.model_name)
        self._metrics.watch(self._health)
        runner = web.AppRunner(
            app.application(),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=REQUEST_S,
            shutdown_timeout=STOP_S,
        )
        await runner.setup()
        self._streams.start()
        try:
            server = await self._bind(runner)
            if server is not None:
                self._app = app
                await self._serve(runner, app)
                server.close()
                app.stop()
                await asyncio.sleep(0.1)  # for the last words
        finally:
            self._streams.stop()
            await runner.cleanup()

    async def _serve(self, runner: web.AppRunner, app: App) -> None:
        """Looks after the connections until the end."""
        assert self._stopping is not None
        patience: dict[Any, float] = {}
        while not self._stopping.is_set() and not self._stop_asked:
            self.heartbeat = time.monotonic()
            patience = _dismiss_idle(runner, app, patience)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK_S)

    async def _bind(self, runner: web.AppRunner) -> asyncio.Server | None:
        """Until it succeeds; None if the end comes first."""
        assert self._stopping is not None
        assert self._loop is not None
        attempt = 0
        while not self._stop_asked:
            try:
                server = await self._loop.create_server(
                    lambda: self._protocol(runner),
                    self._address.host,
                    self._address.port,
                    ssl=self._tls,
                    ssl_handshake_timeout=REQUEST_S if self._tls else None,
                    start_serving=False,
                )
                _keep_buffers_small(server)
                await server.start_serving()
            except OSError as problem:
                self._could_not(problem, first=attempt == 0)
                wait_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                until = time.monotonic() + wait_s
                while time.monotonic() < until and not self._stop_asked:
                    self.heartbeat = time.monotonic()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), min(_TICK_S, wait_s))
                attempt += 1
                continue
            self._is_open(server)
            return server
        return None

    def _protocol(self, runner: web.AppRunner) -> asyncio.Protocol:
        assert runner.server is not None
        if len(runner.server.connections) >= MAX_CONNECTIONS:
            self._metrics.refused.labels("connections").inc()
            return _Full()
        return runner.server()

    def _is_open(self, server: asyncio.Server) -> None:
        port = server.sockets[0].getsockname()[1]
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
        self._problem = None
        log_event(_log, logging.INFO, "api-open", f"the door is open at {self.url}/api/")
        self._opened.set()

    def _could_not(self, problem: OSError, first: bool) -> None:
        address = f"{self._address.host}:{self._address.port}"
        reason = problem.strerror or problem
        self._problem = PeerError(f"EDGED_LISTEN {address} cannot be opened: {reason}")
        if first:
            log_event(_log, logging.WARNING, "api-closed", f"{self._problem}; it is tried again")
        self._opened.set()


def _keep_buffers_small(server: asyncio.Server) -> None:
    """Each connection inherits it."""
    for listener in server.sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)


class _Full(asyncio.Protocol):
    """Answers one connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


def _dismiss_idle(
    runner: web.AppRunner, app: App, patience: Mapping[Any, float]
) -> dict[Any, float]:
    """Cuts connections that have sent no whole request for too long (slow loris). `patience` is
    when each of them was first seen idle."""
    assert runner.server is not None
    now, still = time.monotonic(), {}
    for connection in runner.server.connections:
        if connection in app.busy:
            continue
        since = still[connection] = patience.get(connection, now)
        if now - since > REQUEST_S and connection.transport is not None:
            connection.transport.abort()
    return still
