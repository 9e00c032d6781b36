"""Accepts connections: binding the port, TLS, connection limits and idle connections.

A connection is counted from its first byte on, before the TLS handshake, so that a client which
never completes it cannot use up descriptors and memory. Connections above the limits are served
only if they ask for `/healthz`: a monitor must not restart a device because somebody floods it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.certificates import load_certificate
from edged.errors import ConfigError
from edged.logs import log_event
from edged.server.access import RateLimiter
from edged.server.connection_limits import Admission, ConnectionLimits, client_of
from edged.server.metrics import Metrics
from edged.server.silent_sockets import SilentSockets

HANDSHAKE_S = 5.0  # for a TLS handshake
REQUEST_S = 10.0  # from accepting a connection, or its last answer, to the next request's headers
HEALTH_CHECK_S = 2.0  # the same for a connection in reserve, its TLS handshake included
RESERVE_HOLD_S = 0.25  # before a connection in reserve is replaced; bounds TLS objects per second
FAILED_HANDSHAKES = 100  # of one address at once; each takes about a millisecond of the processor
FAILED_HANDSHAKES_PER_S = 20.0
QUIET_S = 60.0  # without a refused connection until the next one is logged again
MAX_HEALTH_REQUEST = 8192  # bytes
BACKLOG = 1024  # connections that the kernel completes before they are accepted
ACCEPT_AT_ONCE = 32  # before other connections are served
# The kernel buffers audio of clients that send files faster than they are transcribed, and pings of
# these clients wait behind it. Most libraries close a connection without a pong after 20 s.
RECEIVE_BYTES = 1 << 15
SEGMENT_BYTES = 1400  # bounds the client's send buffer too; loopback would use 64 kB segments
_RESOURCE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_ACCEPT_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListenAddress:
    """Where to listen. With a certificate file and its key file the server speaks TLS only.

    Port 0 stands for any free port.
    """

    host: str
    port: int
    cert_file: Path | None = None
    key_file: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context, or None without a certificate. Raises ConfigError if a file is bad."""
        if self.cert_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            load_certificate(context, self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise ConfigError(
                f"EDGED_TLS_CERT_FILE {self.cert_file} and its key cannot be used: {reason}"
            ) from None
        return context


class Listener:
    """One listening port. All methods must be called on the event loop."""

    def __init__(
        self,
        address: ListenAddress,
        make_protocol: Callable[[], asyncio.Protocol],
        limits: ConnectionLimits,
        metrics: Metrics,
        tls: ssl.SSLContext | None = None,
        health: Callable[[], tuple[int, str]] | None = None,
    ) -> None:
        """`make_protocol` makes the asyncio protocol of each admitted connection. `limits` may be
        shared with other listeners. `health` gives status and body of `/healthz` for connections
        in reserve; None: this listener has no reserve."""
        self._address = address
        self._make_protocol = make_protocol
        self._health = health
        self._limits = limits
        self._metrics = metrics
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._open: set[_ClientConnection] = set()
        self._reserved: deque[_ClientConnection] = deque()
        self._silent = SilentSockets(self._admit)
        self._refused_at = -QUIET_S
        self._failed_handshakes = RateLimiter(
            burst=FAILED_HANDSHAKES, per_s=FAILED_HANDSHAKES_PER_S
        )

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._sockets[0].getsockname()[1])

    async def bind(self) -> None:
        """Binds and begins to accept. Raises OSError, and may then be called again."""
        self._sockets = await self._bound()
        for bound in self._sockets:
            self._resume_accepting(bound)

    def close(self) -> None:
        """Accepts nothing more. Open connections stay open."""
        for bound in self._sockets:
            self._loop.remove_reader(bound)
            bound.close()
        for task in list(self._handshakes):
            task.cancel()
        self._silent.close()

    def drop_idle(self) -> None:
        """Closes connections that have sent no complete request for too long. Call once a
        second."""
        self._silent.close_older_than(REQUEST_S)
        now = self._loop.time()
        for connection in list(self._open):
            if not connection.requests and now - connection.active_at > connection.idle_s:
                connection.abort()

    async def _bound(self) -> list[socket.socket]:
        host, port = self._address.host, self._address.port
        found = await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        try:
            for family, kind, number, _, where in dict.fromkeys(found):
                bound = socket.socket(family, kind, number)
                sockets.append(bound)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
                bound.bind(where)
                bound.listen(BACKLOG)
                bound.setblocking(False)
        except OSError:
            for bound in sockets:
                bound.close()
            raise
        return sockets

    def _accept(self, bound: socket.socket) -> None:
        """Accepts some of the connections that wait. The event loop calls it again for the rest,
        after it has served others."""
        for _ in range(ACCEPT_AT_ONCE):
            try:
                accepted, peer = bound.accept()
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno not in _RESOURCE_ERRORS:
                    continue  # the client was gone before it was accepted
                self._log_refusal(f"no connection can be accepted: {problem.strerror}")
                self._loop.remove_reader(bound)
                self._loop.call_later(_RETRY_ACCEPT_S, self._resume_accepting, bound)
                return
            accepted.setblocking(False)
            self._silent.add(accepted, str(peer[0]))

    def _resume_accepting(self, bound: socket.socket) -> None:
        if bound.fileno() != -1:  # otherwise it was closed in the meantime
            self._loop.add_reader(bound, self._accept, bound)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        if not self._failed_handshakes.has_token(client_of(address)):
            self._metrics.refused.labels("connections").inc()
            self._log_refusal(f"too many TLS handshakes of {address} failed")
            accepted.close()
            return
        has_health = self._health is not None
        admission = self._limits.admit(address, has_health)
        if admission is Admission.REFUSED and self._has_stale_reserve():
            self._reserved[0].abort()
            admission = self._limits.admit(address, has_health)
        if admission is not Admission.ADMITTED:
            self._metrics.refused.labels("connections").inc()
            self._log_refusal(
                f"too many connections are open: a further one from {address} was refused"
            )
        if admission is Admission.REFUSED:
            accepted.close()
            return
        connection = _ClientConnection(self, accepted, address, admission)
        self._open.add(connection)
        if admission is Admission.HEALTH_ONLY:
            self._reserved.append(connection)
        task = self._loop.create_task(self._begin(connection))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def _has_stale_reserve(self) -> bool:
        """Whether the oldest connection in reserve had time to ask for `/healthz`."""
        oldest = self._reserved[0] if self._reserved else None
        return oldest is not None and self._loop.time() - oldest.active_at > RESERVE_HOLD_S

    async def _begin(self, connection: _ClientConnection) -> None:
        """Performs the TLS handshake, if any, and hands the connection to its protocol."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                connection.socket,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
            )
        except OSError as problem:  # ssl.SSLError and TimeoutError are OSErrors
            connection.abort()
            if self._tls is not None:
                self._failed_handshakes.take(client_of(connection.address))
            # The traceback and asyncio's waiter refer to each other, and so keep the TLS buffers
            # until the next full garbage collection.
            problem.__traceback__ = None
        except asyncio.CancelledError:
            connection.abort()
        except Exception:
            connection.abort()
            raise

    def forget(self, connection: _ClientConnection) -> None:
        """The connection is closed."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._reserved.remove(connection)
        self._limits.release(connection.address, connection.admission)

    def protocol_for(self, admission: Admission) -> asyncio.Protocol:
        """What serves a connection once its TLS handshake is done."""
        if admission is Admission.HEALTH_ONLY:
            assert self._health is not None
            return _HealthCheck(self._health)
        return self._make_protocol()

    def _log_refusal(self, message: str) -> None:
        """Logs the first refusal of an episode; more within a minute of the last one are part of
        it."""
        now = time.monotonic()
        if now - self._refused_at >= QUIET_S:
            log_event(_log, logging.WARNING, "api-connections-refused", message)
        self._refused_at = now


