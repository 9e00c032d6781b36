"""What the HTTP APIs share: access checks that are counted, streams and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from aiohttp import web

from edged.server.access import AccessControl, Denial
from edged.server.metrics import Metrics
from edged.server.stream_pool import StreamPool

SPARE_SOCKETS = 16  # WebSockets that may be open beside those whose streams are in use
TOO_MANY_SOCKETS = "too many sockets are open: try again later"


class HttpApi(Protocol):
    """One protocol that is served over HTTP."""

    def add_routes(self, app: web.Application) -> None:
        """Adds its paths."""

    def stop(self) -> None:
        """Tells every client that the server is stopping, and accepts nothing new."""


@dataclass(frozen=True)
class HttpContext:
    """Given to each API. Used on the event loop."""

    access: AccessControl
    streams: StreamPool
    metrics: Metrics

    def deny_key(self, request: web.Request) -> Denial | None:
        """Refuses a missing or wrong key, and counts the refusal."""
        denial = self.access.deny_key(request)
        if denial is not None:
            self.metrics.refused.labels("key").inc()
        return denial

    def admit_session(self, request: web.Request) -> bool:
        """Whether the client may begin one more session; a refusal is counted."""
        return self.admit(request.remote)

    def admit(self, address: str | None) -> bool:
        """The same for clients of protocols other than HTTP."""
        admitted = self.access.admit_session(address)
        if not admitted:
            self.metrics.refused.labels("rate").inc()
        return admitted

    def deny_socket(self, open_sockets: int) -> Denial | None:
        """Refuses a WebSocket if too many are open, and counts the refusal."""
        if open_sockets < self.streams.max_streams + SPARE_SOCKETS:
            return None
        self.metrics.refused.labels("sockets").inc()
        return Denial(TOO_MANY_SOCKETS, 503)

    def disconnect(self, request: web.Request) -> Callable[[], None]:
        """A function that drops the connection of a client which does not read."""
        return partial(self._disconnect, request)

    def _disconnect(self, request: web.Request) -> None:
        if request.transport is not None:
            self.metrics.dropped_clients.inc()
            request.transport.abort()
