"""What the daemon says about its health: `state/health`, /metrics, /healthz, STATUS of systemd."""

from __future__ import annotations

import time
from typing import Any

from edged.audio.microphone import MicrophoneManager
from edged.config.settings_manager import SettingsManager
from edged.daemon.control import Control
from edged.daemon.machine import cpu_temp_c, rss_mb
from edged.daemon.watchdog import Watchdog
from edged.engine.engine_thread import Engine
from edged.mqtt.connection_status import NOT_CONNECTED_YET
from edged.mqtt.publisher import Publisher


class HealthReport:
    """Collects figures from the parts of the daemon. Every method may be called on any thread.

    Attributes:
        connection: the last report of the connection to the broker.
    """

    def __init__(
        self,
        settings_manager: SettingsManager,
        microphone: MicrophoneManager,
        engine: Engine,
        publisher: Publisher,
        control: Control,
        watchdog: Watchdog,
    ) -> None:
        self.connection = NOT_CONNECTED_YET
        self._settings_manager = settings_manager
        self._microphone = microphone
        self._engine = engine
        self._publisher = publisher
        self._control = control
        self._watchdog = watchdog
        self._started_at = time.monotonic()

    def status_line(self) -> str:
        """One line for `systemctl status`: microphone, broker, and everything that is wrong."""
        connection = self.connection
        parts = [
            self._watchdog.message,
            self._microphone.status.message,
            self._load(),
            "broker ok" if connection.connected else f"broker: {connection.message}",
            self._control.reload_error,
            self._settings_manager.save_error,
            self._publisher.stats().disk_error,
        ]
        return "; ".join(part for part in parts if part)

    def _load(self) -> str:
        level = self._engine.load_level
        if self._engine.too_slow:
            return "this device is too slow for the model"
        return f"load level {level:d}: {level.label}" if level else ""

    def problems(self) -> list[str]:
        """For /healthz: sentences about what somebody should repair; empty if all is well."""
        status = self._microphone.status
        hung = [f"no heartbeat from {name}" for name in self._watchdog.heartbeats.stale()]
        return hung + [status.message] * status.problem

    def health(self) -> dict[str, Any]:
        """The payload of `state/health`."""
        level = self._microphone.level
        stats, rtf, rejected = self._publisher.stats(), self._engine.rtf, self._engine.rejected
        return {
            "level_dbfs": None if level is None else round(level.rms_dbfs, 1),
            "clipping": None if level is None else level.clipping,
            "rtf": None if rtf is None else round(rtf, 3),
            "lag_s": round(self._engine.lag_s, 2),
            "cpu_temp": cpu_temp_c(),
            "rss_mb": rss_mb(),
            "xruns": self._microphone.xruns,
            "load_level": int(self._engine.load_level),
            "too_slow": self._engine.too_slow,
            "second_opinion": self._engine.has_second_opinion,
            "dropped_s": round(self._engine.lost_s, 2),
            "engine_failures": self._engine.failures,
            "turn_model_failures": self._engine.smart_turn_failures,
            "rejected": rejected.total(),
            "rejected_by_reason": dict(rejected),
            "outbox_depth": stats.depth,
            "spooled": stats.spooled,
            "messages_dropped": dict(stats.dropped),
            "disk_error": stats.disk_error,
            "damaged_spools": stats.damaged,
            "heard_s": round(self._engine.heard_s, 1),
            "silent_threads": list(self._watchdog.hung_threads),
            "unsaved": self._settings_manager.save_error or None,
            "uptime_s": round(time.monotonic() - self._started_at),
        }

    def metrics(self) -> dict[str, Any]:
        """The figures of /metrics: `health`, and what other topics and the Will say over MQTT."""
        health = self.health()
        return health | {
            "disk_error": bool(health["disk_error"]),
            "broker_connected": self.connection.connected,
            "microphone_open": not self._microphone.status.problem,
        }
