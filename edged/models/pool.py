"""The recognisers in memory: each is loaded once and shared by all streams that use it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial

from edged.errors import EdgedError
from edged.models.loader import Models
from edged.ortsession import release_memory

IDLE_S = 300.0  # how long a model that no stream uses stays in memory


class ModelsInUseError(EdgedError):
    """As many models as may be in memory are in use."""


class _Loaded:
    """A model in memory. users: how many streams use it; idle_since: when the last one ended."""

    def __init__(self, models: Models, now: float) -> None:
        self.models = models
        self.users = 0
        self.idle_since = now


class Lease:
    """The use of a model by one stream, until `release`."""

    def __init__(self, pool: ModelPool, loaded: _Loaded) -> None:
        self.models = loaded.models
        self._pool = pool
        self._loaded: _Loaded | None = loaded

    def release(self) -> None:
        """Ends the use; may be called more than once."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._pool.give_back(loaded)


class ModelPool:
    """Every method may be called from any thread.

    main: the models of the microphone, or those that the settings ask for where there is none. They
    are never unloaded, and never refused.
    """

    def __init__(
        self,
        main: Models,
        load: Callable[[str, Models], Models],
        executor: Executor,
        max_models: int = 2,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """load: (name of a recogniser, loaded models whose other parts may be shared) -> models.
        executor: runs `load`, one at a time.
        max_models: recognisers in memory at the same time, `main` included. It may be exceeded by
            one while `main` is replaced.
        idle_s: after how many seconds without a user `sweep` unloads a model.
        """
        self.idle_s = idle_s
        self._load = load
        self._max_models = max_models
        self._executor = executor
        self._clock = clock
        self._lock = threading.Lock()
        self._main = _Loaded(main, clock())
        self._others: dict[str, _Loaded] = {}
        self._loading: dict[str, Future[None]] = {}

    @property
    def main(self) -> Models:
        """See the class."""
        return self._main.models

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models in memory."""
        with self._lock:
            return (self._main.models.name, *self._others)

    def find(self, name: str) -> Models | None:
        """A model in memory, without using it; None if it is not there."""
        with self._lock:
            loaded = self._find(name)
            return None if loaded is None else loaded.models

    def lease(self, name: str) -> Lease | None:
        """Begins the use of a model; None if it must be loaded first."""
        with self._lock:
            loaded = self._find(name)
            if loaded is None:
                return None
            loaded.users += 1
            return Lease(self, loaded)

    def load(self, name: str) -> Future[None]:
        """Loads a model that is not in memory. If it is being loaded, the load is shared.

        The future has the error if that fails. Raises ModelsInUseError if there are too many.
        """
        with self._lock:
            future = self._loading.get(name)
            if future is not None:
                return future
            while 1 + len(self._others) + len(self._loading) >= self._max_models:
                self._unload_one_idle()
            future = self._loading[name] = Future()
        job = self._executor.submit(self._load_one, name)
        job.add_done_callback(partial(self._loaded, name, future))
        return future

    def set_main(self, models: Models) -> None:
        """Replaces the models of the microphone. Streams keep those that they use."""
        with self._lock:
            old, shared = self._main, self._others.pop(models.name, None)
            self._main = _Loaded(models, self._clock())
            for same in (old, shared):
                if same is not None and same.models.recogniser is models.recogniser:
                    same.models, self._main = models, same
            if old is not self._main and old.users and old.models.name != models.name:
                self._others[old.models.name] = old
        self._executor.submit(_collect)

    def give_back(self, loaded: _Loaded) -> None:
        """Ends one use; see `Lease.release`."""
        with self._lock:
            loaded.users -= 1
            loaded.idle_since = self._clock()

    def sweep(self) -> None:
        """Unloads what no stream has used for `idle_s`."""
        with self._lock:
            before = self._clock() - self.idle_s
            idle = [n for n, one in self._others.items() if not one.users]
            old = [name for name in idle if self._others[name].idle_since <= before]
            for name in old:
                del self._others[name]
        if old:
            self._executor.submit(_collect)

    def _find(self, name: str) -> _Loaded | None:
        return self._main if name == self._main.models.name else self._others.get(name)

    def _unload_one_idle(self) -> None:
        """Raises ModelsInUseError if all are in use."""
        idle = [name for name, loaded in self._others.items() if not loaded.users]
        if not idle:
            raise ModelsInUseError(
                f"all {self._max_models} models that may be in memory (EDGED_MAX_MODELS) are in use"
            )
        del self._others[min(idle, key=lambda name: self._others[name].idle_since)]
        self._executor.submit(_collect)

    def _load_one(self, name: str) -> Models:
        return self._load(name, self.main)

    def _loaded(self, name: str, future: Future[None], job: Future[Models]) -> None:
        error = job.exception()
        with self._lock:
            del self._loading[name]
            if error is None and name != self._main.models.name:
                self._others[name] = _Loaded(job.result(), self._clock())
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _collect() -> None:
    """Frees models that are only referenced by sessions which refer to themselves."""
    gc.collect()
    release_memory()
