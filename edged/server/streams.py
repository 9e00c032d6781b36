"""All open streams of the door: how many there may be, and what they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from edged.audio.stream_decoders import decoder
from edged.engine.background_worker import MAX_WAITING, BackgroundWorker
from edged.engine.session import Session
from edged.errors import RequestError
from edged.models.loader import Models
from edged.options import Options, from_json_config
from edged.server.gradium_messages import Setup
from edged.server.metrics import Metrics
from edged.server.stream import Client, Stream
from edged.server.worker_pool import WorkerPool, be_nice

STUCK_S = 10.0  # no step takes so long, on any board


class BusyError(RequestError):
    """Every stream is taken: not the caller's fault, and it may try again."""

    code = 1011


@dataclass(frozen=True, slots=True)
class Source:
    """What the daemon lends the door, asked for anew at each session."""

    models: Callable[[], Models]
    options: Callable[[], Options]
    give_way: Callable[[], bool] | None = None
    """True while audio of the microphone waits; None: there is no microphone."""


class Streams:
    """Owned by the door's loop; the work is done by the crew."""

    def __init__(self, source: Source, max_streams: int, metrics: Metrics) -> None:
        self.max_streams = max_streams
        self._source = source
        self._metrics = metrics
        self._open: set[Stream] = set()
        threads = max(1, min(max_streams, os.cpu_count() or 1))
        self._crew = WorkerPool(threads, source.give_way)
        self._background = BackgroundWorker(
            "api-background", MAX_WAITING * max_streams, initializer=be_nice
        )

    def start(self) -> None:
        self._crew.start()

    def stop(self) -> None:
        self._crew.stop()
        self._background.shutdown()

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def waiting_s(self) -> float:
        """Audio of all streams that was received and not yet heard."""
        return sum(stream.waiting_s for stream in list(self._open))

    def problems(self) -> list[str]:
        """Why somebody should look after the box."""
        stuck_s = self._crew.longest_s
        return [f"a step of a stream has not ended in {stuck_s:.0f} s"] if stuck_s > STUCK_S else []

    @property
    def model_name(self) -> str:
        return self._source.models().name

    def options(self, setup: Setup) -> Options:
        """Of a session; `turn` messages only for those who ask. Raises RequestError."""
        known = ("default", self.model_name)
        if setup.model_name not in known:
            raise RequestError(
                f"model_name must be {' or '.join(known)}, not {setup.model_name!r:.60}"
            )
        return from_json_config(setup.json_config, replace(self._source.options(), turns=False))

    def open(self, setup: Setup, client: Client, kind: str) -> tuple[Stream, Options]:
        """Raises RequestError for a setup that is wrong, BusyError if all streams are taken."""
        options = self.options(setup)
        whole = kind == "post"
        audio = decoder(setup.input_format, whole)
        if len(self._open) >= self.max_streams:
            raise BusyError(
                f"all {self.max_streams} streams of this box are in use (EDGED_MAX_STREAMS)"
            )
        make = partial(_session, self._source.models(), options)
        stream = Stream(
            make, audio, client, self._crew.wake, self._background, self._metrics, whole
        )
        self._open.add(stream)
        self._metrics.sessions.labels(kind).inc()
        return stream, options

    def wake(self, stream: Stream) -> None:
        self._crew.wake(stream)

    def release(self, stream: Stream) -> None:
        """It is over, whether or not it was done."""
        stream.abandon()
        self._open.discard(stream)


def _session(models: Models, options: Options, executor: Executor) -> Session:
    return Session(models, options, executor)
