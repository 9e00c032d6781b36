"""A thread that ends or hangs is told of, and the process ends so that somebody starts it again."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from edged.daemon import watchdog
from edged.daemon.run_with_timeout import has_orphaned_work, run_with_timeout
from edged.daemon.systemd import Notifier
from edged.daemon.watchdog import Watchdog
from edged.errors import ConfigError
from tests.support.daemon_process import Box, Systemd
from tests.support.mosquitto import Ear, Mosquitto, free_port, until

DYING_ENGINE = """
import edged.engine.engine_thread as engine, edged.daemon.health as health
import edged.daemon.watchdog as watchdog
health.Heartbeats.__init__.__defaults__ = (6.0,)
watchdog.GIVE_UP_S = 3.0
def die(self):
    if self._steps > 10:
        raise SystemExit
engine.Engine._tell_dropped = die
"""

SLOW_RELOAD = """
import time, edged.models.loader as loader
load, calls = loader.load, []
def slow(*args):
    calls.append(args)
    time.sleep(0 if len(calls) == 1 else %g)
    return load(*args)
loader.load = slow
"""


class Watched:
    """A vigil over the recogniser and the broker's thread, whose ages a test sets."""

    def __init__(self) -> None:
        self.age = self.other = 0.0
        self.changes: list[str] = []
        self.alarms: list[str] = []
        self.vigil = Watchdog(
            Notifier(), lambda: self.changes.append(self.vigil.sentence), self.alarms.append
        )
        self.vigil.heartbeats.watch("engine", lambda: self.age)
        self.vigil.heartbeats.watch("mqtt", lambda: self.other)


def test_silence_is_told_of_once_an_episode_with_no_watchdog_too(monkeypatch, caplog) -> None:
    """Heartbeats were looked at only if systemd asked for signs of life."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    caplog.set_level("INFO")
    watched = Watched()
    for now, age in enumerate([0.0, 11.0, 12.0, 13.0, 0.0, 0.0, 11.0]):
        watched.age = age
        watched.vigil.look(now)
        assert watched.vigil.deaf is (age > 10)
    silent = "no sign of life from: engine"
    assert watched.changes == [silent, "", silent]
    assert [r.getMessage() for r in caplog.records] == [
        silent,
        "every thread gives a sign of life again",
        silent,
    ]
    assert not watched.vigil.given_up


def test_it_gives_up_alone_and_only_if_there_is_no_watchdog(monkeypatch) -> None:
    systemd = Systemd()
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    watched = Watched()
    watched.vigil.look(0.0)
    watched.age = 11.0
    watched.vigil.look(11.0)
    watched.vigil.look(11.0 + 2 * watchdog.GIVE_UP_S)
    assert not watched.vigil.given_up  # it is not fed: systemd ends it
    until(lambda: systemd.lines("WATCHDOG=1") == ["WATCHDOG=1"], "fed once")
    monkeypatch.delenv("WATCHDOG_USEC")
    watched = Watched()
    watched.age = 11.0
    watched.vigil.look(11.0)
    watched.vigil.look(10.9 + watchdog.GIVE_UP_S)
    assert not watched.vigil.given_up
    watched.vigil.look(11.0 + watchdog.GIVE_UP_S)
    assert watched.vigil.given_up
    systemd.close()


def test_it_does_not_give_up_for_threads_that_each_came_back(monkeypatch) -> None:
    """Their silences were added up: a slow card and a slow network, each for some seconds and one
    before the other had ended, and the process ended too."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    watched = Watched()
    for now in range(100):
        watched.age = 11.0 if now % 20 < 12 else 0.0
        watched.other = 11.0 if (now + 10) % 20 < 12 else 0.0
        watched.vigil.look(now)
        assert watched.vigil.silent
    watched.age = watched.other = 0.0
    watched.vigil.look(100)
    watched.age = 11.0
    for now in range(101, 101 + int(watchdog.GIVE_UP_S) + 1):
        assert not watched.vigil.given_up
        watched.vigil.look(now)
    assert watched.vigil.given_up