class _ClientConnection(asyncio.Protocol):
    """Passes everything on to the protocol of an admitted connection, and knows when it ends."""

    def __init__(
        self, listener: Listener, sock: socket.socket, address: str, admission: Admission
    ) -> None:
        self.socket = sock
        self.address = address
        self.admission = admission
        self.protocol: asyncio.Protocol | None = None  # None before the TLS handshake
        self.requests = 0  # that are being answered
        self.active_at = asyncio.get_running_loop().time()
        self.idle_s = HEALTH_CHECK_S if admission is Admission.HEALTH_ONLY else REQUEST_S
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._forgotten = False

    def abort(self) -> None:
        """Closes the connection at once, in whatever state it is."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()
        else:  # the TLS handshake, if there is one, fails
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._forgotten:
            transport.abort()
            return
        self.protocol = self._listener.protocol_for(self.admission)
        self.protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.protocol is not None:
            self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received() if self.protocol is not None else None

    def pause_writing(self) -> None:
        if self.protocol is not None:
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self.protocol is not None:
            self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if self.protocol is not None:
            self.protocol.connection_lost(exc)

    def _forget(self) -> None:
        if not self._forgotten:
            self._forgotten = True
            self._listener.forget(self)


@contextlib.contextmanager
def request_in_progress(transport: asyncio.BaseTransport | None) -> Iterator[None]:
    """While the block runs, the connection is not idle, however little is sent."""
    connection = transport.get_protocol() if transport is not None else None
    if not isinstance(connection, _ClientConnection):
        yield
        return
    connection.requests += 1
    try:
        yield
    finally:
        connection.requests -= 1
        connection.active_at = asyncio.get_running_loop().time()


class _HealthCheck(asyncio.Protocol):
    """Serves one `GET /healthz`; any other request is answered with 503."""

    def __init__(self, health: Callable[[], tuple[int, str]]) -> None:
        self._health = health
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        if b"\r\n\r\n" not in self._received and len(self._received) < MAX_HEALTH_REQUEST:
            return
        if self._transport.is_closing():
            return
        status, body = 503, "too many connections are open: try again later\n"
        if self._received.startswith((b"GET /healthz ", b"HEAD /healthz ")):
            status, body = self._health()
        reason = "OK" if status == 200 else "Service Unavailable"
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Connection: close\r\nContent-Length: {len(body.encode())}\r\n\r\n"
        )
        is_head = self._received.startswith(b"HEAD ")
        self._transport.write((head + ("" if is_head else body)).encode())
        self._transport.close()
