"""What the door serves under which path, and who may have it.

aiohttp serves both HTTP (a body that is read as it comes) and WebSockets on one port, which
`websockets` alone does not; the `gradium` SDK is built on it too.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from edged.errors import RequestError
from edged.events import Error, Ready
from edged.logs import log_event
from edged.server import captions_page
from edged.server.access import Origins, Rate, key_fits, key_of
from edged.server.gradium_messages import Setup
from edged.server.gradium_upload import Upload, failed
from edged.server.gradium_websocket import TOO_MANY, Connection
from edged.server.metrics import CONTENT_TYPE, Metrics
from edged.server.streams import Streams
from edged.server.subscribers import Subscribers
from edged.server.websocket_incoming import MAX_MESSAGE, REFUSED_MESSAGE, Socket

SPARE = 16  # sockets that may be open beside those whose streams are in use
MAX_REFUSED = 16  # sockets that are told why they may not come in; one more gets it as HTTP
MAX_TOLD = 32  # lines of the log about foreign pages and names: each may be an invented one
MAX_NAME = 80  # characters of such a name
BODY_S = 10.0  # for the body of a small request
MAY_ASK = {  # what a browser wants to know before a listed page's request (CORS)
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "x-api-key, authorization, content-type",
    "Access-Control-Max-Age": "600",
}
NO_KEY = "the x-api-key is missing or wrong"
TOO_MANY_KEYS = "too many wrong keys came from this address: try again later"

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Access:
    """`api_key` None: nobody is asked for one. `origins`: of pages that may connect."""

    api_key: str | None
    origins: Origins


class App:
    """The handlers. Owned by the door's loop."""

    def __init__(
        self,
        access: Access,
        streams: Streams,
        metrics: Metrics,
        problems: Callable[[], list[str]],
        follow: bool,
        states: Callable[[], list[str]],
        mute: Callable[[bool], None] | None,
    ) -> None:
        """`problems`: why /healthz should not say ok. `follow`: there is a microphone. `states`:
        the `state` messages of now. `mute` asks for it; None: nobody may."""
        self.followers = Subscribers()
        self.busy: set[Any] = set()  # aiohttp's connections whose request is being answered
        self._access = access
        self._streams = streams
        self._metrics = metrics
        self._problems = problems
        self._follow = follow
        self._states = states
        self._mute = mute
        self._rate = Rate()
        self._guesses = Rate()
        self._connections: set[Connection] = set()
        self._refused: set[Connection] = set()  # apart: who has no key must not take the room
        self._uploads: set[Upload] = set()
        self._told: set[str] = set()  # what the log has of foreign pages and names

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(self._let_read)
        for prefix in ("/api", ""):  # the SDK's base URL is given with and without /api
            app.router.add_get(f"{prefix}/speech/asr", self._speech)
            app.router.add_post(f"{prefix}/post/speech/asr", self._post)
        app.router.add_get("/api/events", self._events)
        # A browser tells a page nothing of why its WebSocket was refused: the page asks like this.
        app.router.add_post("/api/events", self._events)
        app.router.add_post("/api/mute", self._ask_mute)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._scrape)
        captions_page.add_to(app)
        return app

    def stop(self) -> None:
        """Everybody is told; nothing new is taken."""
        self.followers.stop()
        for connection in [*self._connections, *self._refused]:
            connection.stop()
        for upload in list(self._uploads):
            upload.stop()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self.busy.add(request.protocol)
        try:
            return await self._answer(request, handler)
        finally:
            self.busy.discard(request.protocol)

    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if sentence := self._foreign(request):
            self._metrics.refused.labels("origin").inc()
            if sentence not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(sentence)
                log_event(_log, logging.WARNING, "api-foreign", f"the door refused: {sentence}")
            return web.Response(status=403, text=f"{sentence}\n")
        if "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204, headers=MAY_ASK)
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except ConnectionError:
            raise  # the client went: aiohttp knows
        except Exception:
            _log.exception("a request failed", extra={"EDGED_CODE": "api-request-failed"})
            return web.Response(status=500, text="error from server 1011: a bug in edged\n")

    async def _let_read(self, request: web.Request, response: web.StreamResponse) -> None:
        """A browser gives an answer to a page of another origin only where it is named so."""
        origin = request.headers.get("Origin", "")
        if origin in self._access.origins.allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"

    # -- speech

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        refusal = self._no_entry(request)
        if refusal is not None and len(self._refused) >= MAX_REFUSED:
            status = 401 if refusal.code == 1008 else 503
            return web.Response(status=status, text=f"{refusal.message}\n")
        socket = Socket(REFUSED_MESSAGE if refusal else MAX_MESSAGE)
        await socket.prepare(request)
        connection = Connection(
            socket,
            self._streams,
            self._metrics,
            lambda: self._admit(request),
            lambda: self._give_up(request),
        )
        among = self._connections if refusal is None else self._refused
        among.add(connection)
        try:
            if refusal is not None:
                connection.refuse(refusal.message, refusal.code)
            await connection.serve()
        finally:
            among.discard(connection)
        return socket

    def _no_entry(self, request: web.Request) -> Error | None:
        if reason := self._why_not(request):
            return Error(reason, 1008)
        if len(self._connections) >= self._streams.max_streams + SPARE:
            self._metrics.refused.labels("sockets").inc()
            return Error("too many sockets are open: try again later", 1011)
        return None

    async def _post(self, request: web.Request) -> web.StreamResponse:
        """What is refused before the first line is a 500 in plain text, as in the cloud."""
        if reason := self._why_not(request):
            return failed(Error(reason, 1008))
        if not self._admit(request):
            return failed(Error(TOO_MANY, 1008))
        upload = Upload(request, self._streams, self._metrics, lambda: self._give_up(request))
        self._uploads.add(upload)
        try:
            return await upload.serve()
        finally:
            self._uploads.discard(upload)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        if not self._follow:
            return web.Response(status=404, text="this edged has no microphone to follow\n")
        try:
            delay = self._streams.options(Setup()).delay_in_frames
        except RequestError as problem:
            return web.Response(status=500, text=f"{problem}\n")
        ready = Ready(str(uuid.uuid4()), self._streams.model_name, delay)
        socket = Socket(REFUSED_MESSAGE)  # it has nothing to say
        await socket.prepare(request)
        states = self._states() if request.query.get("states") == "on" else None
        await self.followers.serve(socket, ready, lambda: self._give_up(request), states)
        return socket

    async def _ask_mute(self, request: web.Request) -> web.StreamResponse:
        """`{"mute": true}`, for the captions page. Whether it was done shows in the state."""
        if refusal := self._refusal(request):
            return refusal
        if self._mute is None:
            return web.Response(status=404, text="this edged has no microphone to mute\n")
        try:
            async with asyncio.timeout(BODY_S):
                wanted = (await request.json())["mute"]
        except (ValueError, LookupError, TypeError, RecursionError, TimeoutError):
            wanted = None  # LookupError: of a charset too
        except web.RequestPayloadError:  # it is not packed as its headers say
            wanted = None
        if not isinstance(wanted, bool):
            return web.Response(status=400, text='the body must be {"mute": true} or false\n')
        self._mute(wanted)
        return web.Response(status=202)

    # -- the state of things

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        problems = self._problems() + self._streams.problems()
        text = "\n".join(problems) if problems else "ok"
        return web.Response(status=503 if problems else 200, text=text + "\n")

    async def _scrape(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        streams, followers = self._streams, self.followers
        return {
            "streams": ("Open streams.", lambda: streams.count),
            "streams_max": ("Most streams at once.", lambda: streams.max_streams),
            "waiting_seconds": (
                "Audio of all streams that was received and not yet heard.",
                lambda: streams.waiting_s,
            ),
            "sockets": ("Open WebSockets for speech.", lambda: len(self._connections)),
            "followers": ("Who follows the microphone's events.", lambda: followers.count),
        }

    # -- who may

    def _foreign(self, request: web.Request) -> str | None:
        """Why the page that asks, or one that is loaded by this name, may not.

        The captions page itself is for anybody, so that it can say why it may not have more; only
        by a foreign name is it told before it is loaded. Programs go by any name where a foreign
        page could do nothing: it has no key, and all but a plain GET of a browser has an Origin. So
        does who asks for health, which is no secret.
        """
        origins, origin = self._access.origins, request.headers.get("Origin")
        captions = request.path == "/" or request.path.startswith("/kiosk")
        if origin is not None and not captions:
            if origins.may(origin, request.host):
                return None
            shown = ascii(origin[:MAX_NAME])[1:-1]
            return f"the page {shown} may not connect: EDGED_LISTEN_ORIGINS lists those that may"
        host = request.headers.get("Host", "")
        plain = request.method in ("GET", "HEAD") and "Upgrade" not in request.headers
        keyless = self._access.api_key is None
        by_any_name = request.path == "/healthz" or not (plain and keyless)
        if origins.knows(host) or (by_any_name and not captions):
            return None
        shown = ascii(host[:MAX_NAME])[1:-1]
        return (
            f"{shown} is not known as a name of this box: add {request.scheme}://{shown} to "
            "EDGED_LISTEN_ORIGINS, or use its address in numbers"
        )

    def _why_not(self, request: web.Request) -> str | None:
        """Whose address has guessed too often is not asked: even the right key does not fit."""
        address = request.remote or ""
        if not self._guesses.has(address):
            self._metrics.refused.labels("key").inc()
            return TOO_MANY_KEYS
        if key_fits(self._access.api_key, key_of(request.headers, request.query)):
            return None
        self._guesses.take(address)
        self._metrics.refused.labels("key").inc()
        return NO_KEY

    def _refusal(self, request: web.Request) -> web.Response | None:
        reason = self._why_not(request)
        return None if reason is None else web.Response(status=401, text=f"{reason}\n")

    def _give_up(self, request: web.Request) -> None:
        """Cuts the connection of a client that neither reads nor answers."""
        if request.transport is not None:
            self._metrics.given_up.inc()
            request.transport.abort()

    def _admit(self, request: web.Request) -> bool:
        admitted = self._rate.take(request.remote or "")
        if not admitted:
            self._metrics.refused.labels("rate").inc()
        return admitted
