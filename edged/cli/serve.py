"""`edged serve`: the API server alone, on a machine without microphone and broker."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edged import logs
from edged.config.model_choice import choice_of, options_of, second_opinion_of
from edged.config.sources import load
from edged.daemon.machine import cpu_temp_c
from edged.engine.background_worker import BackgroundWorker, lower_priority
from edged.engine.load_prediction import without_slow_opinion
from edged.models import loader
from edged.models.loader import Models
from edged.models.pool import ModelPool
from edged.server import factory

DEFAULT_LISTEN = "127.0.0.1:8765"


def serve(env_file: Path | None = None, flags: Mapping[str, Any] | None = None) -> int:
    """Runs until SIGTERM or SIGINT and returns the exit code. Raises an EdgedError if the server
    cannot be started."""
    settings = load(env_file, dict(flags or {})).settings
    if not settings.listen and not settings.wyoming:
        settings = settings.model_copy(update={"listen": DEFAULT_LISTEN})
    logs.setup(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    choice = choice_of(settings)
    opinion = second_opinion_of(settings, choice)
    models = loader.load(settings.models_dir, choice.entry.name, settings.threads, None, opinion)
    options = options_of(settings, choice)
    models = without_slow_opinion(models, options)

    def load_another(name: str, loaded: Models) -> Models:
        return loader.load(settings.models_dir, name, settings.threads, loaded)

    worker = BackgroundWorker("api-model-loader", initializer=lower_priority)
    pool = ModelPool(models, load_another, worker, settings.max_models)
    sessions = factory.session_provider(pool, lambda: settings, lambda: options)
    api_server = factory.api_server(settings, sessions, lambda: {"cpu_temp": cpu_temp_c()})
    api_server.start()
    try:
        api_server.wait_open()
        stop.wait()
    finally:
        api_server.stop()
    return 0
