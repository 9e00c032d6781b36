"""A thread that hangs is reported, and the process ends so that its supervisor starts it again."""

from __future__ import annotations

import pytest

from edged.daemon import watchdog
from edged.daemon.heartbeats import Heartbeats
from edged.daemon.systemd import Notifier
from edged.daemon.watchdog import Watchdog
from tests.support.mosquitto import until
from tests.support.systemd import Systemd


class Watched:
    """A watchdog over two threads whose heartbeat ages a test sets."""

    def __init__(self) -> None:
        self.engine = self.mqtt = 0.0
        self.changes: list[str] = []
        self.errors: list[str] = []
        self.watchdog = Watchdog(
            Notifier(), lambda: self.changes.append(self.watchdog.message), self.errors.append
        )
        self.watchdog.heartbeats.watch("engine", lambda: self.engine)
        self.watchdog.heartbeats.watch("mqtt", lambda: self.mqtt)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd does not watch this process."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)


def test_only_the_thread_that_does_not_beat_is_named() -> None:
    ages = {"capture": 0.0, "engine": 0.0, "mqtt": 0.0}
    heartbeats = Heartbeats(stale_s=10)
    for name in ages:
        heartbeats.watch(name, lambda name=name: ages[name])  # type: ignore[misc]
    assert heartbeats.stale() == []
    ages["engine"] = 11.0
    assert heartbeats.stale() == ["engine"]


@pytest.mark.usefixtures("alone")
def test_a_hung_thread_is_reported_once_an_episode_without_systemd_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Heartbeats were looked at only if systemd watched."""
    caplog.set_level("INFO")
    watched = Watched()
    for now, watched.engine in enumerate([0.0, 11.0, 12.0, 13.0, 0.0, 0.0, 11.0]):
        watched.watchdog.check(now)
        assert watched.watchdog.recognition_stopped is (watched.engine > 10)
    hung = "no heartbeat from: engine"
    assert watched.changes == [hung, "", hung]
    assert [record.getMessage() for record in caplog.records] == [
        hung,
        "every thread sends heartbeats again",
        hung,
    ]
    assert not watched.watchdog.must_exit


def test_systemd_is_not_fed_while_a_thread_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd()
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    watched = Watched()
    watched.watchdog.check(0.0)
    watched.engine = 11.0
    watched.watchdog.check(11.0)
    watched.watchdog.check(11.0 + 2 * watchdog.EXIT_AFTER_S)
    assert not watched.watchdog.must_exit  # systemd ends the process
    until(lambda: systemd.lines("WATCHDOG=1") == ["WATCHDOG=1"], "fed once")
    systemd.close()


@pytest.mark.usefixtures("alone")
def test_without_systemd_the_daemon_must_exit_after_half_a_minute() -> None:
    watched = Watched()
    watched.engine = 11.0
    watched.watchdog.check(11.0)
    watched.watchdog.check(10.9 + watchdog.EXIT_AFTER_S)
    assert not watched.watchdog.must_exit
    watched.watchdog.check(11.0 + watchdog.EXIT_AFTER_S)
    assert watched.watchdog.must_exit


@pytest.mark.usefixtures("alone")
def test_threads_that_each_recover_do_not_add_up_to_an_exit() -> None:
    """A slow memory card and a slow network, each for some seconds and one before the other had
    ended, were added up, and the process ended."""
    watched = Watched()
    for now in range(100):
        watched.engine = 11.0 if now % 20 < 12 else 0.0
        watched.mqtt = 11.0 if (now + 10) % 20 < 12 else 0.0
        watched.watchdog.check(now)
        assert watched.watchdog.hung_threads
    watched.engine = watched.mqtt = 0.0
    watched.watchdog.check(100)
    watched.engine = 11.0
    for now in range(101, 101 + int(watchdog.EXIT_AFTER_S) + 1):
        assert not watched.watchdog.must_exit
        watched.watchdog.check(now)
    assert watched.watchdog.must_exit


@pytest.mark.usefixtures("alone")
def test_threads_that_come_and_go_do_not_fill_the_spool_with_errors() -> None:
    """Every change was published as an error, even a recovery while another thread still hung."""
    watched = Watched()
    both, engine, mqtt = (f"no heartbeat from: {n}" for n in ("engine, mqtt", "engine", "mqtt"))
    interval_s = watchdog.MIN_REPORT_INTERVAL_S
    for now, watched.engine, watched.mqtt in (
        (0, 11.0, 0.0),
        (1, 11.0, 11.0),
        (2, 0.0, 11.0),
        (interval_s - 1, 0.0, 11.0),
    ):
        watched.watchdog.check(now)
    assert watched.errors == [engine]
    assert watched.changes == [engine, both, mqtt]
    watched.watchdog.check(interval_s)  # it still hangs, and was not reported yet
    watched.watchdog.check(2 * interval_s)
    assert watched.errors == [engine, mqtt]
    watched.mqtt = 0.0
    for now in range(200, 800):
        watched.engine = 11.0 if now % 2 else 0.0
        watched.watchdog.check(now)
    assert len(watched.errors) <= 2 + 600 / interval_s + 1
