"""What may be asked of the running daemon, and how new settings reach its parts.

All of it runs on the main thread, one at a time, so that a command and a reload cannot cross.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from edged import __version__, logs
from edged.audio.microphone import MicrophoneManager
from edged.config.settings import ReloadScope, Settings
from edged.config.settings_manager import SettingsChange, SettingsManager
from edged.config.sources import SettingsError
from edged.config.startup import check_files
from edged.daemon import device_info
from edged.daemon.run_with_timeout import EndingError, run_with_timeout
from edged.daemon.systemd import Notifier
from edged.engine.engine_thread import ConfigureCommand, Engine, RestartCommand
from edged.errors import ConfigError, EdgedError
from edged.logs import log_event
from edged.models import loader
from edged.models.loader import Models
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.commands import Command
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.publisher import Publisher

BUSY = "busy: too many commands are waiting"

_log = logging.getLogger(__name__)


class Control:
    """Owned by the main thread."""

    def __init__(
        self,
        keeper: SettingsManager,
        hearing: MicrophoneManager,
        engine: Engine,
        publisher: Publisher,
        notifier: Notifier,
        embedded_address: Callable[[Settings], BrokerAddress | None],
        on_change: Callable[[], None],
        while_loading: Callable[[], None],
    ) -> None:
        """`embedded_address` starts the embedded broker if it is used, and gives its address.
        `on_change` is called when other settings are in force, `while_loading` each second while
        models are loaded: an EdgedError of it ends that."""
        self.problem = ""  # why the last reload changed nothing, for the status line
        self._keeper = keeper
        self._hearing = hearing
        self._engine = engine
        self._publisher = publisher
        self._notifier = notifier
        self._embedded_address = embedded_address
        self._on_change = on_change
        self._while_loading = while_loading

    def announce(self) -> None:
        """At the start: the settings in force, for all who look."""
        settings = self._keeper.settings
        self._publisher.step_every(settings.step_every)
        self._publisher.homeassistant(self._homeassistant(settings))
        self._publish_settings()
        if self._keeper.rejected is not None:
            self._refused(self._keeper.rejected)
            return
        self._keeper.record_files()
        accepted = device_info.accepted(self._keeper.loaded, (), ())
        self._publisher.state("config", accepted)

    def do(self, command: Command) -> None:
        """A command that changes settings or threads; it is answered here."""
        try:
            more = self._done(command)
        except EdgedError as problem:
            self._publisher.reply(command, False, str(problem))
        else:
            self._publisher.reply(command, True, **more)

    def mute(self, muted: bool) -> None:
        """Asked for from afar, as over MQTT: a lock holds against it."""
        try:
            self._change({"mute": muted})
        except EdgedError as problem:
            log_event(_log, logging.WARNING, "mute-refused", str(problem))

    def reload(self) -> dict[str, Any]:
        """Reads all settings again. Raises EdgedError, having said so everywhere; then nothing
        has changed."""
        self._notifier.reloading()
        try:
            change = self._keeper.plan_reload()
            self.apply(change)
            self._keeper.commit(change)
        except EndingError:
            raise  # the retained state/config would blame good settings until the next start
        except EdgedError as problem:
            self._refused(problem)
            raise
        finally:
            self._notifier.ready()
        self.problem = ""
        self._changed(change.changed, "the settings were read again")
        accepted = device_info.accepted(self._keeper.loaded, change.changed, change.pending)
        self._publisher.state("config", accepted)
        for note in self._keeper.loaded.notes:
            log_event(_log, logging.WARNING, "settings-note", note)
        return {"changed": sorted(change.changed), "at_next_start": sorted(change.pending)}

    def reload_quietly(self) -> None:
        """For SIGHUP, which nobody answers."""
        with contextlib.suppress(EdgedError):
            self.reload()

    def apply(self, change: SettingsChange) -> None:
        """Gives changed fields to those concerned. Raises EdgedError before anything is touched."""
        new, fields, scopes = change.settings, set(change.changed), change.scopes
        models = broker = None
        if ReloadScope.BROKER in scopes:
            check_files(new)
            broker = new.broker(self._embedded_address(new))
        if ReloadScope.RECOGNISER in scopes:
            models = run_with_timeout(partial(_load, new), self._while_loading)
        options = new.options()
        wanted = models is not None or options != self._keeper.settings.options()
        if wanted and not self._engine.submit(ConfigureCommand(options, models)):
            raise ConfigError(BUSY)
        if broker is not None:
            self._publisher.reconfigure(broker)
        if ReloadScope.MICROPHONE in scopes:
            self._hearing.use(new.alsa_device)
        if "gain_db" in fields:
            self._hearing.set_gain(new.gain_db)
        if "mute" in fields:
            self._hearing.mute(new.mute)
        if "step_every" in fields:
            self._publisher.step_every(new.step_every)
        if fields & {"homeassistant", "homeassistant_prefix"}:
            self._publisher.homeassistant(self._homeassistant(new))
        if "log_level" in fields:
            logs.setup(new.log_level)

    def _done(self, command: Command) -> dict[str, Any]:
        match command.name:
            case "mute":
                return self._change({"mute": command.payload})
            case "config":
                return self._change(command.payload)
            case "reload":
                return self.reload()
            case "restart":
                if not self._engine.submit(RestartCommand()):
                    raise ConfigError(BUSY)
                log_event(
                    _log, logging.INFO, "recogniser-restarted", "the recogniser was restarted"
                )
                return {}
        raise ConfigError(f"{command.name} is no command of the daemon's")

    def _change(self, changes: dict[str, Any]) -> dict[str, Any]:
        change = self._keeper.plan_overrides(changes)
        self.apply(change)
        self._keeper.commit(change)
        self._changed(change.changed, "changed over MQTT")
        live = device_info.live_settings(self._keeper.settings)
        answer: dict[str, Any] = {"changed": {name: live[name] for name in change.changed}}
        if self._keeper.save_error:
            answer |= {"remembered": False, "reason": self._keeper.save_error}
        return answer

    def _changed(self, fields: tuple[str, ...], why: str) -> None:
        if fields:
            log_event(_log, logging.INFO, "settings-changed", f"{why}: {', '.join(sorted(fields))}")
            self._on_change()
        self._publish_settings()

    def _publish_settings(self) -> None:
        settings = self._keeper.settings
        self._publisher.state("settings", device_info.live_settings(settings))
        self._publisher.state("mute", "on" if settings.mute else "off")

    def _refused(self, problem: EdgedError) -> None:
        problems, files = [str(problem)], self._keeper.loaded.files
        if isinstance(problem, SettingsError):
            problems, files = [str(p) for p in problem.problems], problem.files
        self.problem = f"the new settings have mistakes and were not applied: {problems[0]}"
        for text in problems:
            log_event(
                _log, logging.ERROR, "settings-refused", f"the settings were not applied: {text}"
            )
        self._publisher.state("config", device_info.refused(problems, files))

    def _homeassistant(self, settings: Settings) -> HomeAssistantSettings:
        return HomeAssistantSettings(
            enabled=settings.homeassistant,
            prefix=settings.homeassistant_prefix,
            version=__version__,
            model=f"edged {settings.model}",
        )


def _load(settings: Settings) -> Models:
    models = loader.load(settings.models_dir, settings.model, settings.threads)
    return loader.for_this_machine(models)
