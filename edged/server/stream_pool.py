"""All open streams: how many there may be, and the threads that they share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from edged.engine.background_worker import MAX_WAITING, BackgroundWorker
from edged.engine.session import Session
from edged.errors import RequestError
from edged.models.loader import Models
from edged.options import Options
from edged.server.metrics import Metrics
from edged.server.stream import SERVER_FAULT, AudioDecoder, Stream, StreamClient
from edged.server.worker_pool import WorkerPool, lower_priority
from edged.stt.keyterms import keyterms_of

STUCK_S = 10.0  # no step takes so long on any board that is supported


class BusyError(RequestError):
    """All streams are in use. The client may try again."""

    code = SERVER_FAULT


@dataclass(frozen=True, slots=True)
class SessionProvider:
    """Gives each new session the models and settings of that moment.

    models: the loaded models.
    options: the session options that the settings ask for.
    microphone_waits: true while audio of the microphone waits; None: there is no microphone.
    make_session: makes a session, with the arguments of `Session`.
    """

    models: Callable[[], Models]
    options: Callable[[], Options]
    microphone_waits: Callable[[], bool] | None = None
    make_session: Callable[..., Session] = Session


class StreamPool:
    """Opens and closes streams on the event loop; the worker pool does their work."""

    def __init__(self, sessions: SessionProvider, max_streams: int, metrics: Metrics) -> None:
        self.max_streams = max_streams
        self._sessions = sessions
        self._metrics = metrics
        self._open: set[Stream] = set()
        threads = max(1, min(max_streams, os.cpu_count() or 1))
        self._workers = WorkerPool(threads, sessions.microphone_waits)
        self._background = BackgroundWorker(
            "api-background", MAX_WAITING * max_streams, initializer=lower_priority
        )
        # Each stream keeps to one of these, which owns the state of its recogniser.
        self._recognisers = [
            BackgroundWorker(
                f"api-recogniser-{n}",
                MAX_WAITING * max_streams,
                lower_priority,
                self._workers.wait_for_microphone,
            )
            for n in range(threads)
        ]
        self._recogniser_of: dict[Stream, BackgroundWorker] = {}

    def start(self) -> None:
        """Starts the threads."""
        self._workers.start()

    def stop(self) -> None:
        """Begins no further work."""
        self._workers.stop()
        for worker in (self._background, *self._recognisers):
            worker.shutdown()

    @property
    def count(self) -> int:
        """The number of open streams."""
        return len(self._open)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The open streams."""
        return tuple(self._open)

    @property
    def waiting_s(self) -> float:
        """Seconds of audio of all streams that were received and not yet processed."""
        return sum(stream.waiting_s for stream in list(self._open))

    def problems(self) -> list[str]:
        """What `/healthz` should report, as sentences."""
        stuck_s = max(self._workers.longest_s, *(worker.age_s for worker in self._recognisers))
        return [f"a step of a stream has not ended in {stuck_s:.0f} s"] if stuck_s > STUCK_S else []

    def active_keyterms(self, options: Options) -> int:
        """How many key terms have an effect in a stream with these options."""
        keyterms = keyterms_of(self._sessions.models().recogniser, options)
        return 0 if keyterms is None else len(keyterms.terms)

    @property
    def model_name(self) -> str:
        """The name of the model in use."""
        return self._sessions.models().name

    def options(self) -> Options:
        """The options of a new session; `turn` events only for those who ask for them."""
        return replace(self._sessions.options(), turns=False)

    def open(
        self,
        options: Options,
        audio: AudioDecoder,
        client: StreamClient,
        protocol: str,
        whole_file: bool = False,
        on_speaking: Callable[[bool, float], None] | None = None,
    ) -> Stream:
        """Opens a stream, to be given back with `release`.

        `protocol` is its label in the metrics. `whole_file`: nobody waits for the first answer
        before the last byte was sent. `on_speaking`: see Stream. Raises BusyError if all streams
        are in use.
        """
        if len(self._open) >= self.max_streams:
            raise BusyError(
                f"all {self.max_streams} streams of this device are in use (EDGED_MAX_STREAMS)"
            )
        make = partial(self._sessions.make_session, self._sessions.models(), options)
        taken = Counter(self._recogniser_of.values())
        recogniser = min(self._recognisers, key=lambda worker: taken[worker])
        stream = Stream(
            make,
            audio,
            client,
            self._workers.wake,
            self._background,
            recogniser,
            self._metrics,
            whole_file,
            on_speaking,
        )
        self._recogniser_of[stream] = recogniser
        self._open.add(stream)
        self._metrics.sessions.labels(protocol).inc()
        return stream

    def wake(self, stream: Stream) -> None:
        """The client of a stream reads again."""
        self._workers.wake(stream)

    def release(self, stream: Stream) -> None:
        """Closes a stream, whether or not it is done."""
        stream.abandon()
        self._open.discard(stream)
        self._recogniser_of.pop(stream, None)
        self._workers.wake(stream)  # it gives up its session on the thread that uses it
