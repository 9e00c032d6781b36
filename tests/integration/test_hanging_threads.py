"""A daemon whose threads hang or work for long, watched by systemd or by nobody."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, free_port, until

DYING_ENGINE = """
import edged.engine.engine_thread as engine, edged.daemon.heartbeats as heartbeats
import edged.daemon.watchdog as watchdog
heartbeats.Heartbeats.__init__.__defaults__ = (6.0,)
watchdog.EXIT_AFTER_S = 3.0
def die(self):
    if self._steps > 10:
        raise SystemExit
engine.Engine._report_dropped = die
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


def test_a_dead_recogniser_is_reported_everywhere_and_the_process_ends(tmp_path: Path) -> None:
    """In a container its thread could end without a word: the device stayed online and "listening",
    but recognised nothing, for ever."""
    with Mosquitto(tmp_path / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        daemon = DaemonProcess(tmp_path, broker.port)
        daemon.before = DYING_ENGINE
        with daemon:
            # On a busy machine other threads may be late too, and be in the same message.
            silent = re.compile(r"no heartbeat from: .*\bengine\b")
            until(lambda: silent.search(daemon.systemd.status), "STATUS", 30)
            until(
                lambda: any(silent.search(e.json()["message"]) for e in ear.on("error")), "an error"
            )
            until(lambda: ear.on("state/listening")[-1].payload == b"off", "listening off")
            until(  # the first may be from before
                lambda: any("engine" in h.json()["silent_threads"] for h in ear.on("state/health")),
                "health",
            )
            assert daemon.process is not None
            assert daemon.process.wait(20) == 70
            until(lambda: ear.on("availability")[-1].payload == b"offline", "offline")
            told = [line for line in daemon.log().splitlines() if silent.search(line)]
            assert any("edged exits" in line for line in told)
            assert not all("edged exits" in line for line in told)


def test_the_watchdog_is_fed_while_a_reload_loads_models(tmp_path: Path) -> None:
    """The main thread loaded them: where that took longer than WatchdogSec=, each reload with
    another model was a restart."""
    daemon = DaemonProcess(tmp_path, free_port(), alsa_device="file:/nowhere.wav")
    daemon.environment = {"WATCHDOG_USEC": "3000000"}
    daemon.before = SLOW_RELOAD % 5
    with daemon:
        daemon.write(threads=2)
        until(lambda: daemon.systemd.lines("RELOADING"), "the reload", 20)
        until(lambda: len(daemon.systemd.lines("READY=1")) == 2, "its end", 60)
        said = [(at, line) for at, line in daemon.systemd.received if "=1" in line]
        start = next(at for at, line in said if line == "RELOADING=1")
        fed = [at for at, line in said if line == "WATCHDOG=1" and at > start]
        assert len(fed) >= 3
        assert fed[0] - start < 3
        assert "settings were read again: threads" in daemon.log()


def test_a_stop_does_not_wait_for_the_models_of_a_reload(tmp_path: Path) -> None:
    """systemd waits for 15 s, so the last words were lost with the process. And the retained
    state/config said until the next start that good settings had mistakes."""
    daemon = DaemonProcess(tmp_path, free_port(), alsa_device="file:/nowhere.wav")
    daemon.before = SLOW_RELOAD % 60
    with daemon:
        daemon.write(threads=2)
        until(lambda: daemon.systemd.lines("RELOADING"), "the reload", 20)
        assert daemon.stop() < 7
        assert "not applied" not in daemon.log()
