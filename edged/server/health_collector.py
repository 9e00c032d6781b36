"""The daemon's health as Prometheus has it: base units, and counters that are called `_total`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Vital:
    """How a number of `state/health` is called. `by`: the label of a number of each kind."""

    name: str
    text: str
    counts: bool = False
    by: str | None = None


# What is not here is left out: a number without a meaning helps nobody.
VITALS = {
    "level_dbfs": Vital("level_dbfs", "Loudness of the microphone's last second, full scale is 0."),
    "clipping": Vital("clipping", "1 while the microphone's signal is cut off at full scale."),
    "rtf": Vital("work_ratio", "Seconds of work for a second of the microphone's audio."),
    "lag_s": Vital("lag_seconds", "Audio of the microphone that waits to be heard."),
    "cpu_temp": Vital("cpu_temperature_celsius", "Of the processor."),
    "xruns": Vital("xruns", "Overruns of the sound card.", counts=True),
    "dropped_s": Vital(
        "dropped_audio_seconds", "Audio of the microphone that was never heard.", counts=True
    ),
    "engine_failures": Vital("engine_failures", "Failures of the recogniser.", counts=True),
    "rejected_by_reason": Vital(
        "rejected_texts", "Texts withheld as improbable.", counts=True, by="reason"
    ),
    "outbox_depth": Vital("outbox_messages", "Messages that wait for the broker."),
    "spooled": Vital("spooled_messages", "Of those, how many are on disk."),
    "messages_dropped": Vital(
        "dropped_messages", "Messages that were never published.", counts=True, by="reason"
    ),
    "heard_s": Vital("heard_audio_seconds", "Audio of the microphone so far.", counts=True),
    "uptime_s": Vital("uptime_seconds", "Since the start."),
    "broker_connected": Vital("broker_connected", "1 while the MQTT broker is reached."),
    "microphone_open": Vital("microphone_open", "1 while the microphone is heard, or muted."),
}


class HealthCollector(Collector):
    """Read at each scrape; an unknown number is left out."""

    def __init__(self, health: Callable[[], Mapping[str, Any]]) -> None:
        self._health = health

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: the numbers are known only once all of the daemon runs."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        for key, value in self._health().items():
            vital = VITALS.get(key)
            if vital is None or value is None:
                continue
            family = CounterMetricFamily if vital.counts else GaugeMetricFamily
            labels = [vital.by] if vital.by else []
            found = family(f"edged_{vital.name}", vital.text, labels=labels)
            if vital.by:
                for reason, count in value.items():
                    found.add_metric([str(reason)], float(count))
            else:
                found.add_metric([], float(value))
            yield found
