"""The captions page with a running edged: its API server, real models, speech as microphone."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import SAMPLES
from tests.support.chromium import Chromium
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import free_port, until

LIVE = "document.querySelector('#live').textContent"
STATUS = "document.body.dataset.status"
MUTE = "document.querySelector('#mute')"


def test_what_is_spoken_is_read_on_the_page_and_its_button_mutes(tmp_path: Path) -> None:
    port = free_port()
    daemon = DaemonProcess(
        tmp_path,
        free_port(),  # no broker: the page needs none
        listen=f"127.0.0.1:{port}",
        alsa_device=f"file:{SAMPLES}/mister-hale.flac",
    )
    with Chromium() as browser, daemon:
        page = browser.page(f"http://127.0.0.1:{port}/")  # leads to /kiosk/
        page.wait(f"{STATUS} == 'speaking'", 30)
        page.wait(f"{LIVE}.split(' ').length > 2", 30)
        page.wait("document.querySelectorAll('#log p').length > 0", 60)
        said = page.text("#log p")
        assert len(said.split()) > 3
        page.js(f"{MUTE}.click()")
        page.wait(f"{STATUS} == 'muted' && {MUTE}.ariaPressed == 'true'", 20)
        page.reload()
        page.wait(f"{STATUS} == 'muted'", 20)
        # Captions are drawn with the next frame: the status is there before them.
        page.wait(f"document.querySelector('#log p').innerText == {json.dumps(said)}")
        page.js(f"{MUTE}.click()")
        page.wait(f"{STATUS} != 'muted'", 20)
        assert page.complaints == []


def test_the_page_comes_with_headers_that_keep_it_fresh_and_whole(tmp_path: Path) -> None:
    import requests

    port = free_port()
    with DaemonProcess(
        tmp_path, free_port(), listen=f"127.0.0.1:{port}", alsa_device="hw:CARD=Nowhere"
    ):
        url = f"http://127.0.0.1:{port}"

        def there() -> bool:
            try:
                return requests.get(f"{url}/healthz", timeout=5).status_code in (200, 503)
            except requests.ConnectionError:
                return False

        until(there, "the API server is open", 30)
        page = requests.get(f"{url}/kiosk", timeout=5)
        assert page.url == f"{url}/kiosk/"
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Cache-Control"] == "no-cache"
        script = requests.get(f"{url}/kiosk/kiosk.js", timeout=5)
        assert script.headers["Content-Type"].startswith("text/javascript")
        for other in ("nothing.js", "..%2fedged.service", "../edged.service"):
            assert requests.get(f"{url}/kiosk/{other}", timeout=5).status_code == 404
        refused = requests.post(
            f"{url}/api/mute", json={"mute": True}, headers={"Origin": "http://evil"}, timeout=5
        )
        assert refused.status_code == 403
        assert requests.post(f"{url}/api/mute", json={"mute": "yes"}, timeout=5).status_code == 400
