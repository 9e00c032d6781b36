"""Messages to systemd: READY, STATUS, RELOADING, STOPPING, WATCHDOG, EXTEND_TIMEOUT_USEC.

See sd_notify(3). Without systemd nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

try:
    from systemd.daemon import notify as _systemd_notify
except ImportError:  # a container or a checkout without libsystemd's headers
    _systemd_notify = None


def send(message: str) -> None:
    """Sends one datagram to `$NOTIFY_SOCKET`. Does nothing if there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError):  # nobody listens there any more
        if _systemd_notify is not None:
            _systemd_notify(message)
            return
        if address.startswith("@"):  # the abstract namespace
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(message.encode(), address)


def watchdog_interval_s() -> float | None:
    """The interval in which systemd expects WATCHDOG=1; None if it does not watch this process."""
    try:
        interval = int(os.environ["WATCHDOG_USEC"]) / 1e6
        watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return interval if interval > 0 and watched == os.getpid() else None


class Notifier:
    """The messages. STATUS is sent only if it has changed."""

    def __init__(self) -> None:
        self._status = ""

    def status(self, message: str) -> None:
        """Sets the line that `systemctl status` shows."""
        if message != self._status:
            self._status = message
            send(f"STATUS={message}")

    def ready(self) -> None:
        """Start-up, or a reload, has finished."""
        send("READY=1")

    def extend_start_timeout(self, seconds: float) -> None:
        """Allows start-up `seconds` from now, even if TimeoutStartSec= ends earlier."""
        send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def reloading(self) -> None:
        """A reload has begun; `ready` must follow. systemd 253 and later need the time too."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        send("STOPPING=1")

    def watchdog(self) -> None:
        """All is well; must be sent in each interval of the watchdog."""
        send("WATCHDOG=1")
