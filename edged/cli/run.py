"""`edged run`: loads the settings, runs the daemon, and ends the process."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from edged import logs, resources
from edged.cli.listen import listen
from edged.config.settings import Settings
from edged.config.settings_manager import SettingsManager
from edged.config.startup import load_startup_settings
from edged.config.state_lock import lock_directories
from edged.daemon.service import Daemon
from edged.errors import EdgedError
from edged.logs import log_event
from edged.mqtt.embedded_broker import EmbeddedBroker

_log = logging.getLogger(__name__)


def run(
    env_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    captions: bool = False,
) -> int:
    """Runs the daemon until a signal ends it. Returns the exit code.

    Args:
        env_file: the settings file.
        flags: settings of the command line; None where not given.
        captions: whether to show here what is heard, as `edged listen` does, and to log warnings
            only.

    Raises:
        EdgedError: the daemon cannot start.
    """
    flags = dict(flags or {})
    startup = load_startup_settings(env_file, flags)
    loaded, settings = startup.loaded, startup.loaded.settings
    logs.setup("warning" if captions else settings.log_level)
    with lock_directories(settings):
        for note in loaded.notes:
            log_event(_log, logging.WARNING, "settings-note", note)
        if settings.mqtt_insecure:
            message = "EDGED_MQTT_INSECURE is on: others can read and change what is sent"
            log_event(_log, logging.WARNING, "mqtt-insecure", message)
        manager = SettingsManager(startup, env_file, flags)
        daemon = Daemon(manager, resources.played_samples(settings.language))
        code = _run_with_captions(daemon, settings) if captions else daemon.run()
        if daemon.has_hung_threads:
            # Everything is published and saved. The interpreter would wait for a thread that hangs
            # in the recogniser, or the thread would crash while the interpreter shuts down.
            logging.shutdown()
            os._exit(code)
    return code


def _run_with_captions(daemon: Daemon, settings: Settings) -> int:
    stop = threading.Event()
    broker = settings.broker(EmbeddedBroker().address)
    show = partial(listen, broker, Console(), settings.device, stop=stop)
    thread = threading.Thread(target=_without_errors, args=(show,), name="captions", daemon=True)
    thread.start()
    try:
        return daemon.run()
    finally:
        stop.set()
        thread.join(2)


def _without_errors(work: Callable[[], None]) -> None:
    """The daemon itself reports what is wrong with the broker."""
    with contextlib.suppress(EdgedError):
        work()
