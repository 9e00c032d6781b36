"""Loads models in the background, while the main thread goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial

from edged.config.model_choice import choice_of, options_of, second_opinion_of
from edged.config.settings import Settings
from edged.engine.background_worker import BackgroundWorker
from edged.engine.load_prediction import with_load_level, without_slow_opinion
from edged.errors import ConfigError, EdgedError
from edged.logs import log_event, log_exception
from edged.models import loader
from edged.models.loader import Models
from edged.models.pool import ModelPool
from edged.options import Options

TIMEOUT_S = 900.0

_log = logging.getLogger(__name__)


def load_models(settings: Settings, pool: ModelPool | None = None) -> Models:
    """Loads the models that `settings` ask for, and measures them.

    pool: models that were loaded with the same settings apart from the language and model. What it
    has is shared. Raises ModelError.
    """
    choice = choice_of(settings)
    models = None if pool is None else pool.find(choice.entry.name)
    if models is None:
        loaded = None if pool is None else pool.main
        opinion = second_opinion_of(settings, choice)
        models = loader.load(
            settings.models_dir, choice.entry.name, settings.threads, loaded, opinion
        )
    if pool is None:
        models = loader.for_this_machine(models)
    options = options_of(settings, choice)
    return with_load_level(_without_slow_opinion(models, options), options)


def _without_slow_opinion(models: Models, options: Options) -> Models:
    fitting = without_slow_opinion(models, options)
    if models.second_opinion is not None:
        name = models.second_opinion.name
        if fitting.second_opinion is None:
            message = f"{name} is too slow on this device for a second opinion on turns"
        else:
            message = f"{name} gives a second opinion on the text of turns"
        log_event(_log, logging.INFO, "second-opinion", message)
    return fitting


class ModelLoader:
    """At most one load at a time. Used by the main thread only."""

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        load: Callable[[Settings], Models] = load_models,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            post: queues a job for the main thread; called on any thread.
            load: does the work.
            executor: runs it; by default a thread that does not keep the process from ending.
        """
        self._post = post
        self._load = load
        self._executor = executor or BackgroundWorker("model-loader")
        self._clock = clock
        self._future: Future[Models] | None = None
        self._on_done: Callable[[Models | EdgedError], None] = lambda _: None
        self._deadline = 0.0

    @property
    def idle(self) -> bool:
        """Whether no load is going on, not even one that was given up."""
        return self._future is None or self._future.done()

    def start(self, settings: Settings, on_done: Callable[[Models | EdgedError], None]) -> None:
        """Begins to load.

        Args:
            on_done: called on the main thread with the models, or with why there are none.

        Raises:
            ConfigError: an earlier load still hangs.
        """
        if not self.idle:
            raise ConfigError("an earlier attempt to load models hangs: restart edged")
        self._on_done = on_done
        self._deadline = self._clock() + TIMEOUT_S
        self._future = self._executor.submit(self._load, settings)
        self._future.add_done_callback(lambda future: self._post(partial(self._finish, future)))

    def check(self, now: float) -> None:
        """Gives up a load that takes longer than TIMEOUT_S. To be called about once a second."""
        if self._deadline and now >= self._deadline:
            self._report(ConfigError(f"the models were not loaded after {TIMEOUT_S:.0f} s"))

    def _finish(self, future: Future[Models]) -> None:
        if future is not self._future or not self._deadline:
            return  # it was given up
        error = future.exception()
        if error is None:
            self._report(future.result())
        elif isinstance(error, EdgedError):
            self._report(error)
        else:
            log_exception(_log, "models-failed", "loading the models failed", error)
            self._report(ConfigError(f"the models could not be loaded: {error!r}"))

    def _report(self, result: Models | EdgedError) -> None:
        self._deadline = 0.0
        self._on_done(result)
