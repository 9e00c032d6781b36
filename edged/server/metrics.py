"""What `GET /metrics` tells, by the usual library. One registry per door: no global state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08)  # the last one is real time


class Metrics:
    """Counters are added to on any thread; gauges are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Counter(
            "edged_door_sessions", "Sessions that began.", ["kind"], registry=self.registry
        )
        self.refused = Counter(
            "edged_door_refused",
            "Connections and sessions refused.",
            ["why"],
            registry=self.registry,
        )
        self.errors = Counter(
            "edged_door_errors", "Errors sent to clients.", ["code"], registry=self.registry
        )
        self.step_seconds = Histogram(
            "edged_door_step_seconds",
            "Work for one step of 80 ms.",
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )

    def watch(self, gauges: Callable[[], Mapping[str, Any]]) -> None:
        """`gauges` is called at each scrape; what is not a number in it is left out."""
        self.registry.register(_Gauges(gauges))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, gauges: Callable[[], Mapping[str, Any]]) -> None:
        self._gauges = gauges

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: the names are known only once all of the daemon runs."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in self._gauges().items():
            if isinstance(value, int | float):
                yield GaugeMetricFamily(
                    f"edged_{name}", f"{name}, as in state/health.", float(value)
                )
