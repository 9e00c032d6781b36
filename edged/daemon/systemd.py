"""What systemd is told: READY, STATUS, RELOADING, STOPPING, WATCHDOG, and that a start needs more
time (sd_notify(3))."""

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
    """One datagram to `$NOTIFY_SOCKET`; nothing happens without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError):  # whoever listened there is gone
        if _systemd_notify is not None:
            _systemd_notify(message)
            return
        if address.startswith("@"):  # the abstract namespace
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(message.encode(), address)


def watchdog_interval_s() -> float | None:
    """How often systemd wants to hear from this process; None if it does not watch it."""
    try:
        interval = int(os.environ["WATCHDOG_USEC"]) / 1e6
        watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return interval if interval > 0 and watched == os.getpid() else None


class Notifier:
    """Remembers what was said, so that STATUS is sent on a change only."""

    def __init__(self) -> None:
        self._status = ""

    def status(self, sentence: str) -> None:
        if sentence != self._status:
            self._status = sentence
            send(f"STATUS={sentence}")

    def ready(self) -> None:
        send("READY=1")

    def extend_start(self, seconds: float) -> None:
        """The start may last `seconds` from now, where TimeoutStartSec= would end it sooner."""
        send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def reloading(self) -> None:
        """Must be followed by `ready`. systemd 253 and later want the time too."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        send("STOPPING=1")

    def watchdog(self) -> None:
        send("WATCHDOG=1")
