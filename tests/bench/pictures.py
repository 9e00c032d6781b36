"""Takes the picture of the captions page that the README shows.

    python -m tests.bench.pictures [--out deploy/pictures/captions.png]

Runs edged with the sample speech as microphone and waits until two turns and some words of the next
are on the page. Needs Chromium. The pictures of Home Assistant come from
`make test-homeassistant`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.support.chromium import Chromium
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import free_port

TURNS, WORDS = 2, 4


def take(out: Path) -> None:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        daemon = DaemonProcess(
            Path(folder), free_port(), listen=f"127.0.0.1:{port}", alsa_device="sample"
        )
        with Chromium() as browser, daemon:
            page = browser.page(f"http://127.0.0.1:{port}/kiosk/?theme=dark&size=0.6", 1200, 440)
            page.wait(
                f"document.querySelectorAll('#log p').length >= {TURNS} &&"
                f" document.querySelector('#live').textContent.split(' ').length >= {WORDS}",
                300,
            )
            page.screenshot(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the picture of the captions page.")
    parser.add_argument("--out", type=Path, default=Path("deploy/pictures/captions.png"))
    take(parser.parse_args().out)


if __name__ == "__main__":
    main()
