"""What `GET /metrics` tells, by the usual library. One registry per door: no global state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from edged import __version__
from edged.server.health_collector import HealthCollector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
REASONS = ("connections", "key", "origin", "rate", "sockets", "streams")  # to refuse somebody
WORK_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08)  # the last one is real time
WAIT_BUCKETS = (0.02, 0.04, 0.08, 0.16, 0.24, 0.4, 0.8, 1.6, 3.2)


class Metrics:
    """Counters are added to on any thread; gauges are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sessions = Counter(
            "edged_api_sessions", "Sessions that began.", ["kind"], registry=registry
        )
        self.refused = Counter(
            "edged_api_refused",
            "Connections and sessions refused, by what was not in order.",
            ["why"],
            registry=registry,
        )
        self.errors = Counter(
            "edged_api_errors",
            "Errors sent to clients: 1008 is their fault, 1011 is ours.",
            ["code"],
            registry=registry,
        )
        self.given_up = Counter(
            "edged_api_given_up",
            "Clients that were cut off: they neither read nor answered.",
            registry=registry,
        )
        self.step_seconds = Histogram(
            "edged_api_step_seconds",
            "Work for one step of 80 ms.",
            buckets=WORK_BUCKETS,
            registry=registry,
        )
        self.answer_seconds = Histogram(
            "edged_api_answer_seconds",
            "From the arrival of what completes a live step to its answer.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.flush_seconds = Histogram(
            "edged_api_flush_seconds",
            "From a flush to flushed.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        for counter, known in (
            (self.sessions, ("socket", "post")),
            (self.refused, REASONS),
            (self.errors, ("1008", "1011")),
        ):
            for label in known:
                counter.labels(label)  # 0 from the start: the first one must be seen as a rise
        self._info = Gauge("edged_info", "Always 1.", ["version", "model"], registry=registry)
        self._model: Callable[[], str] = str
        ProcessCollector(registry=registry)

    def open(
        self, gauges: Mapping[str, tuple[str, Callable[[], float]]], model: Callable[[], str]
    ) -> None:
        """`gauges`: name, meaning and value of the door's own. All is read at each scrape."""
        self._model = model
        for name, (text, value) in gauges.items():
            Gauge(f"edged_api_{name}", text, registry=self.registry).set_function(value)

    def watch(self, health: Callable[[], Mapping[str, Any]]) -> None:
        """`health`: the daemon's, as in `state/health`."""
        self.registry.register(HealthCollector(health))

    def text(self) -> bytes:
        self._info.clear()
        self._info.labels(__version__, self._model()).set(1)
        return generate_latest(self.registry)
