"""Exports the daemon's health, the same as in `state/health`, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class HealthMetric:
    """Name and help text of one metric. `label` names the label of a value with several parts."""

    name: str
    help: str
    is_counter: bool = False
    label: str | None = None


# Keys of the health report that are not listed here are not exported.
HEALTH_METRICS = {
    "level_dbfs": HealthMetric(
        "level_dbfs", "Level of the microphone's last second; full scale is 0."
    ),
    "clipping": HealthMetric("clipping", "1 while the microphone's signal clips."),
    "rtf": HealthMetric("work_ratio", "Seconds of work for a second of the microphone's audio."),
    "lag_s": HealthMetric("lag_seconds", "Audio of the microphone that waits to be processed."),
    "load_level": HealthMetric(
        "load_level", "How much work is saved because the device is slow: 0 none, 4 the most."
    ),
    "too_slow": HealthMetric("too_slow", "1 while the device is too slow at the last load level."),
    "cpu_temp": HealthMetric("cpu_temperature_celsius", "Temperature of the processor."),
    "xruns": HealthMetric("xruns", "Overruns of the sound card.", is_counter=True),
    "dropped_s": HealthMetric(
        "dropped_audio_seconds", "Audio of the microphone that was lost.", is_counter=True
    ),
    "engine_failures": HealthMetric(
        "engine_failures", "Failures of the recogniser.", is_counter=True
    ),
    "turn_model_failures": HealthMetric(
        "turn_model_failures", "Failures of the turn model.", is_counter=True
    ),
    "rejected_by_reason": HealthMetric(
        "rejected_texts", "Texts withheld as improbable.", is_counter=True, label="reason"
    ),
    "outbox_depth": HealthMetric("outbox_messages", "Messages that wait for the broker."),
    "spooled": HealthMetric("spooled_messages", "How many of those are on disk."),
    "messages_dropped": HealthMetric(
        "dropped_messages", "Messages that were never published.", is_counter=True, label="reason"
    ),
    "disk_error": HealthMetric(
        "spool_disk_error", "1 while messages cannot be stored on the disk."
    ),
    "damaged_spools": HealthMetric(
        "damaged_spools", "Damaged files of stored messages that were put aside.", is_counter=True
    ),
    "heard_s": HealthMetric(
        "heard_audio_seconds", "Audio of the microphone that was processed.", is_counter=True
    ),
    "uptime_s": HealthMetric("uptime_seconds", "Time since the daemon started."),
    "broker_connected": HealthMetric("broker_connected", "1 while connected to the MQTT broker."),
    "microphone_open": HealthMetric(
        "microphone_open", "1 while the microphone is open, or muted on purpose."
    ),
}


class HealthCollector(Collector):
    """Calls `health` at each scrape. Values that are None are left out."""

    def __init__(self, health: Callable[[], Mapping[str, Any]]) -> None:
        self._health = health

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Names no metric: the values are known only once the whole daemon runs."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        for key, value in self._health().items():
            metric = HEALTH_METRICS.get(key)
            if metric is None or value is None:
                continue
            family = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
            labels = [metric.label] if metric.label else []
            found = family(f"edged_{metric.name}", metric.help, labels=labels)
            if metric.label:
                for part, count in value.items():
                    found.add_metric([str(part)], float(count))
            else:
                found.add_metric([], float(value))
            yield found
