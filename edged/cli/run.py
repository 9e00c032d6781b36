"""`edged run`: the settings to begin with, the daemon, and how the process ends."""

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
    """`edged run`. `captions` shows here what is heard, as `edged listen` would, and keeps the log
    to warnings. Raises an EdgedError if it cannot begin; else the exit code."""
    flags = dict(flags or {})
    startup = load_startup_settings(env_file, flags)
    loaded, settings = startup.loaded, startup.loaded.settings
    logs.setup("warning" if captions else settings.log_level)
    for note in loaded.notes:
        log_event(_log, logging.WARNING, "settings-note", note)
    if settings.mqtt_insecure:
        message = "EDGED_MQTT_INSECURE is on: anybody on the way can read and change what is sent"
        log_event(_log, logging.WARNING, "mqtt-insecure", message)
    keeper = SettingsManager(startup, env_file, flags)
    daemon = Daemon(keeper, resources.sample_speech())
    code = _run(daemon, captions, settings)
    if daemon.hangs:
        # All is said and saved. A thread inside the recogniser would be waited for, or would crash
        # while the interpreter goes down around it.
        logging.shutdown()
        os._exit(code)
    return code


def _run(daemon: Daemon, captions: bool, settings: Settings) -> int:
    if not captions:
        return daemon.run()
    stop = threading.Event()
    watch = partial(
        listen, settings.broker(EmbeddedBroker().address), Console(), settings.device, stop=stop
    )
    watcher = threading.Thread(target=_quietly, args=(watch,), name="captions", daemon=True)
    watcher.start()
    try:
        return daemon.run()
    finally:
        stop.set()
        watcher.join(2)


def _quietly(work: Callable[[], None]) -> None:
    """The daemon itself says what is wrong with the broker."""
    with contextlib.suppress(EdgedError):
        work()
