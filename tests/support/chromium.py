"""A real headless Chromium, driven by its own DevTools protocol over a WebSocket."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.mosquitto import until

FLAGS = ("--headless=new", "--no-first-run", "--disable-gpu", "--remote-debugging-port=0",
         "--disable-background-networking", "--disable-component-update", "--mute-audio",
         "--disable-dev-shm-usage", "--hide-scrollbars", "--enable-precise-memory-info",
         "--js-flags=--expose-gc")  # fmt: skip


def binary() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """`with Chromium() as browser: page = browser.page(url)`."""

    def __enter__(self) -> Chromium:
        self._home = tempfile.mkdtemp(prefix="edged-chromium-")
        program = binary()
        assert program, "chromium is missing: deploy/system-packages test"
        root = ["--no-sandbox"] if os.getuid() == 0 else []
        self._process = subprocess.Popen(
            [program, *FLAGS, *root, f"--user-data-dir={self._home}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ports = Path(self._home) / "DevToolsActivePort"
        try:
            until(lambda: ports.exists() and ports.read_text().count("\n"), "it listens", 120)
        except AssertionError:
            self.__exit__()
            raise
        self._port = int(ports.read_text().split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def page(self, url: str, width: int = 1920, height: int = 1080, **media: str) -> Page:
        """A new tab. `media`: features such as prefers_color_scheme="dark"."""
        ask = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new", method="PUT")
        with urllib.request.urlopen(ask, timeout=20) as answer:
            about = json.load(answer)
        page = Page(connect(about["webSocketDebuggerUrl"], max_size=None))
        page.call("Page.enable")
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.screen(width, height)
        page.media(**media)
        page.go(url)
        return page


class Page:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._id = 0
        self.complaints: list[str] = []  # errors that the page wrote to its console

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **params: Any) -> Any:
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(event["params"]["exceptionDetails"])[:600])
        if event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["level"] == "error":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        until(lambda: self.js("document.readyState") == "complete", f"{url} is loaded", 30)

    def reload(self) -> None:
        self.js("window.before = true")
        self.call("Page.reload")
        until(lambda: self.js("!window.before && document.readyState") == "complete", "reload", 30)

    def _evaluate(self, expression: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return answer

    def js(self, expression: str) -> Any:
        answer = self._evaluate(expression)
        assert "exceptionDetails" not in answer, json.dumps(answer["exceptionDetails"])[:800]
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 10) -> Any:
        """While one page leads to another the expression may fail: that is "not yet", too."""

        def value() -> Any:
            answer = self._evaluate(expression)
            return None if "exceptionDetails" in answer else answer["result"].get("value")

        return until(value, f"{expression} in the page", timeout_s)

    def text(self, selector: str) -> str:
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def screen(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def media(self, **features: str) -> None:
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def screenshot(self, path: Path) -> Path:
        time.sleep(0.3)
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def heap_kb(self) -> float:
        """Of JavaScript, after the garbage was collected."""
        self.call("HeapProfiler.collectGarbage")
        return float(self.call("Runtime.getHeapUsage")["usedSize"]) / 1000
