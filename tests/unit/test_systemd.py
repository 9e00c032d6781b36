"""What is sent to systemd, and what its watchdog expects."""

from __future__ import annotations

import os
import time

import pytest

from edged.daemon import systemd
from edged.daemon.systemd import Notifier, send, watchdog_interval_s
from tests.support.mosquitto import until
from tests.support.systemd import Systemd


@pytest.fixture(params=["library", "fallback"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With systemd-python, and without it as in a container."""
    if request.param == "fallback":
        monkeypatch.setattr(systemd, "_systemd_notify", None)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("abstract", [False, True])
def test_each_message_is_sent_and_a_status_only_when_it_changes(
    monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    receiver = Systemd(abstract)
    monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
    notifier = Notifier()
    notifier.ready()
    notifier.status("listening")
    notifier.status("listening")
    notifier.reloading()
    notifier.watchdog()
    notifier.stopping()
    until(lambda: receiver.lines("STOPPING=1"), "all messages")
    keys = [line.partition("=")[0] for _, line in receiver.received]
    assert keys == ["READY", "STATUS", "RELOADING", "MONOTONIC_USEC", "WATCHDOG", "STOPPING"]
    microseconds = int(receiver.lines("MONOTONIC_USEC=")[0].partition("=")[2])
    assert 0 < microseconds / 1e6 <= time.clock_gettime(time.CLOCK_MONOTONIC)
    receiver.close()


@pytest.mark.usefixtures("_either_way")
def test_nothing_happens_without_systemd_or_with_a_dead_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    send("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    send("READY=1")


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_a_watchdog_meant_for_another_process_is_ignored(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], interval: float | None
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert watchdog_interval_s() == interval
