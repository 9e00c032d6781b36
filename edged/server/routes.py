"""The HTTP application: access checks, and the paths that belong to no speech protocol."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from edged.errors import RequestError
from edged.events import Ready
from edged.logs import log_event, log_exception
from edged.server import captions_page, json_limits
from edged.server.http_context import HttpApi, HttpContext
from edged.server.listener import request_in_progress
from edged.server.metrics import CONTENT_TYPE
from edged.server.stream_pool import active_keyterms
from edged.server.subscribers import Subscribers
from edged.server.websocket_reader import MAX_REFUSED_MESSAGE, WebSocket

MAX_LOGGED = 32  # different refused origins and host names that are logged; clients invent them
MAX_BODY = 1024  # bytes of a request to mute
BODY_S = 10.0  # in which it must arrive
CORS_HEADERS = {  # the answer to a browser's preflight request for a listed page
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Max-Age": "600",
}

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    """Handles HTTP requests on the event loop."""

    def __init__(
        self,
        context: HttpContext,
        apis: Sequence[HttpApi],
        problems: Callable[[], list[str]],
        has_microphone: bool,
        states: Callable[[], list[str]],
        set_mute: Callable[[bool], None] | None,
    ) -> None:
        """`problems` are the daemon's, for `/healthz`. `states` are the current `state` messages.
        `set_mute` None: nobody may mute."""
        self.subscribers = Subscribers()
        self._context = context
        self._apis = apis
        self._problems = problems
        self._has_microphone = has_microphone
        self._states = states
        self._set_mute = set_mute
        self._logged: set[str] = set()

    def application(self) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(middlewares=[self._middleware])
        app.on_response_prepare.append(self._add_cors_headers)
        for api in self._apis:
            api.add_routes(app)
        app.router.add_get("/api/events", self._serve_events)
        # A browser does not tell a page why its WebSocket was refused. The page asks with a POST.
        app.router.add_post("/api/events", self._serve_events)
        app.router.add_post("/api/mute", self._serve_mute)
        app.router.add_get("/healthz", self._serve_health)
        app.router.add_get("/metrics", self._serve_metrics)
        captions_page.add_routes(app)
        return app

    def stop(self) -> None:
        """Sends every client an error."""
        self.subscribers.stop()
        for api in self._apis:
            api.stop()

    def health(self) -> tuple[int, str]:
        """Status and body of `/healthz`: `ok`, or one line for each problem."""
        problems = self._problems() + self._context.streams.problems()
        text = "\n".join(problems) if problems else "ok"
        return (503 if problems else 200), text + "\n"

    def gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        """Name, help text and function of each gauge of the server."""
        streams, subscribers = self._context.streams, self.subscribers
        return {
            "streams": ("Open streams.", lambda: streams.count),
            "streams_max": ("Most streams at once.", lambda: streams.max_streams),
            "waiting_seconds": (
                "Audio of all streams that was received and not yet processed.",
                lambda: streams.waiting_s,
            ),
            "subscribers": (
                "Clients that receive the microphone's events.",
                lambda: subscribers.count,
            ),
        }

    @web.middleware
    async def _middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        with request_in_progress(request.transport):
            if denial := self._context.access.deny_foreign(request):
                self._context.metrics.refused.labels("origin").inc()
                self._log_foreign(denial.message)
                return web.Response(status=denial.status, text=f"{denial.message}\n")
            if "Access-Control-Request-Method" in request.headers:
                return web.Response(status=204, headers=_cors_headers(request))
            try:
                return await handler(request)
            except (web.HTTPException, ConnectionError):
                raise  # an answer, or the client is gone
            except Exception:
                log_exception(_log, "api-request-failed", "an API request failed")
                return web.Response(status=500, text="error from server 1011: a bug in edged\n")

    async def _add_cors_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Lets pages of listed origins read the response."""
        origin = request.headers.get("Origin", "")
        if origin in self._context.access.origins.allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"

    def _log_foreign(self, message: str) -> None:
        if message not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(message)
            log_event(_log, logging.WARNING, "api-foreign", f"a request was refused: {message}")

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        if denied := self._denied(request):
            return denied
        if not self._has_microphone:
            return web.Response(status=404, text="this edged has no microphone\n")
        try:
            options = self._context.streams.options()
        except RequestError as problem:
            return web.Response(status=503, text=f"{problem}\n")
        main = self._context.streams.main
        ready = Ready(
            str(uuid.uuid4()),
            main.name,
            options.delay_in_frames,
            keyterms=active_keyterms(main, options),
            language=options.language,
        )
        socket = WebSocket(MAX_REFUSED_MESSAGE)
        await socket.prepare(request)
        states = self._states() if request.query.get("states") == "on" else None
        await self.subscribers.serve(socket, ready, self._context.disconnect(request), states)
        return socket

    async def _serve_mute(self, request: web.Request) -> web.StreamResponse:
        """Accepts `{"mute": true}` or `false`. Whether it is done is reported as a `state`."""
        if denied := self._denied(request):
            return denied
        if self._set_mute is None:
            return web.Response(status=404, text="this edged has no microphone to mute\n")
        mute = await self._mute_body(request)
        if mute is None:
            return web.Response(status=400, text='the body must be {"mute": true} or false\n')
        self._set_mute(mute)
        return web.Response(status=202)

    async def _mute_body(self, request: web.Request) -> bool | None:
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.content.read(MAX_BODY + 1)
            wanted: Any = json_limits.loads(body.decode())["mute"]
        except (ValueError, LookupError, TypeError, TimeoutError, web.RequestPayloadError):
            return None
        return wanted if isinstance(wanted, bool) else None

    async def _serve_health(self, request: web.Request) -> web.StreamResponse:
        status, text = self.health()
        return web.Response(status=status, text=text)

    async def _serve_metrics(self, request: web.Request) -> web.StreamResponse:
        if denied := self._denied(request):
            return denied
        body = self._context.metrics.text()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    def _denied(self, request: web.Request) -> web.Response | None:
        denial = self._context.deny_key(request)
        if denial is None:
            return None
        return web.Response(status=denial.status, text=f"{denial.message}\n")


def _cors_headers(request: web.Request) -> dict[str, str]:
    """Listed pages may send whatever headers they ask for: OpenAI's client has several."""
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    return CORS_HEADERS | {"Access-Control-Allow-Headers": wanted}
