"""A slow start is not ended by systemd's TimeoutStartSec=, one that hangs is."""

from __future__ import annotations

import re
import threading

import pytest

from edged.daemon import start_timeout
from edged.daemon.systemd import Notifier
from tests.integration.test_deploy_unit import UNIT
from tests.support.daemon_process import Systemd
from tests.support.mosquitto import until

MORE = f"EXTEND_TIMEOUT_USEC={round(start_timeout.PATIENCE_S * 1e6)}"


@pytest.fixture
def systemd(monkeypatch):
    systemd = Systemd()
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    yield systemd
    systemd.close()


class Looks:
    """What the process has used at each look; the last one goes on for ever."""

    def __init__(self, *used: start_timeout.Progress) -> None:
        self._used = list(used)
        self.count = 0
        self.all_seen = threading.Event()

    def __call__(self) -> start_timeout.Progress:
        self.count += 1
        if self.count > len(self._used) + 3:
            self.all_seen.set()
        return self._used[min(self.count, len(self._used)) - 1]


@pytest.mark.parametrize(
    ("used", "asked"),
    [
        pytest.param([(1.0, 0, 0)], 1, id="hangs"),
        pytest.param([(1.0, 0, 0), (1.01, 0, 0), (1.02, 0, 0)], 1, id="only looks"),
        pytest.param([(1.0, 0, 0), (2.0, 0, 0), (3.0, 0, 0)], 3, id="computes"),
        pytest.param([(1.0, 0, 0), (1.0, 8, 0), (1.0, 8, 1)], 3, id="reads"),
    ],
)
def test_more_time_is_asked_for_at_once_and_then_while_it_works(systemd, used, asked) -> None:
    """On an emulated processor the models took longer to load than TimeoutStartSec=, and systemd
    ended one start after the other."""
    looks = Looks(*used)
    with start_timeout.while_it_gets_on(Notifier(), looks, every_s=0.01):
        assert looks.all_seen.wait(30)
    Notifier().ready()
    until(lambda: systemd.lines("READY=1"), "all messages")
    assert systemd.lines("EXTEND") == [MORE] * asked


def test_it_does_not_ask_for_ever(systemd) -> None:
    """A start that turns in a circle uses the processor too."""
    looks = Looks(*((float(n), 0, 0) for n in range(300)))
    with start_timeout.while_it_gets_on(Notifier(), looks, every_s=0.001):
        most = round(start_timeout.LONGEST_S / start_timeout.EVERY_S)
        until(lambda: looks.count == most + 1, "the last look")
    until(lambda: len(systemd.lines("EXTEND")) == most + 1, "the last message")
    assert "still-starting" not in [thread.name for thread in threading.enumerate()]


def test_nothing_is_asked_for_after_the_start_even_if_it_failed(systemd) -> None:
    looks = Looks(*((float(n), 0, 0) for n in range(300)))
    with (
        pytest.raises(RuntimeError, match="no model"),
        start_timeout.while_it_gets_on(Notifier(), looks, every_s=0.001),
    ):
        raise RuntimeError("no model")
    assert "still-starting" not in [thread.name for thread in threading.enumerate()]


def test_this_process_is_seen_to_work() -> None:
    before = start_timeout.progress()
    until(lambda: sum(range(100_000)) and start_timeout.progress()[0] - before[0] > 0.1, "CPU time")


def test_what_it_asks_for_is_what_the_unit_gives() -> None:
    unit = UNIT.read_text()
    (seconds,) = re.findall(r"(?m)^TimeoutStartSec=(\d+)$", unit)
    assert float(seconds) == start_timeout.PATIENCE_S
