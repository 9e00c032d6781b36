"""systemd's TimeoutStartSec= ends a start that hangs, and not one that is slow."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.daemon import start_timeout
from edged.daemon.start_timeout import Usage, extending_start_timeout
from edged.daemon.systemd import Notifier
from tests.support.mosquitto import until
from tests.support.systemd import Systemd

UNIT = Path(__file__).parents[2] / "deploy" / "edged.service"
EXTENSION = f"EXTEND_TIMEOUT_USEC={round(start_timeout.EXTENSION_S * 1e6)}"


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    receiver = Systemd()
    monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
    yield receiver
    receiver.close()


class Measurements:
    """What the process has used at each measurement; the last value repeats."""

    def __init__(self, *values: Usage) -> None:
        self._values = list(values)
        self.count = 0
        self.all_used = threading.Event()

    def __call__(self) -> Usage:
        self.count += 1
        if self.count > len(self._values) + 3:
            self.all_used.set()
        return self._values[min(self.count, len(self._values)) - 1]


@pytest.mark.parametrize(
    ("values", "extensions"),
    [
        pytest.param([(1.0, 0, 0)], 1, id="hangs"),
        pytest.param([(1.0, 0, 0), (1.01, 0, 0), (1.02, 0, 0)], 1, id="only measures"),
        pytest.param([(1.0, 0, 0), (2.0, 0, 0), (3.0, 0, 0)], 3, id="computes"),
        pytest.param([(1.0, 0, 0), (1.0, 8, 0), (1.0, 8, 1)], 3, id="reads"),
    ],
)
def test_the_timeout_is_extended_at_once_and_then_while_there_is_progress(
    systemd: Systemd, values: list[Usage], extensions: int
) -> None:
    """On an emulated processor the models took longer to load than TimeoutStartSec=, and systemd
    ended one start after the other."""
    measure = Measurements(*values)
    with extending_start_timeout(Notifier(), measure, interval_s=0.01):
        assert measure.all_used.wait(30)
    Notifier().ready()
    until(lambda: systemd.lines("READY=1"), "all messages")
    assert systemd.lines("EXTEND") == [EXTENSION] * extensions


def test_the_timeout_is_not_extended_for_ever(systemd: Systemd) -> None:
    """A start in an endless loop uses the processor too."""
    measure = Measurements(*((float(n), 0, 0) for n in range(300)))
    with extending_start_timeout(Notifier(), measure, interval_s=0.001):
        limit = round(start_timeout.MAX_START_S / start_timeout.CHECK_INTERVAL_S)
        until(lambda: measure.count == limit + 1, "the last measurement")
    until(lambda: len(systemd.lines("EXTEND")) == limit + 1, "the last message")
    assert "start-timeout" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.usefixtures("systemd")
def test_the_thread_ends_with_the_start_even_if_that_failed() -> None:
    measure = Measurements(*((float(n), 0, 0) for n in range(300)))
    with (
        pytest.raises(RuntimeError, match="no model"),
        extending_start_timeout(Notifier(), measure, interval_s=0.001),
    ):
        raise RuntimeError("no model")
    assert "start-timeout" not in [thread.name for thread in threading.enumerate()]


def test_this_process_is_seen_to_work() -> None:
    before = start_timeout.usage()
    until(lambda: sum(range(100_000)) and start_timeout.usage()[0] - before[0] > 0.1, "CPU time")


def test_the_unit_has_the_same_timeout() -> None:
    (seconds,) = re.findall(r"(?m)^TimeoutStartSec=(\d+)$", UNIT.read_text())
    assert float(seconds) == start_timeout.EXTENSION_S
