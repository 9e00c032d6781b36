"""All open streams: how many there may be, and the threads that they share."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edged.engine.background_worker import MAX_WAITING, BackgroundWorker, lower_priority
from edged.engine.session import Session
from edged.errors import EdgedError, ModelError, RequestError
from edged.languages import AUTO
from edged.logs import log_exception
from edged.models.catalogue import Entry
from edged.models.choice import ModelChoice
from edged.models.loader import Models
from edged.models.pool import Lease, ModelPool, ModelsInUseError
from edged.options import Options
from edged.server.metrics import Metrics
from edged.server.stream import SERVER_FAULT, AudioDecoder, Stream, StreamClient
from edged.server.worker_pool import WorkerPool
from edged.stt.keyterms import keyterms_of

LOAD_S = 300.0  # longest wait for a model
STUCK_S = 10.0  # no step takes so long on any board that is supported

_log = logging.getLogger(__name__)


class BusyError(RequestError):
    """All streams are in use. The client may try again."""

    code = SERVER_FAULT


class NotLoadedError(RequestError):
    """A model must be loaded first. model: its name."""

    code = SERVER_FAULT

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model} is not in memory")
        self.model = model


class LoadFailedError(RequestError):
    """A model could not be loaded."""

    code = SERVER_FAULT


@dataclass(frozen=True, slots=True)
class SessionProvider:
    """Gives each new session the models and settings of that moment.

    models: the models in memory.
    options: the session options that the settings ask for.
    choose: (name of a model, or AUTO for that of the settings; language) -> the model for it.
        Raises ModelError if it would have to be fetched.
    installed: the installed models.
    microphone_waits: true while audio of the microphone waits; None: there is no microphone.
    make_session: makes a session, with the arguments of `Session`.
    """

    models: ModelPool
    options: Callable[[], Options]
    choose: Callable[[str, str], ModelChoice]
    installed: Callable[[], Sequence[Entry]]
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
        self._leases: dict[Stream, Lease] = {}

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

    @property
    def main(self) -> Models:
        """The models of streams that ask for nothing else."""
        return self._sessions.models.main

    @property
    def installed(self) -> Sequence[Entry]:
        """The models that a stream may ask for."""
        return self._sessions.installed()

    def options(self, model: str = AUTO) -> Options:
        """The options of a new session; `turn` events only for those who ask for them.

        model: AUTO, or the name of an installed model. If that one does not have the language of
        the settings, its own is recognised.
        """
        options = replace(self._sessions.options(), turns=False)
        if model == AUTO:
            return options
        has = any(e.name == model and options.language in e.languages for e in self.installed)
        return options if has else replace(options, language=AUTO)

    def choose(self, options: Options, model: str = AUTO) -> ModelChoice:
        """The model for a session with these options.

        model: a name, or AUTO for that of the settings, or another one if it lacks the language.
        Raises RequestError if it would have to be fetched.
        """
        try:
            return self._sessions.choose(model, options.language)
        except ModelError as problem:
            raise RequestError(f"language: {problem}") from None

    def open(
        self,
        options: Options,
        audio: AudioDecoder,
        client: StreamClient,
        protocol: str,
        whole_file: bool = False,
        on_speaking: Callable[[bool, float], None] | None = None,
        model: str = AUTO,
    ) -> Stream:
        """Opens a stream, to be given back with `release`.

        `protocol` is its label in the metrics. `whole_file`: nobody waits for the first answer
        before the last byte was sent. `on_speaking`: see Stream. `model`: see `choose`. Raises
        BusyError if all streams are in use, NotLoadedError if `load` must be awaited first,
        RequestError if there is no model for the language.
        """
        if len(self._open) >= self.max_streams:
            raise BusyError(
                f"all {self.max_streams} streams of this device are in use (EDGED_MAX_STREAMS)"
            )
        choice = self.choose(options, model)
        lease = self._sessions.models.lease(choice.entry.name)
        if lease is None:
            raise NotLoadedError(choice.entry.name)
        options = replace(options, language=choice.language)
        make = partial(self._sessions.make_session, lease.models, options)
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
        stream.model = choice.entry.name
        stream.language = options.language
        stream.keyterms = active_keyterms(lease.models, options)
        self._recogniser_of[stream] = recogniser
        self._leases[stream] = lease
        self._open.add(stream)
        self._metrics.sessions.labels(protocol).inc()
        return stream

    async def open_when_loaded(self, *args: Any, **kwargs: Any) -> Stream:
        """As `open`, but loads the model first if that is needed."""
        while True:
            try:
                return self.open(*args, **kwargs)
            except NotLoadedError as missing:
                await self.load(missing.model)

    async def prepare(self, options: Options, model: str = AUTO) -> None:
        """Loads the model of such a session, if it is not in memory. Raises RequestError."""
        choice = self.choose(options, model)
        if self._sessions.models.find(choice.entry.name) is None:
            await self.load(choice.entry.name)

    async def load(self, model: str) -> None:
        """Loads a model beside those in memory, while all streams go on. Raises BusyError if too
        many are in use, LoadFailedError."""
        try:
            loading = asyncio.wrap_future(self._sessions.models.load(model))
            async with asyncio.timeout(LOAD_S):
                await asyncio.shield(loading)
        except ModelsInUseError as problem:
            raise BusyError(str(problem)) from None
        except TimeoutError:
            message = f"the model {model} was not loaded in {LOAD_S:.0f} s"
            raise LoadFailedError(message) from None
        except EdgedError as problem:
            raise LoadFailedError(f"the model {model} cannot be loaded: {problem}") from None
        except Exception as problem:
            log_exception(_log, "models-failed", "loading a model for a stream failed", problem)
            raise LoadFailedError(f"the model {model} cannot be loaded: {problem!r}") from None

    def wake(self, stream: Stream) -> None:
        """The client of a stream reads again."""
        self._workers.wake(stream)

    def release(self, stream: Stream) -> None:
        """Closes a stream, whether or not it is done."""
        stream.abandon()
        self._open.discard(stream)
        self._recogniser_of.pop(stream, None)
        lease = self._leases.pop(stream, None)
        if lease is not None:
            lease.release()
            pool = self._sessions.models
            asyncio.get_running_loop().call_later(pool.idle_s + 1.0, pool.sweep)
        self._workers.wake(stream)  # it gives up its session on the thread that uses it


def active_keyterms(models: Models, options: Options) -> int:
    """How many key terms have an effect in a session with these options."""
    keyterms = keyterms_of(models.recogniser, options)
    return 0 if keyterms is None else len(keyterms.terms)
