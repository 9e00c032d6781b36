"""A real `edged run` in a process of its own, with the test in the place of systemd."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.conftest import SAMPLES
from tests.support.mosquitto import until
from tests.support.systemd import Systemd

MAIN = "from edged.cli.main import main; main()"
RUN = [sys.executable, "-c", MAIN, "run"]


def _end_with_the_test() -> None:
    """In the child: a killed test run leaves no daemon behind (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class DaemonProcess:
    """One `edged run`. `with DaemonProcess(...) as daemon` starts it and waits for READY=1.

    Attributes:
        before: Python code that the process runs first, to slow it down or to look inside.
    """

    before = ""

    def __init__(self, folder: Path, port: int, device: str = "device", **settings: Any) -> None:
        self.folder = folder
        self.env_file = folder / "edged.env"
        self.settings: dict[str, Any] = {
            "mqtt_url": f"mqtt://127.0.0.1:{port}",
            "device": device,
            "alsa_device": f"file:{SAMPLES}/mister-hale.flac",
            "state_dir": folder / "state",
        } | settings
        self.environment: dict[str, str] = {}
        self.systemd = Systemd()
        self.process: subprocess.Popen[bytes] | None = None
        self.write()

    def write(self, **settings: Any) -> None:
        """Changes settings and replaces the env file."""
        self.settings |= settings
        lines = [f"EDGED_{k.upper()}='{v}'" for k, v in self.settings.items() if v is not None]
        new = self.env_file.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.env_file)

    def __enter__(self) -> DaemonProcess:
        return self.start()

    def start(self, ready: bool = True) -> DaemonProcess:
        known = {k: v for k, v in os.environ.items() if not k.startswith("EDGED_")}
        environment = known | {
            "NOTIFY_SOCKET": self.systemd.address,
            "XDG_RUNTIME_DIR": str(self.folder / "runtime"),
            "ORT_DISABLE_TELEMETRY": "1",
        }
        if "EDGED_MODELS_DIR" in os.environ:
            environment["EDGED_MODELS_DIR"] = os.environ["EDGED_MODELS_DIR"]
        self.systemd.received.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{self.before}\n{MAIN}", "run", "--env-file", self.env_file],
            env=environment | self.environment,
            stderr=(self.folder / "log").open("ab"),
            preexec_fn=_end_with_the_test,
        )
        if ready:
            try:
                until(lambda: self.systemd.lines("READY=1") or self._died(), "READY=1", 90)
            except BaseException:
                self.__exit__()
                raise
        return self

    def _died(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return False

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.systemd.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> float:
        """Sends SIGTERM, and returns the seconds until the process ended with exit code 0."""
        assert self.process is not None
        started = time.monotonic()
        self.signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log()
        return time.monotonic() - started

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def log(self) -> str:
        return (self.folder / "log").read_text()
