"""Pages of other origins in a real browser: what a listed page may do, and others may not."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.server.access import Origins
from tests.support.api_server import open_api_server, scripted_sessions
from tests.support.chromium import Chromium

UPLOAD = """
fetch('%s/api/post/speech/asr?input_format=pcm', {
    method: 'POST', headers: {'x-api-key': 'right'}, body: new Uint8Array(3840 * 2)
}).then(answer => answer.text()).catch(String).then(text => { window.answer = text })
"""

FRAME = """
const frame = document.createElement('iframe');
frame.onload = () => { window.loaded = true };
frame.src = '%s';
document.body.append(frame);
"""


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serves an empty page, and yields its origin."""
    (folder / "index.html").write_text("<!doctype html><title>a page</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_only_a_listed_page_may_upload_and_read_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its origin was accepted, but its preflight request was not answered."""
    with site(tmp_path) as listed, site(tmp_path) as other, Chromium() as browser:
        origins = Origins(frozenset({listed}))
        with open_api_server(scripted_sessions(), api_key="right", origins=origins) as api_server:
            page = browser.page(f"{listed}/")
            page.js(UPLOAD % api_server.url)
            page.wait("window.answer")
            assert '"w1"' in page.js("window.answer")
            page.go(f"{other}/")
            page.js(UPLOAD % api_server.url)
            page.wait("window.answer")
            assert "Failed to fetch" in page.js("window.answer")


def test_no_other_page_can_show_the_captions_in_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any page could, and cover the button with something else: a click on that muted the device,
    because the request came from the captions page itself."""
    with (
        site(tmp_path) as other,
        Chromium() as browser,
        open_api_server(
            scripted_sessions(), microphone=True, set_mute=lambda _: None
        ) as api_server,
    ):
        alone = browser.page(f"{api_server.url}/kiosk/")
        alone.wait("document.body.dataset.status == 'listening'", 20)
        assert alone.complaints == []
        page = browser.page(f"{other}/")
        page.js(FRAME % f"{api_server.url}/kiosk/")
        page.wait("window.loaded")
        assert [c for c in page.complaints if "frame-ancestors 'none'" in c], page.complaints
