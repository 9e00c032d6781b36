"""The captions page when the API server refuses it: no key, foreign origin, no microphone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files

import pytest
import requests

from edged.server.access import Origins
from edged.server.api_server import ApiServer
from tests.support.api_server import open_api_server, scripted_sessions
from tests.support.captions_page import KIOSK
from tests.support.chromium import Chromium, Page

KEY = "schlüssel + 100%?"
STATUS = "document.body.dataset.status"
SHOWN = "!document.querySelector('#key-form').hidden"
STORED = "localStorage.getItem('edged-api-key')"
WITH_KEY = "#key=schl%C3%BCssel%20+%20100%25?"


@pytest.fixture
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def api_server() -> Iterator[ApiServer]:
    muted: list[bool] = []
    with open_api_server(
        scripted_sessions(), api_key=KEY, microphone=True, set_mute=muted.append
    ) as opened:
        opened.muted = muted  # type: ignore[attr-defined]
        yield opened


def type_in(page: Page, key: str) -> None:
    page.js(f"document.querySelector('#key').value = {json.dumps(key)}")
    page.js("document.querySelector('#key-form button').click()")


def test_no_public_file_contains_the_key(api_server: ApiServer) -> None:
    """The key was in config.js, which is served without a key."""
    config = requests.get(f"{api_server.url}/kiosk/config.js", timeout=10).text
    assert "key:" not in config
    assert not any("config.key" in file.read_text() for file in KIOSK.iterdir())


def test_the_page_asks_for_the_key_once_and_the_browser_stores_it(
    browser: Chromium, api_server: ApiServer
) -> None:
    page = browser.page(f"{api_server.url}/kiosk/", 360, 640)
    page.wait(SHOWN, 20)
    assert page.text("#status") == "This device requires its key"
    assert page.js("document.activeElement.id") == "key"
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    page.js(files("axe_core_python").joinpath("axe.min.js").read_text() + "; 0")
    assert page.js("axe.run().then(r => r.violations.map(v => v.id))") == []
    type_in(page, "wrong")
    page.wait("document.querySelector('#status').innerText.startsWith('The x-api-key')", 20)
    assert page.js(STORED) is None
    type_in(page, KEY)
    page.wait(f"{STATUS} == 'listening' && !({SHOWN})", 20)
    assert page.js(STORED) == KEY
    page.reload()
    page.wait(f"{STATUS} == 'listening'", 20)
    page.js("document.querySelector('#mute').click()")
    page.wait("performance.getEntriesByType('resource').some(e => e.name.includes('/api/mute'))")
    assert api_server.muted == [True]  # type: ignore[attr-defined]
    page.close()


def test_a_key_in_the_address_is_stored_and_removed_from_it(
    browser: Chromium, api_server: ApiServer
) -> None:
    page = browser.page(f"{api_server.url}/kiosk/?theme=dark{WITH_KEY}")
    page.wait(f"{STATUS} == 'listening'", 20)
    assert page.js("location.href") == f"{api_server.url}/kiosk/?theme=dark"
    assert page.js(STORED) == KEY
    page.js("navigator.serviceWorker.ready.then(() => true)")
    kept = "caches.open('edged-kiosk').then(c => c.keys()).then(k => k.map(r => r.url).join(' '))"
    assert "key=" not in page.js(kept)
    page.go(f"{api_server.url}/kiosk/#key=junk")  # a foreign link
    page.wait(f"{STATUS} == 'unreachable' && {SHOWN}", 20)
    assert page.js(STORED) == KEY
    page.reload()
    page.wait(f"{STATUS} == 'listening'", 20)
    page.close()


def test_the_page_shows_why_the_api_server_refuses_it(browser: Chromium) -> None:
    """Behind a proxy, or with a host name that the device does not know, the WebSocket was refused
    and the page showed "No connection, trying again" for ever."""
    with open_api_server(scripted_sessions(), microphone=True) as api_server:
        port = api_server.url.rpartition(":")[2]
        page = browser.page(api_server.url + "/kiosk/")
        page.wait(f"{STATUS} == 'listening'", 20)
        # As if the page had been loaded from another host: its origin is refused from now on.
        api_server.access.origins = NoPages()
        page.reload()
        page.wait("document.querySelector('#status').innerText.includes('ORIGINS')", 20)
        assert page.text("#status") == (
            f"The page http://127.0.0.1:{port} may not connect: EDGED_LISTEN_ORIGINS lists those "
            "that may"
        )
        api_server.access.origins = Origins()
        page.wait(f"{STATUS} == 'listening'", 20)
        page.close()


class NoPages(Origins):
    def permits(self, origin: str | None, host: str) -> bool:
        return origin is None


def test_an_api_server_without_a_microphone_is_reported_on_the_page(browser: Chromium) -> None:
    with open_api_server(scripted_sessions()) as api_server:
        page = browser.page(api_server.url + "/kiosk/")
        page.wait("document.querySelector('#status').innerText.includes('no microphone')", 20)
        page.close()
