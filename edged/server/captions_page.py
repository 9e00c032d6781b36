"""`/kiosk/`: the captions page of this box. Plain files, for anybody who reaches the door: what is
worth protecting, the events, asks for the key."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from edged import resources

_HEADERS = {
    "Cache-Control": "no-cache",  # asked for again after an upgrade; the page keeps its own copy
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # In a frame of another site's page a click that was meant for that page would mute. What else
    # the page may do stands in index.html: a browser obeys both policies.
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def add_to(app: web.Application) -> None:
    """Serves the files that are there now, by their names, and nothing else."""
    folder = resources.captions_page()
    files = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}

    async def serve(request: web.Request) -> web.StreamResponse:
        file = files.get(request.match_info["name"] or "index.html")
        if file is None:
            raise web.HTTPNotFound
        return _answer(file)

    async def to_page(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/kiosk/")

    app.router.add_get("/kiosk/{name:[a-z.]*}", serve)
    app.router.add_get("/kiosk", to_page)
    app.router.add_get("/", to_page)


def _answer(file: Path) -> web.FileResponse:
    headers = dict(_HEADERS)
    headers["Content-Type"] = _TYPES.get(file.suffix, "text/html") + "; charset=utf-8"
    return web.FileResponse(file, headers=headers)