def test_threads_that_come_and_go_do_not_fill_the_spool_with_errors(monkeypatch) -> None:
    """Each change was published, and one that came back while another was silent was an error."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    watched = Watched()
    both, engine, mqtt = (f"no sign of life from: {n}" for n in ("engine, mqtt", "engine", "mqtt"))
    for now, watched.age, watched.other in (
        (0, 11.0, 0.0),
        (1, 11.0, 11.0),
        (2, 0.0, 11.0),
        (watchdog.ALARM_EVERY_S - 1, 0.0, 11.0),
    ):
        watched.vigil.look(now)
    assert watched.alarms == [engine]
    assert watched.changes == [engine, both, mqtt]
    watched.vigil.look(watchdog.ALARM_EVERY_S)  # it is silent still, and nobody knows
    watched.vigil.look(2 * watchdog.ALARM_EVERY_S)
    assert watched.alarms == [engine, mqtt]
    watched.other = 0.0
    for now in range(200, 800):
        watched.age = 11.0 if now % 2 else 0.0
        watched.vigil.look(now)
    assert len(watched.alarms) <= 2 + 600 / watchdog.ALARM_EVERY_S + 1


def test_a_dead_recogniser_is_told_of_everywhere_and_the_process_ends(
    tmp_path: Path,
) -> None:
    """In a container its thread could end and nothing was said: the box was online, listening and
    deaf, for ever."""
    with Mosquitto(tmp_path / "broker") as broker, Ear(broker.port, ("edged/#",)) as ear:
        box = Box(tmp_path, broker.port)
        box.before = DYING_ENGINE
        with box:
            # On a busy machine others may be late, too, and stand in the same sentence.
            silent = re.compile(r"no sign of life from: .*\bengine\b")
            until(lambda: silent.search(box.systemd.status), "STATUS says it", 30)
            until(
                lambda: any(silent.search(e.json()["message"]) for e in ear.on("error")), "an error"
            )
            until(lambda: ear.on("state/listening")[-1].payload == b"off", "listening off")
            until(  # the first may be older, and say that all is well
                lambda: any("engine" in h.json()["silent_threads"] for h in ear.on("state/health")),
                "health",
            )
            assert box.process is not None
            assert box.process.wait(20) == 70
            until(lambda: ear.on("availability")[-1].payload == b"offline", "offline")
            told = [line for line in box.log().splitlines() if silent.search(line)]
            assert any("edged ends" in line for line in told)
            assert not all("edged ends" in line for line in told)


def test_the_watchdog_is_fed_while_a_reload_loads_models(tmp_path: Path) -> None:
    """They were loaded on the main thread: where that took longer than WatchdogSec=, each reload
    with another model was a restart."""
    box = Box(tmp_path, free_port(), alsa_device="file:/nowhere.wav")
    box.environment = {"WATCHDOG_USEC": "3000000"}
    box.before = SLOW_RELOAD % 5
    with box:
        box.write(threads=2)
        until(lambda: box.systemd.lines("RELOADING"), "the reload", 20)
        until(lambda: len(box.systemd.lines("READY=1")) == 2, "its end", 60)
        said = [(at, line) for at, line in box.systemd.said if "=1" in line]
        start = next(at for at, line in said if line == "RELOADING=1")
        fed = [at for at, line in said if line == "WATCHDOG=1" and at > start]
        assert len(fed) >= 3
        assert fed[0] - start < 3
        assert "settings were read again: threads" in box.log()


def test_a_stop_does_not_wait_for_the_models_of_a_reload(tmp_path: Path) -> None:
    """systemd waits for 15 s: the last words were lost with the process. And the retained
    state/config said that good settings were wrong, until the next start."""
    box = Box(tmp_path, free_port(), alsa_device="file:/nowhere.wav")
    box.before = SLOW_RELOAD % 60
    with box:
        box.write(threads=2)
        until(lambda: box.systemd.lines("RELOADING"), "the reload", 20)
        assert box.stop() < 7
        assert "not applied" not in box.log()


def test_work_that_never_ends_is_not_waited_for_for_ever() -> None:
    """What was left behind after the longest wait was forgotten: a later stop let it crash while
    the interpreter went down around it."""
    looks: list[None] = []
    forever = threading.Event()
    with pytest.raises(ConfigError, match="not ready"):
        run_with_timeout(forever.wait, lambda: looks.append(None), every_s=0.01, longest_s=0.1)
    assert len(looks) == 10
    assert has_orphaned_work()
    forever.set()
    until(lambda: not has_orphaned_work(), "its end")
    assert run_with_timeout(lambda: 7, looks.clear) == 7
    with pytest.raises(ZeroDivisionError):
        run_with_timeout(lambda: 1 / 0, looks.clear)
