"""`edged serve` as a process of its own, for tests of what a client can do to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from tests.support.mosquitto import free_port, until

EDGED = [sys.executable, "-c", "from edged.cli.main import main; main()"]
START_S = 60.0


@dataclass
class ServeProcess:
    """A running `edged serve`. `host` and `port` are where it listens, `url` is its base URL."""

    host: str
    port: int
    url: str
    process: subprocess.Popen[bytes] | None
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def rss_mb(self) -> float:
        assert self.process is not None
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def healthz(self, timeout_s: float = 5.0) -> requests.Response:
        """The answer of `/healthz`; certificates are not checked."""
        return requests.get(f"{self.url}/healthz", timeout=timeout_s, verify=False)


@contextlib.contextmanager
def serving(*options: str, host: str = "127.0.0.1", **settings: str) -> Iterator[ServeProcess]:
    """Runs `edged serve` on a free port until the block ends.

    `options` are added to the command line, `settings` to the environment as `EDGED_...`.
    """
    port = free_port()
    scheme = "https" if "tls_cert_file" in settings else "http"
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / "log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*EDGED, "serve", "--listen", f"{host}:{port}", *options],
                env=os.environ
                | {f"EDGED_{name.upper()}": value for name, value in settings.items()},
                stderr=log,
            )
        own = "127.0.0.1" if host == "0.0.0.0" else host
        served = ServeProcess(own, port, f"{scheme}://{own}:{port}", process, log_file)
        try:
            until(lambda: process.poll() is not None or is_open(served), "the server", START_S)
            assert process.poll() is None, served.log
            yield served
        finally:
            process.kill()
            process.wait()


def is_open(served: ServeProcess) -> bool:
    """Whether the server answers `/healthz` with 200."""
    with contextlib.suppress(requests.ConnectionError):
        return served.healthz().ok
    return False
