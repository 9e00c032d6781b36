"""Stands in for systemd: the other end of $NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time


class Systemd:
    """Receives the messages of sd_notify(3) and keeps each with its time."""

    def __init__(self, abstract: bool = False) -> None:
        """abstract: listens in the abstract namespace instead of on a path."""
        self.received: list[tuple[float, str]] = []
        self._folder = tempfile.mkdtemp(prefix="edged-")
        self.address = f"{self._folder}/n"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if abstract:
            self.address = f"@edged-test-{os.getpid()}-{id(self)}"
        self._socket.bind(self.address.replace("@", "\0") if abstract else self.address)
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                text = self._socket.recv(4096).decode()
                self.received += [(time.monotonic(), line) for line in text.splitlines()]

    def lines(self, start: str) -> list[str]:
        """The lines so far that begin with `start`."""
        return [line for _, line in list(self.received) if line.startswith(start)]

    @property
    def status(self) -> str:
        """The last STATUS."""
        return (self.lines("STATUS=") or [""])[-1].removeprefix("STATUS=")

    def close(self) -> None:
        self._socket.close()
