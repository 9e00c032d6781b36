"""The metrics of `GET /metrics`, in a registry of their own: there is no global state."""

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
PROTOCOLS = ("gradium_websocket", "gradium_upload", "openai_file", "openai_realtime", "wyoming")
REFUSAL_REASONS = ("connections", "key", "origin", "rate", "sockets", "streams")
STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08)  # seconds; 0.08 is real time
WAIT_BUCKETS = (0.02, 0.04, 0.08, 0.16, 0.24, 0.4, 0.8, 1.6, 3.2)  # seconds


class Metrics:
    """Counters may be incremented on any thread; gauges are read at each scrape."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sessions = Counter(
            "edged_api_sessions", "Sessions that began.", ["protocol"], registry=registry
        )
        self.refused = Counter(
            "edged_api_refused",
            "Connections and sessions that were refused.",
            ["reason"],
            registry=registry,
        )
        self.errors = Counter(
            "edged_api_errors",
            "Errors sent to clients: 1008 is the client's fault, 1011 is edged's.",
            ["code"],
            registry=registry,
        )
        self.dropped_clients = Counter(
            "edged_api_dropped_clients",
            "Clients that were disconnected because they did not read.",
            registry=registry,
        )
        self.step_seconds = Histogram(
            "edged_api_step_seconds",
            "Time to process one step of 80 ms.",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.answer_seconds = Histogram(
            "edged_api_answer_seconds",
            "Time from the arrival of a live step's last sample to its answer.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.flush_seconds = Histogram(
            "edged_api_flush_seconds",
            "Time from a flush to its answer.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        for counter, known in (
            (self.sessions, PROTOCOLS),
            (self.refused, REFUSAL_REASONS),
            (self.errors, ("1008", "1011")),
        ):
            for label in known:
                counter.labels(label)  # a counter must exist before its first increment
        self._info = Gauge("edged_info", "Always 1.", ["version", "model"], registry=registry)
        self._model: Callable[[], str] = str
        ProcessCollector(registry=registry)

    def add_gauges(
        self, gauges: Mapping[str, tuple[str, Callable[[], float]]], model: Callable[[], str]
    ) -> None:
        """Adds `edged_api_<name>` gauges, given as help text and function, and `edged_info`."""
        self._model = model
        for name, (text, value) in gauges.items():
            Gauge(f"edged_api_{name}", text, registry=self.registry).set_function(value)

    def add_health(self, health: Callable[[], Mapping[str, Any]]) -> None:
        """Adds the daemon's health, as in `state/health`."""
        self.registry.register(HealthCollector(health))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self._info.clear()
        self._info.labels(__version__, self._model()).set(1)
        return generate_latest(self.registry)
