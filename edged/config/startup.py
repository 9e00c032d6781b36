"""The settings that `edged run` starts with.

If the settings files have mistakes, the daemon starts with the last files that it accepted and
reports the mistakes: after a bad push and a power failure a device must still listen.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.config.model_choice import choice_of
from edged.config.settings import Settings
from edged.config.settings_history import SettingsHistory, find_state_dir, unpack
from edged.config.sources import LoadedSettings, RuntimeOverride, load
from edged.config.state_file import StateFile
from edged.errors import ConfigError, EdgedError, ModelError
from edged.logs import log_event
from edged.models import loader
from edged.mqtt.tls import tls_context

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartupSettings:
    """What the daemon starts with.

    Attributes:
        loaded: the settings.
        state: the state file that was read.
        rejected: why the files as they are cannot be used, if older ones replace them.
    """

    loaded: LoadedSettings
    state: StateFile
    rejected: EdgedError | None = None


def check_models(settings: Settings) -> None:
    """Raises ModelError if no installed model has the language, or if a file of the model is
    missing. Does not read the files."""
    loader.quick_check(settings.models_dir, choice_of(settings).entry.name)


def load_startup_settings(
    env_file: Path | None,
    flags: Mapping[str, Any],
    check_models: Callable[[Settings], None] = check_models,
) -> StartupSettings:
    """Loads the settings, or else the newest accepted ones that can still be used.

    Args:
        check_models: raises ModelError if the models that the settings name cannot be used.

    Raises:
        EdgedError: the files cannot be used and there are no others.
    """
    try:
        return _load(env_file, flags, check_models)
    except EdgedError as error:
        if env_file is not None:
            for snapshot in SettingsHistory(find_state_dir(env_file)).snapshots():
                with tempfile.TemporaryDirectory(prefix="edged-") as folder:
                    try:
                        older = _load(unpack(snapshot, Path(folder)), flags, check_models)
                    except EdgedError:
                        continue
                return StartupSettings(older.loaded, older.state, error)
        raise


def _load(
    env_file: Path | None, flags: Mapping[str, Any], check_models: Callable[[Settings], None]
) -> StartupSettings:
    without_overrides = load(env_file, flags)
    state = StateFile(without_overrides.settings.state_dir)
    overrides = state.read()
    if state.damaged:
        # Most changes over MQTT are mutes. Somebody notices a device that is silent by mistake and
        # unmutes it; nobody notices one that listens against their will.
        overrides["mute"] = RuntimeOverride(True, without_overrides.file_values.get("mute"))
        message = (
            "the state file is damaged, so edged does not know whether it was muted: it stays muted"
            " until cmd/mute or a changed line EDGED_MUTE= in the settings files"
        )
        log_event(_log, logging.WARNING, "muted-in-doubt", message)
    loaded = load(env_file, flags, overrides)
    check_files(loaded.settings)
    try:
        check_models(loaded.settings)
    except ModelError as error:
        if "language" not in loaded.overrides:
            raise
        kept = {name: item for name, item in overrides.items() if name != "language"}
        loaded = load(env_file, flags, kept)
        note = f"EDGED_LANGUAGE as changed over MQTT is no longer valid: {error}"
        loaded = replace(loaded, notes=(*loaded.notes, note))
        check_models(loaded.settings)
    if state.damaged:
        # Not before the settings have been accepted: an attempt with other files must find the
        # damage again. Not later: a mute that is assumed anew at each start would count as newer
        # than every line of the files.
        state.replace_damaged(loaded.overrides)
    return StartupSettings(loaded, state)


def check_files(settings: Settings) -> None:
    """Raises ConfigError if a certificate or key that the settings name cannot be used."""
    for name in ("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file"):
        path: Path | None = getattr(settings, name)
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as error:
            text = f"EDGED_{name.upper()}: {path} cannot be read: {error.strerror}"
            raise ConfigError(text) from None
    if settings.broker_address is not None and settings.broker_address.tls:
        tls_context(settings.broker())
