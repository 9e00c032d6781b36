"""Carries out commands and reloads, and applies changed settings to the parts of the daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from edged import __version__, logs
from edged.audio.microphone import MicrophoneManager
from edged.config.settings import ReloadScope, Settings
from edged.config.settings_manager import SettingsChange, SettingsManager
from edged.config.sources import SettingsError
from edged.config.startup import check_files
from edged.daemon import device_info
from edged.daemon.model_loader import ModelLoader
from edged.daemon.systemd import Notifier
from edged.engine.engine_thread import ConfigureCommand, Engine, RestartCommand
from edged.errors import ConfigError, EdgedError
from edged.logs import log_event
from edged.models.loader import Models
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.commands import Command
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.publisher import Publisher

BUSY = "busy: too many commands are waiting"

Answer: TypeAlias = dict[str, Any]
OnReloaded: TypeAlias = Callable[[Answer | EdgedError], None]

_log = logging.getLogger(__name__)


class Control:
    """Used by the main thread only, so that commands and reloads do not cross."""

    def __init__(
        self,
        settings_manager: SettingsManager,
        microphone: MicrophoneManager,
        engine: Engine,
        publisher: Publisher,
        notifier: Notifier,
        models: ModelLoader,
        embedded_address: Callable[[Settings], BrokerAddress | None],
        on_change: Callable[[], None],
    ) -> None:
        """
        Args:
            embedded_address: starts the embedded broker if the settings ask for it, and returns its
                address, else None.
            on_change: called when other settings are in force.
        """
        self.reload_error = ""
        """Why the last reload changed nothing; empty if it succeeded."""
        self._settings_manager = settings_manager
        self._microphone = microphone
        self._engine = engine
        self._publisher = publisher
        self._notifier = notifier
        self._models = models
        self._embedded_address = embedded_address
        self._on_change = on_change
        self._waiting_for_reload: list[OnReloaded] = []

    def start(self) -> None:
        """Publishes the settings in force, and records the files if they could be used."""
        settings = self._settings_manager.settings
        self._publisher.step_every(settings.step_every)
        self._publisher.homeassistant(_homeassistant(settings))
        self._publish_settings()
        if self._settings_manager.rejected is not None:
            self._report_rejected(self._settings_manager.rejected)
            return
        self._settings_manager.record_files()
        self._publish_accepted((), ())

    def execute(self, command: Command) -> None:
        """Carries out a command and replies to it, for a reload when it has ended."""
        if command.name == "reload":
            self.reload(partial(self._reply, command))
            return
        try:
            answer = self._execute(command)
        except EdgedError as error:
            self._reply(command, error)
        else:
            self._reply(command, answer)

    def mute(self, muted: bool) -> None:
        """Mutes or unmutes for a client of the API server, under the same rules as over MQTT."""
        try:
            self._override({"mute": muted})
        except EdgedError as error:
            log_event(_log, logging.WARNING, "mute-refused", str(error))

    def reload(self, on_done: OnReloaded | None = None) -> None:
        """Reads all settings again and applies them. If there is a mistake, nothing changes.

        If new models must be loaded, the reload goes on in the background and reads the settings
        once more when they are there. A reload that is asked for meanwhile joins it.
        """
        in_progress = bool(self._waiting_for_reload)
        self._waiting_for_reload.append(on_done or (lambda _: None))
        if not in_progress:
            self._notifier.reloading()
            self._reload()

    def check_models(self, now: float) -> None:
        """Ends a reload whose models take too long. To be called about once a second."""
        self._models.check(now)

    def _reload(self, loaded: tuple[_ModelChoice, Models] | None = None) -> None:
        """`loaded`: models that were loaded for this reload, and for which settings."""
        try:
            change = self._settings_manager.plan_reload()
            models = None
            if ReloadScope.RECOGNISER in change.scopes:
                choice = _model_choice(change.settings)
                if loaded is None or loaded[0] != choice:
                    self._models.start(change.settings, partial(self._models_loaded, choice))
                    return
                models = loaded[1]
            self._apply(change, models)
        except EdgedError as error:
            self._report_rejected(error)
            self._finish_reload(error)
            return
        self._settings_manager.commit(change)
        self.reload_error = ""
        self._report_changed(change, "the settings were read again")
        self._publish_accepted(change.changed, change.pending)
        for note in self._settings_manager.loaded.notes:
            log_event(_log, logging.WARNING, "settings-note", note)
        self._finish_reload(
            {"changed": sorted(change.changed), "at_next_start": sorted(change.pending)}
        )

    def _models_loaded(self, choice: _ModelChoice, result: Models | EdgedError) -> None:
        if isinstance(result, EdgedError):
            self._report_rejected(result)
            self._finish_reload(result)
        else:
            self._reload((choice, result))

    def _finish_reload(self, result: Answer | EdgedError) -> None:
        self._notifier.ready()
        waiting, self._waiting_for_reload = self._waiting_for_reload, []
        for on_done in waiting:
            on_done(result)

    def _apply(self, change: SettingsChange, models: Models | None = None) -> None:
        """Passes changed fields to the parts. Raises EdgedError before anything has changed."""
        new, fields, scopes = change.settings, set(change.changed), change.scopes
        broker = None
        if ReloadScope.BROKER in scopes:
            check_files(new)
            broker = new.broker(self._embedded_address(new))
        options = new.options()
        configure = models is not None or options != self._settings_manager.settings.options()
        if configure and not self._engine.submit(ConfigureCommand(options, models)):
            raise ConfigError(BUSY)
        if broker is not None:
            self._publisher.reconfigure(broker)
        if ReloadScope.MICROPHONE in scopes:
            self._microphone.set_device(new.alsa_device)
        if "gain_db" in fields:
            self._microphone.set_gain(new.gain_db)
        if "mute" in fields:
            self._microphone.mute(new.mute)
        if "step_every" in fields:
            self._publisher.step_every(new.step_every)
        if fields & {"homeassistant", "homeassistant_prefix"}:
            self._publisher.homeassistant(_homeassistant(new))
        if "log_level" in fields:
            logs.setup(new.log_level)

    def _execute(self, command: Command) -> Answer:
        match command.name:
            case "mute":
                return self._override({"mute": command.payload})
            case "config":
                return self._override(command.payload)
            case "keyterms":
                return self._change_keyterms(command.payload)
            case "restart":
                if not self._engine.submit(RestartCommand()):
                    raise ConfigError(BUSY)
                message = "the recogniser is restarted: cmd/restart"
                log_event(_log, logging.INFO, "recogniser-restarted", message)
                return {}
        raise ConfigError(f"{command.name} is not a command")

    def _override(self, values: dict[str, Any]) -> Answer:
        change = self._settings_manager.plan_overrides(values)
        saved = self._carry_out(change)
        live = device_info.live_settings(self._settings_manager.settings)
        return {"changed": {name: live[name] for name in change.changed}} | saved

    def _change_keyterms(self, wanted: dict[str, list[str]]) -> Answer:
        ((action, terms),) = wanted.items()
        change = self._settings_manager.plan_keyterms(action, terms)
        saved = self._carry_out(change)
        active = self._settings_manager.settings.active_keyterms
        found = device_info.keyterms(self._engine.models, self._settings_manager.settings)
        return {"terms": list(active), **found} | saved

    def _carry_out(self, change: SettingsChange) -> Answer:
        """Applies a change made over MQTT; returns what the answer says if it is not saved."""
        self._apply(change)
        self._settings_manager.commit(change)
        self._report_changed(change, "changed over MQTT")
        answer: Answer = {}
        if self._settings_manager.save_error:
            answer |= {"remembered": False, "reason": self._settings_manager.save_error}
        return answer

    def _reply(self, command: Command, result: Answer | EdgedError) -> None:
        if isinstance(result, EdgedError):
            self._publisher.reply(command, False, str(result))
        else:
            self._publisher.reply(command, True, **result)

    def _report_changed(self, change: SettingsChange, why: str) -> None:
        if change.changed:
            message = f"{why}: {', '.join(sorted(change.changed))}"
            log_event(_log, logging.INFO, "settings-changed", message)
            self._on_change()
        self._publish_settings()

    def _report_rejected(self, error: EdgedError) -> None:
        errors, files = [str(error)], self._settings_manager.loaded.files
        if isinstance(error, SettingsError):
            errors, files = [str(problem) for problem in error.problems], error.files
        self.reload_error = f"the new settings have mistakes and were not applied: {errors[0]}"
        for text in errors:
            message = f"the settings were not applied: {text}"
            log_event(_log, logging.ERROR, "settings-refused", message)
        self._publisher.state("config", device_info.config_rejected(errors, files))

    def _publish_accepted(self, changed: tuple[str, ...], pending: tuple[str, ...]) -> None:
        payload = device_info.config_accepted(self._settings_manager.loaded, changed, pending)
        self._publisher.state("config", payload)

    def _publish_settings(self) -> None:
        settings = self._settings_manager.settings
        self._publisher.state("settings", device_info.live_settings(settings))
        self._publisher.state("mute", "on" if settings.mute else "off")


_ModelChoice: TypeAlias = tuple[Path | None, str, int]


def _model_choice(settings: Settings) -> _ModelChoice:
    """What decides which models are loaded."""
    return settings.models_dir, settings.model, settings.threads


def _homeassistant(settings: Settings) -> HomeAssistantSettings:
    return HomeAssistantSettings(
        enabled=settings.homeassistant,
        prefix=settings.homeassistant_prefix,
        version=__version__,
        model=f"edged {settings.model}",
    )
