"""What the daemon says about its health."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from edged.audio.microphone_status import MicrophoneState, MicrophoneStatus
from edged.daemon.health_report import HealthReport
from edged.daemon.systemd import Notifier
from edged.daemon.watchdog import Watchdog
from edged.engine.load_level import LoadLevel
from edged.mqtt.connection_status import ConnectionReport, ConnectionStatus
from edged.server.health_collector import HEALTH_METRICS, HealthCollector
from tests.support.control_parts import settings_manager


class Parts:
    """A report about parts whose figures a test sets."""

    def __init__(self, folder: Path) -> None:
        self.microphone: Any = SimpleNamespace(
            status=MicrophoneStatus(MicrophoneState.RUNNING, "hw:CARD=A", "listening to A", 0.0),
            level=SimpleNamespace(rms_dbfs=-20.04, clipping=False),
            xruns=1,
        )
        self.engine: Any = SimpleNamespace(
            rtf=0.0301,
            rejected=Counter(noise=2),
            failures=0,
            smart_turn_failures=3,
            heard_s=5.0,
            lag_s=0.16,
            load_level=LoadLevel.FULL,
            has_second_opinion=False,
            too_slow=False,
            lost_s=1.0,
        )
        self.stats: Any = SimpleNamespace(
            depth=4, spooled=2, dropped=Counter(full=1), disk_error=None, damaged=5
        )
        self.control: Any = SimpleNamespace(reload_error="")
        self.ages = {"engine": 0.0}
        self.watchdog = Watchdog(Notifier(), lambda: None, lambda _: None)
        self.watchdog.heartbeats.watch("engine", lambda: self.ages["engine"])
        publisher: Any = SimpleNamespace(stats=lambda: self.stats)
        self.report = HealthReport(
            settings_manager(folder),
            cast(Any, self.microphone),
            cast(Any, self.engine),
            cast(Any, publisher),
            cast(Any, self.control),
            self.watchdog,
        )


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_the_status_line_names_microphone_broker_and_everything_that_is_wrong(
    parts: Parts,
) -> None:
    assert parts.report.status_line() == "listening to A; broker: not connected yet"
    parts.report.connection = ConnectionReport(True, ConnectionStatus.CONNECTED, "connected")
    assert parts.report.status_line() == "listening to A; broker ok"
    parts.ages["engine"] = 11.0
    parts.watchdog.check(0.0)
    parts.control.reload_error = "the new settings have mistakes"
    parts.stats.disk_error = "the spool cannot be used"
    assert parts.report.status_line() == (
        "no heartbeat from: engine; listening to A; broker ok; the new settings have mistakes; "
        "the spool cannot be used"
    )


def test_the_status_line_and_the_health_tell_the_load_level(parts: Parts) -> None:
    parts.engine.load_level = LoadLevel.GREEDY
    assert "; load level 2: larger updates, one hypothesis; " in parts.report.status_line()
    assert parts.report.health()["load_level"] == 2
    parts.engine.too_slow = True
    assert "; this device is too slow for the model; " in parts.report.status_line()


def test_problems_are_hung_threads_and_a_lost_microphone(parts: Parts) -> None:
    assert parts.report.problems() == []
    parts.ages["engine"] = 11.0
    parts.microphone.status = MicrophoneStatus(MicrophoneState.LOST, "hw:CARD=A", "A is gone", 0.0)
    assert parts.report.problems() == ["no heartbeat from engine", "A is gone"]


def test_every_metric_is_a_figure_of_the_report(parts: Parts) -> None:
    """What went wrong with the disk, the spool and the turn model was in no metric."""
    assert not HEALTH_METRICS.keys() - parts.report.metrics().keys()
    registry = CollectorRegistry()
    registry.register(HealthCollector(parts.report.metrics))
    text = generate_latest(registry).decode()
    assert "edged_spool_disk_error 0.0\n" in text
    assert "edged_damaged_spools_total 5.0\n" in text
    assert "edged_turn_model_failures_total 3.0\n" in text
    parts.stats.disk_error = "no space left"
    assert "edged_spool_disk_error 1.0\n" in generate_latest(registry).decode()


def test_the_health_message_has_the_error_itself(parts: Parts) -> None:
    parts.stats.disk_error = "no space left"
    health = parts.report.health()
    assert health["disk_error"] == "no space left"
    assert health["level_dbfs"] == -20.0
    assert health["dropped_s"] == 1.0
    assert health["turn_model_failures"] == 3
