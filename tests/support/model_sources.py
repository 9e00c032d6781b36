"""A web server that misbehaves on demand, toy wheels and a toy catalogue, for the model tests."""

from __future__ import annotations

import base64
import hashlib
import io
import ssl
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edged.models.catalogue import Catalogue, read
from edged.models.download import Transport

QUICK = Transport(connect_s=10, read_s=2, attempts=3, backoff_s=0.01)


@dataclass
class Web:
    """`pages` by path. `mishaps` are used up one a request: a status, or one of cut, stall,
    norange, other (bytes of the right length that are wrong), shift (another range than asked)."""

    pages: dict[str, bytes] = field(default_factory=dict)
    mishaps: list[int | str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)  # of each request
    paths: list[str] = field(default_factory=list)
    password: str | None = None
    pace_s: float = 0.0  # between pieces of 64 KiB
    url: str = ""

    def give(self, path: str, data: bytes) -> str:
        self.pages[path] = data
        return self.url + path


@contextmanager
def web(certificates: Path | None = None) -> Iterator[Web]:
    """certificates: a folder with server.crt and server.key; the server then speaks HTTPS."""
    site = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, site)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who does not trust it
        server.socket = context.wrap_socket(server.socket, server_side=True)
        site.url = site.url.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(call: BaseHTTPRequestHandler, site: Web) -> None:
    asked = call.headers.get("Range")
    site.ranges.append(asked)
    site.paths.append(call.path)
    if site.password and call.headers.get("Authorization") != _basic(site.password):
        call.send_response(401)
        call.send_header("WWW-Authenticate", 'Basic realm="toys"')
        call.end_headers()
        return
    mishap = site.mishaps.pop(0) if site.mishaps else None
    data = site.pages.get(call.path)
    if isinstance(mishap, int) or data is None:
        call.send_response(mishap if isinstance(mishap, int) else 404)
        call.send_header("Content-Length", "0")
        call.end_headers()
        return
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if mishap == "norange":
        asked, start = None, 0
    if asked and start >= len(data):
        call.send_response(416)
        call.send_header("Content-Range", f"bytes */{len(data)}")
        call.send_header("Content-Length", "0")
        call.end_headers()
        return
    if mishap == "shift":
        start += 1
    body = data[start:] if mishap != "other" else bytes(len(data) - start)
    call.send_response(206 if asked else 200)
    if asked:
        call.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    if call.path.endswith("/"):
        call.send_header("Content-Type", "text/html")
    call.send_header("Content-Length", str(len(body)))
    call.end_headers()
    _send(call, site, body, mishap)


def _send(call: BaseHTTPRequestHandler, site: Web, body: bytes, mishap: object) -> None:
    try:
        if mishap in ("cut", "stall"):
            call.wfile.write(body[: len(body) // 2])
            call.wfile.flush()
            time.sleep(5.0 if mishap == "stall" else 0)
            call.close_connection = True
            return
        for i in range(0, len(body), 1 << 16):
            call.wfile.write(body[i : i + (1 << 16)])
            time.sleep(site.pace_s)
    except (BrokenPipeError, ConnectionResetError):
        pass  # a client that was killed


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(password.encode()).decode()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(name: str, files: dict[str, bytes], platform: str = "any") -> tuple[str, bytes]:
    """(file name, bytes) of a wheel of version 1.0 that pip accepts."""
    info = f"{name}-1.0.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL",
            f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}-1.0-py3-none-{platform}.whl", out.getvalue()


def entry(name: str, *files: str, kind: str = "vad", more: str = "") -> str:
    """TOML of one model; `files` are the lines of each [[model.file]], `more` of the model."""
    blocks = "".join(f"\n[[model.file]]\n{lines}\n" for lines in files)
    return f"""
[[model]]
name = "{name}"
title = "a toy"
kind = "{kind}"
default = true
language = "en"
licence = "MIT"
licence_note = "Free for any use."
non_commercial = false
origin = "tests"
{more}
{blocks}"""


def file_lines(name: str, data: bytes, **where: str) -> str:
    lines = [f'name = "{name}"', f"size = {len(data)}", f'sha256 = "{sha(data)}"']
    return "\n".join([*lines, *(f'{key} = "{value}"' for key, value in where.items())])


def catalogue(folder: Path, *entries: str) -> Catalogue:
    path = folder / "catalogue.toml"
    path.write_text("".join(entries))
    return read(path)
