"""The daemon: starts the parts, supervises them, and stops them.

Its main thread carries out jobs from one queue, which other threads and signal handlers fill, and
supervises once a second. `edged/README.md` lists the threads and queues.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from pathlib import Path
from typing import Any

from edged.audio.microphone import MicrophoneManager
from edged.audio.microphone_status import MicrophoneState, MicrophoneStatus
from edged.config.model_choice import choice_of, options_of
from edged.config.settings import Settings
from edged.config.settings_manager import SettingsManager
from edged.daemon.command_queue import CommandQueue, Job
from edged.daemon.control import Control
from edged.daemon.health_report import HealthReport
from edged.daemon.model_loader import ModelLoader, load_models
from edged.daemon.start_timeout import extending_start_timeout
from edged.daemon.state_publisher import StatePublisher
from edged.daemon.supervisor import Supervisor
from edged.daemon.systemd import Notifier
from edged.daemon.watchdog import Watchdog
from edged.engine.background_worker import BackgroundWorker, lower_priority
from edged.engine.engine_thread import Engine
from edged.errors import EdgedError
from edged.events import Error
from edged.logs import log_event, log_exception
from edged.models import loader
from edged.models.choice import ModelChoice
from edged.models.loader import Models
from edged.models.pool import ModelPool
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.connection_status import ConnectionReport
from edged.mqtt.embedded_broker import EmbeddedBroker
from edged.mqtt.publisher import Publisher
from edged.mqtt.spool_settings import SpoolSettings, default_journal_dir
from edged.server import factory

FIRST_OPEN_S = 5.0  # how long READY waits for the first attempt to open the microphone
FIRST_HEALTH_S = 5.0
SECOND_PASS_STALE_S = 60.0  # one takes several seconds on a slow board
RECOGNISER_STALE_S = 30.0  # an update of much audio takes seconds on a slow board
STOP_TIMEOUT_S = 4.5  # supervisors and people expect a stop within 5 s
GOODBYE_S = 1.5  # of STOP_TIMEOUT_S, to publish the last words and to disconnect
_SUPERVISION_INTERVAL_S = 1.0

_log = logging.getLogger(__name__)


class Daemon:
    """One run of the daemon. The constructor opens nothing.

    Attributes:
        has_hung_threads: whether, after `run`, threads are left that would keep the process from
            ending, or crash while the interpreter shuts down.
    """

    _pool: ModelPool
    _engine: Engine
    _publisher: Publisher
    _states: StatePublisher
    _control: Control
    _commands: CommandQueue
    _health: HealthReport

    def __init__(self, settings_manager: SettingsManager, samples_dir: Path | None = None) -> None:
        """samples_dir: the folder of the sample speech, for the microphone `sample`."""
        self.has_hung_threads = False
        self._settings_manager = settings_manager
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stop_by: float | None = None
        self._ready = False
        self._notifier = Notifier()
        self._watchdog = Watchdog(
            self._notifier,
            self._hung_threads_changed,
            lambda message: self._publisher.event(Error(message)),
        )
        self._second_pass = BackgroundWorker("second-pass")
        self._recogniser = BackgroundWorker("recogniser")
        self._models = ModelLoader(self._jobs.put, self._load_models)
        settings = settings_manager.settings
        self._microphone = MicrophoneManager(
            settings.alsa_device,
            settings.gain_db,
            settings.mute,
            self._microphone_changed,
            samples_dir,
        )
        self._embedded: EmbeddedBroker | None = None
        self._supervisor = Supervisor(
            self._check_threads, self._check_status, self._check_settings, self._check_health
        )

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT.

        Returns the exit code: 0, or 70 if a thread hung. Raises ConfigError, ModelError or
        PeerError if it cannot start.
        """
        with extending_start_timeout(self._notifier):
            self._start()
        self._states.microphone(self._microphone.status)
        while self._stop_by is None:
            try:
                self._jobs.get(timeout=_SUPERVISION_INTERVAL_S)()
            except queue.Empty:
                pass
            except Exception:
                log_exception(_log, "job-failed", "a job of the main thread failed")
            self._supervisor.run(time.monotonic())
        self._stop(self._stop_by)
        return EdgedError.exit_code if self._watchdog.must_exit else 0

    # -- start and stop

    def _start(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        settings = self._settings_manager.settings
        choice = choice_of(settings)
        self._notifier.status(f"loading the model {choice.entry.name}")
        models = load_models(settings)
        if self._stop_by is not None:
            raise SystemExit(0)  # stopped before there was anything to say
        _report_missing_models(models)
        self._make_parts(settings, choice, models)
        self._control.start()
        self._states.speaking(False)
        self._publisher.start()
        self._engine.start()
        self._microphone.start()
        started = time.monotonic()
        self._ready_by = started + FIRST_OPEN_S
        self._next_health = started + FIRST_HEALTH_S
        watch = self._watchdog.heartbeats.watch
        watch("capture", self._microphone.heartbeat_age_s)
        watch("engine", lambda: time.monotonic() - self._engine.heartbeat)
        watch("mqtt", self._publisher.heartbeat_age_s)
        watch("second pass", lambda: self._second_pass.age_s, SECOND_PASS_STALE_S)
        watch("recogniser", lambda: self._recogniser.age_s, RECOGNISER_STALE_S)

    def _make_parts(self, settings: Settings, choice: ModelChoice, models: Models) -> None:
        self._pool = ModelPool(
            models,
            self._load_for_stream,
            BackgroundWorker("api-model-loader", initializer=lower_priority),
            settings.max_models,
        )
        self._engine = Engine(
            self._microphone.ring,
            models,
            options_of(settings, choice),
            lambda events: self._states.events(events),
            lambda speaking: self._states.speaking(speaking),
            self._second_pass,
            self._recogniser,
        )
        self._publisher = Publisher(
            settings.broker(self._embedded_address(settings)),
            SpoolSettings(
                settings.spool_path, settings.spool_max_mb, journal_dir=default_journal_dir()
            ),
            lambda command: self._commands.mqtt_command(command),
            self._connection_changed,
        )
        self._states = StatePublisher(
            self._settings_manager,
            self._microphone,
            self._engine,
            self._publisher,
            self._watchdog,
        )
        self._control = Control(
            self._settings_manager,
            self._microphone,
            self._engine,
            self._publisher,
            self._notifier,
            self._models,
            self._embedded_address,
            self._states.info,
            self._pool.set_main,
            choice,
        )
        self._commands = CommandQueue(
            self._jobs,
            self._control,
            self._settings_manager,
            self._microphone,
            self._engine,
            self._publisher,
        )
        self._health = HealthReport(
            self._settings_manager,
            self._microphone,
            self._engine,
            self._publisher,
            self._control,
            self._watchdog,
        )
        if settings.listen or settings.wyoming:
            self._start_api_server(settings)

    def _load_models(self, settings: Settings) -> Models:
        """For a change of the settings in force, on the loader's thread."""
        now = self._settings_manager.settings
        fields = ("models_dir", "threads", "second_opinion")
        same = all(getattr(settings, field) == getattr(now, field) for field in fields)
        return load_models(settings, self._pool if same else None)

    def _load_for_stream(self, name: str, loaded: Models) -> Models:
        settings = self._settings_manager.settings
        return loader.load(settings.models_dir, name, settings.threads, loaded)

    def _start_api_server(self, settings: Settings) -> None:
        """Raises ConfigError if its packages or its certificate are missing."""
        sessions = factory.session_provider(
            self._pool,
            lambda: self._settings_manager.settings,
            lambda: self._control.options,
            lambda: self._engine.is_behind,
        )
        api_server = factory.api_server(
            settings,
            sessions,
            self._health.metrics,
            self._health.problems,
            True,
            self._commands.api_mute,
        )
        self._states.api_server = api_server
        self._watchdog.heartbeats.watch("api", lambda: time.monotonic() - api_server.heartbeat)
        api_server.start()

    def _stop(self, by: float) -> None:
        """Finishes the sentence, publishes it and disconnects, until `by` (monotonic clock)."""
        self._notifier.stopping()
        self._notifier.status("stopping: publishing the last words")
        self._microphone.stop(1.0)
        if not self._engine.stop(max(0.5, by - time.monotonic() - GOODBYE_S)):
            self.has_hung_threads = True
            message = "the recogniser did not stop in time; its last words may be missing"
            log_event(_log, logging.ERROR, "engine-stuck", message)
        self._publisher.state("listening", "off")
        api_server = self._states.api_server
        if api_server is not None:
            api_server.stop(0.0)  # its subscribers have the last words by now
        self._publisher.stop(max(0.5, by - time.monotonic()))
        if api_server is not None:
            api_server.stop(max(0.1, by - time.monotonic()))
        if self._embedded is not None:
            self._embedded.stop()
        workers_idle = self._second_pass.idle and self._recogniser.idle
        self.has_hung_threads |= not workers_idle or not self._models.idle
        log_event(_log, logging.INFO, "stopped", "stopped")

    def _embedded_address(self, settings: Settings) -> BrokerAddress | None:
        """Starts the embedded broker if it is used. Raises PeerError if that fails."""
        if settings.broker_address is not None:
            return None
        if self._embedded is None:
            embedded = EmbeddedBroker()
            embedded.start()
            self._embedded = embedded
        return self._embedded.address

    # -- signals and callbacks

    def _on_signal(self, number: int, _frame: Any) -> None:
        """Runs in the main thread, between any two instructions: only queues what is asked."""
        if number == signal.SIGHUP:
            self._jobs.put(lambda: self._control.reload())
        elif self._stop_by is None:
            self._stop_by = time.monotonic() + STOP_TIMEOUT_S
            self._jobs.put(lambda: None)

    def _microphone_changed(self, status: MicrophoneStatus) -> None:
        """On the capture thread."""
        self._jobs.put(lambda: self._states.microphone(status))

    def _connection_changed(self, report: ConnectionReport) -> None:
        """On the MQTT thread."""
        self._health.connection = report
        self._jobs.put(lambda: None)  # to update the status line

    def _hung_threads_changed(self) -> None:
        self._states.listening()
        self._next_health = 0.0

    # -- supervision, once a second

    def _check_threads(self, now: float) -> None:
        self._watchdog.check(now)
        if self._watchdog.must_exit and self._stop_by is None:
            message = "edged exits so that its supervisor can start it again"
            log_event(_log, logging.CRITICAL, "given-up", f"{self._watchdog.message}; {message}")
            self.has_hung_threads = True
            self._stop_by = now + STOP_TIMEOUT_S
            # A hung thread may block the stop too.
            exit_timer = threading.Timer(2 * STOP_TIMEOUT_S, os._exit, (EdgedError.exit_code,))
            exit_timer.daemon = True
            exit_timer.start()

    def _check_status(self, now: float) -> None:
        status = self._microphone.status
        self._notifier.status(self._health.status_line())
        attempted = status.state is not MicrophoneState.OPENING or now > self._ready_by
        if attempted and not self._ready:
            self._ready = True
            self._notifier.ready()
            log_event(_log, logging.INFO, "ready", f"ready: {status.message}")

    def _check_settings(self, now: float) -> None:
        self._control.check_models(now)
        if self._settings_manager.files_changed(now):
            self._control.reload()
        self._settings_manager.retry_save(now)

    def _check_health(self, now: float) -> None:
        if now >= self._next_health:
            self._next_health = now + self._settings_manager.settings.health_every_s
            self._publisher.state("health", self._health.health())


def _report_missing_models(models: Models) -> None:
    for name in (*models.missing, *models.too_slow):
        why = "is too slow on this board" if name in models.too_slow else "is not installed"
        message = f"{name} {why}: the ends of turns are found without it"
        log_event(_log, logging.WARNING, "no-turn-model", message)
