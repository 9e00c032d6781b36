"""The HTTP routes of Gradium's speech-to-text API."""

from __future__ import annotations

from aiohttp import web

from edged.events import Error
from edged.server.access import TOO_MANY_SESSIONS, Denial
from edged.server.gradium_upload import CLIENT_FAULT, GradiumUpload, error_response
from edged.server.gradium_websocket import GradiumConnection
from edged.server.http_context import HttpContext
from edged.server.stream import SERVER_FAULT
from edged.server.websocket_reader import MAX_MESSAGE, MAX_REFUSED_MESSAGE, WebSocket

MAX_REFUSED = 16  # sockets that are opened only to send the reason for a refusal


class GradiumApi:
    """`/api/speech/asr` (WebSocket) and `/api/post/speech/asr` (upload)."""

    def __init__(self, context: HttpContext) -> None:
        self._context = context
        self._connections: set[GradiumConnection] = set()
        self._refused: set[GradiumConnection] = set()  # apart, so that they take nobody's place
        self._uploads: set[GradiumUpload] = set()

    @property
    def connections(self) -> tuple[GradiumConnection, ...]:
        """The open sockets, without those that are being refused."""
        return tuple(self._connections)

    @property
    def refused(self) -> int:
        """The number of sockets that are being refused."""
        return len(self._refused)

    def add_routes(self, app: web.Application) -> None:
        """Adds the paths with and without `/api`: the SDK's base URL is given in both forms."""
        for prefix in ("/api", ""):
            app.router.add_get(f"{prefix}/speech/asr", self._serve_socket)
            app.router.add_post(f"{prefix}/post/speech/asr", self._serve_upload)

    def stop(self) -> None:
        """Sends an error to every client."""
        for connection in [*self._connections, *self._refused]:
            connection.stop()
        for upload in list(self._uploads):
            upload.stop()

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        denial = self._context.deny_key(request)
        if denial is None:
            denial = self._context.deny_socket(len(self._connections))
        if denial is not None and len(self._refused) >= MAX_REFUSED:
            return web.Response(status=denial.status, text=f"{denial.message}\n")
        socket = WebSocket(MAX_REFUSED_MESSAGE if denial else MAX_MESSAGE)
        await socket.prepare(request)
        connection = GradiumConnection(
            socket,
            self._context,
            lambda: self._context.admit_session(request),
            self._context.disconnect(request),
        )
        group = self._connections if denial is None else self._refused
        group.add(connection)
        try:
            if denial is not None:
                connection.refuse(denial.message, _code(denial))
            await connection.serve()
        finally:
            group.discard(connection)
        return socket

    async def _serve_upload(self, request: web.Request) -> web.StreamResponse:
        if denial := self._context.deny_key(request):
            return error_response(Error(denial.message, _code(denial)), denial.status)
        if not self._context.admit_session(request):
            return error_response(Error(TOO_MANY_SESSIONS, CLIENT_FAULT), 429)
        upload = GradiumUpload(request, self._context, self._context.disconnect(request))
        self._uploads.add(upload)
        try:
            return await upload.serve()
        finally:
            self._uploads.discard(upload)


def _code(denial: Denial) -> int:
    return CLIENT_FAULT if denial.status < 500 else SERVER_FAULT
