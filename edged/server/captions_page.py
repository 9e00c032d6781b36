"""Serves the captions page at `/kiosk/`.

Its files are public; the events that it shows are protected by the API key.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from edged import resources

_HEADERS = {
    "Cache-Control": "no-cache",  # checked again after an upgrade; the page keeps its own copy
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # In a frame of a foreign page, a click that was meant for that page could mute the device.
    # index.html has the rest of the policy: a browser obeys both.
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def add_routes(app: web.Application) -> None:
    """Adds routes for the files that exist now, by their names, and for nothing else."""
    folder = resources.captions_page()
    files = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}

    async def serve_file(request: web.Request) -> web.StreamResponse:
        file = files.get(request.match_info["name"] or "index.html")
        if file is None:
            raise web.HTTPNotFound
        return _response(file)

    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/kiosk/")

    app.router.add_get("/kiosk/{name:[a-z.]*}", serve_file)
    app.router.add_get("/kiosk", redirect)
    app.router.add_get("/", redirect)


def _response(file: Path) -> web.FileResponse:
    headers = dict(_HEADERS)
    headers["Content-Type"] = _TYPES.get(file.suffix, "text/html") + "; charset=utf-8"
    return web.FileResponse(file, headers=headers)
