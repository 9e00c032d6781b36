"""The settings to begin with.

A box whose settings files are wrong and that loses its power must not come back deaf, waiting for
somebody with a keyboard: it begins with the last files that it took, and says so.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.config.settings import Settings
from edged.config.settings_history import History, find_state_dir, unpack
from edged.config.sources import Loaded, RuntimeOverride, load
from edged.config.state_file import StateFile
from edged.errors import ConfigError, EdgedError
from edged.logs import log_event
from edged.models import loader
from edged.mqtt.tls import tls_context

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """`refused`: what is wrong with the files as they are, where older ones stand in for them."""

    loaded: Loaded
    state: StateFile
    refused: EdgedError | None = None


def first_settings(env_file: Path | None, flags: Mapping[str, Any]) -> Beginning:
    """Raises EdgedError if the files cannot be used and there is nothing to fall back to."""
    try:
        return _begin(env_file, flags)
    except EdgedError as problem:
        if env_file is not None:
            for kept in History(find_state_dir(env_file)).all():
                with tempfile.TemporaryDirectory(prefix="edged-") as folder:
                    try:
                        begin = _begin(unpack(kept, Path(folder)), flags)
                    except EdgedError:
                        continue
                return Beginning(begin.loaded, begin.state, problem)
        raise


def _begin(env_file: Path | None, flags: Mapping[str, Any]) -> Beginning:
    plain = load(env_file, flags)
    state = StateFile(plain.settings.state_dir)
    remembered = state.read()
    if state.damaged:
        # Most that is changed over MQTT is mute. A box that is silent by mistake is noticed and
        # helped with one command; one that listens against somebody's will is not noticed.
        remembered["mute"] = RuntimeOverride(True, plain.file_values.get("mute"))
        message = "whether it was muted is not known: it is muted until cmd/mute or a changed line "
        log_event(_log, logging.WARNING, "muted-in-doubt", message + "EDGED_MUTE= says otherwise")
    loaded = load(env_file, flags, remembered)
    check_files(loaded.settings)
    loader.glance(loaded.settings.models_dir, loaded.settings.model)
    if state.damaged:
        # Only now: with files that are not taken, the next attempt must find the damage again. And
        # not later: guessed anew at each start, the mute would outlive every line of the files.
        state.supersede(loaded.remembered)
    return Beginning(loaded, state)


def check_files(settings: Settings) -> None:
    """Raises ConfigError for a file that the settings name and that cannot be read, or that is no
    certificate or key where one is needed."""
    for name in ("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file"):
        path: Path | None = getattr(settings, name)
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as problem:
            text = f"EDGED_{name.upper()}: {path} cannot be read: {problem.strerror}"
            raise ConfigError(text) from None
    if settings.broker_address is not None and settings.broker_address.tls:
        tls_context(settings.broker())
