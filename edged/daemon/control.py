"""Carries out commands and reloads, and applies changed settings to the parts of the daemon."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from edged import __version__, logs
from edged.audio.microphone import MicrophoneManager
from edged.config.model_choice import DECISIVE, choice_of, offered_languages, options_of
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
from edged.models.choice import ModelChoice
from edged.models.loader import Models
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.commands import Command
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.publisher import Publisher
from edged.options import Options

BUSY = "busy: too many commands are waiting"
MAX_WAITING_CHANGES = 16  # that need models, while others are loaded

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
        on_models: Callable[[Models], None],
        choice: ModelChoice,
        choose: Callable[[Settings], ModelChoice] = choice_of,
    ) -> None:
        """
        Args:
            on_models: called when the engine gets other models.
            choice: the model and language that the engine has.
            choose: the model and language that settings ask for; raises ModelError.
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
        self._on_models = on_models
        self._waiting_for_reload: list[OnReloaded] = []
        self._choice = choice
        self._choose = choose
        self._loading = False
        self._waiting_for_load: deque[_Attempt] = deque()
        self._homeassistant = HomeAssistantSettings()  # as they were last published
        self._languages: tuple[str, ...] = ()  # that can be chosen

    @property
    def options(self) -> Options:
        """The session options in force. May be read from any thread."""
        return options_of(self._settings_manager.settings, self._choice)

    def start(self) -> None:
        """Publishes the settings in force, and records the files if they could be used."""
        settings = self._settings_manager.settings
        self._publisher.step_every(settings.step_every)
        self._find_languages()
        self._publish_homeassistant()
        self._publish_settings()
        if self._settings_manager.rejected is not None:
            self._report_rejected(self._settings_manager.rejected)
            return
        self._settings_manager.record_files()
        self._publish_accepted((), ())

    def execute(self, command: Command) -> None:
        """Carries out a command and replies to it, for a reload when it has ended."""
        reply = partial(self._reply, command)
        match command.name:
            case "reload":
                self.reload(reply)
            case "mute":
                self._override({"mute": command.payload}, reply)
            case "config":
                self._override(command.payload, reply)
            case "keyterms":
                self._change_keyterms(command.payload, reply)
            case "restart":
                self._restart(reply)
            case name:
                reply(ConfigError(f"{name} is not a command"))

    def mute(self, muted: bool) -> None:
        """Mutes or unmutes for a client of the API server, under the same rules as over MQTT."""
        self._override({"mute": muted}, _log_refused_mute)

    def reload(self, on_done: OnReloaded | None = None) -> None:
        """Reads all settings again and applies them. If there is a mistake, nothing changes.

        If new models must be loaded, the reload goes on in the background and reads the settings
        once more when they are there. A reload requested before that joins it.
        """
        in_progress = bool(self._waiting_for_reload)
        self._waiting_for_reload.append(on_done or (lambda _: None))
        if not in_progress:
            self._notifier.reloading()
            self._reload()

    def check_models(self, now: float) -> None:
        """Ends a reload whose models take too long. To be called about once a second."""
        self._models.check(now)

    def _reload(self) -> None:
        self._attempt(
            _Attempt(self._settings_manager.plan_reload, self._reload_done, self._reload_refused)
        )

    def _reload_done(self, change: SettingsChange) -> None:
        self.reload_error = ""
        if self._find_languages():  # models may have been fetched
            self._publish_homeassistant()
        self._report_changed(change, "the settings were read again")
        self._publish_accepted(change.changed, change.pending)
        for note in self._settings_manager.loaded.notes:
            log_event(_log, logging.WARNING, "settings-note", note)
        self._finish_reload(
            {"changed": sorted(change.changed), "at_next_start": sorted(change.pending)}
        )

    def _reload_refused(self, error: EdgedError) -> None:
        self._report_rejected(error)
        self._finish_reload(error)

    def _finish_reload(self, result: Answer | EdgedError) -> None:
        self._notifier.ready()
        waiting, self._waiting_for_reload = self._waiting_for_reload, []
        for on_done in waiting:
            on_done(result)

    def _attempt(self, attempt: _Attempt, loaded: tuple[_LoadKey, Models] | None = None) -> None:
        """Plans a change, loads the models that it needs, applies it and commits it.

        loaded: models that were loaded for this attempt, and for which settings. If they are no
        longer those that are needed, others are loaded.
        """
        try:
            change = attempt.plan()
            choice, models = self._choice, None
            if DECISIVE & set(change.changed):
                choice = self._choose(change.settings)
                key = _load_key(change.settings, choice)
                if loaded is not None and loaded[0] == key:
                    models = loaded[1]
                elif key != _load_key(self._settings_manager.settings, self._choice):
                    self._load(attempt, change.settings, key)
                    return
            self._apply(change, choice, models)
        except EdgedError as error:
            attempt.refused(error)
            return
        self._settings_manager.commit(change)
        self._choice = choice
        attempt.done(change)

    def _load(self, attempt: _Attempt, settings: Settings, key: _LoadKey) -> None:
        """Loads models while others are in use, one load at a time, then continues the attempt.

        Raises ConfigError if too many attempts wait, or if an earlier load hangs.
        """
        if self._loading:
            if len(self._waiting_for_load) >= MAX_WAITING_CHANGES:
                raise ConfigError(BUSY)
            self._waiting_for_load.append(attempt)
            return
        self._models.start(settings, partial(self._loaded, attempt, key))
        self._loading = True

    def _loaded(self, attempt: _Attempt, key: _LoadKey, result: Models | EdgedError) -> None:
        self._loading = False
        if isinstance(result, EdgedError):
            attempt.refused(result)
        else:
            self._attempt(attempt, (key, result))
        while self._waiting_for_load and not self._loading:
            self._attempt(self._waiting_for_load.popleft())

    def _apply(self, change: SettingsChange, choice: ModelChoice, models: Models | None) -> None:
        """Passes changed fields to the parts. Raises EdgedError before anything has changed."""
        new, fields, scopes = change.settings, set(change.changed), change.scopes
        broker = None
        if ReloadScope.BROKER in scopes:
            check_files(new)
            broker = new.broker(self._embedded_address(new))
        options = options_of(new, choice)
        configure = models is not None or options != self.options
        if configure and not self._engine.submit(ConfigureCommand(options, models)):
            raise ConfigError(BUSY)
        if models is not None:
            self._on_models(models)
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
        if "log_level" in fields:
            logs.setup(new.log_level)

    def _override(self, values: dict[str, Any], reply: OnReloaded) -> None:
        def done(change: SettingsChange) -> None:
            saved = self._changed_over_mqtt(change)
            live = device_info.live_settings(self._settings_manager.settings)
            reply({"changed": {name: live[name] for name in change.changed}} | saved)

        plan = partial(self._settings_manager.plan_overrides, values)
        self._attempt(_Attempt(plan, done, reply))

    def _change_keyterms(self, wanted: dict[str, list[str]], reply: OnReloaded) -> None:
        ((action, terms),) = wanted.items()

        def done(change: SettingsChange) -> None:
            saved = self._changed_over_mqtt(change)
            active = self._settings_manager.settings.active_keyterms
            found = device_info.keyterms(self._engine.models, self._settings_manager.settings)
            reply({"terms": list(active), **found} | saved)

        plan = partial(self._settings_manager.plan_keyterms, action, terms)
        self._attempt(_Attempt(plan, done, reply))

    def _changed_over_mqtt(self, change: SettingsChange) -> Answer:
        """Returns what the answer says if the change is not saved."""
        self._report_changed(change, "changed over MQTT")
        answer: Answer = {}
        if self._settings_manager.save_error:
            answer |= {"remembered": False, "reason": self._settings_manager.save_error}
        return answer

    def _restart(self, reply: OnReloaded) -> None:
        if not self._engine.submit(RestartCommand()):
            reply(ConfigError(BUSY))
            return
        message = "the recogniser is restarted: cmd/restart"
        log_event(_log, logging.INFO, "recogniser-restarted", message)
        reply({})

    def _reply(self, command: Command, result: Answer | EdgedError) -> None:
        if isinstance(result, EdgedError):
            self._publisher.reply(command, False, str(result))
        else:
            self._publisher.reply(command, True, **result)

    def _report_changed(self, change: SettingsChange, why: str) -> None:
        fields = set(change.changed)
        if fields & DECISIVE:
            self._find_languages()
        if fields & (DECISIVE | {"homeassistant", "homeassistant_prefix"}):
            self._publish_homeassistant()
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

    def _find_languages(self) -> bool:
        """Looks at the models directory, which may take long on a slow disk. Returns whether other
        languages can be chosen now."""
        before = self._languages
        self._languages = offered_languages(self._settings_manager.settings)
        return self._languages != before

    def _publish_homeassistant(self) -> None:
        """Announces the device, unless that would change nothing."""
        settings = self._settings_manager.settings
        wanted = HomeAssistantSettings(
            enabled=settings.homeassistant,
            prefix=settings.homeassistant_prefix,
            version=__version__,
            model=f"edged {self._choice.entry.name}",
            languages=self._languages,
        )
        if wanted != self._homeassistant:
            self._homeassistant = wanted
            self._publisher.homeassistant(wanted)

    def _publish_settings(self) -> None:
        settings = self._settings_manager.settings
        self._publisher.state("settings", device_info.live_settings(settings))
        self._publisher.state("mute", "on" if settings.mute else "off")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A change of settings that may have to wait until models are loaded.

    plan: plans the change; called again after each load, because the settings may have changed
    since. done, refused: exactly one of them is called, once, on the main thread.
    """

    plan: Callable[[], SettingsChange]
    done: Callable[[SettingsChange], None]
    refused: Callable[[EdgedError], None]


_LoadKey: TypeAlias = tuple[Path | None, str, int]


def _load_key(settings: Settings, choice: ModelChoice) -> _LoadKey:
    """What decides which models are loaded, and how."""
    return settings.models_dir, choice.entry.name, settings.threads


def _log_refused_mute(result: Answer | EdgedError) -> None:
    if isinstance(result, EdgedError):
        log_event(_log, logging.WARNING, "mute-refused", str(result))
