"""The daemon: who is started, who hears of what, and how it ends. The work is done elsewhere.

Threads: capture (audio/) -> ring -> engine (daemon/engine.py) -> publisher (mqtt/), and this one,
the main thread, which owns the settings. It does jobs from one queue, put there by the others and
by signals: changes of state, and the commands that change settings. Once a second it looks after
everybody's health.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged import SAMPLE_RATE
from edged.audio.capture import MicrophoneState, MicrophoneStatus
from edged.audio.microphone import MicrophoneManager
from edged.config.settings import Settings
from edged.config.settings_manager import SettingsManager
from edged.daemon import device_info
from edged.daemon.control import Control
from edged.daemon.health import cpu_temp_c, rss_mb
from edged.daemon.run_with_timeout import EndingError, has_orphaned_work
from edged.daemon.start_timeout import while_it_gets_on
from edged.daemon.systemd import Notifier
from edged.daemon.watchdog import Watchdog
from edged.engine.background_worker import BackgroundWorker
from edged.engine.engine_thread import EndCommand, Engine, FlushCommand
from edged.errors import EdgedError
from edged.events import Error, Event, Turn
from edged.logs import log_event, log_exception
from edged.models import loader
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.commands import Command
from edged.mqtt.connection_status import ConnectionReport, ConnectionStatus
from edged.mqtt.embedded_broker import EmbeddedBroker
from edged.mqtt.publisher import Publisher
from edged.mqtt.spool_settings import SpoolSettings, default_journal_dir
from edged.server import factory

if TYPE_CHECKING:
    from edged.server.api_server import ApiServer

MAX_COMMANDS = 64  # that wait for the main thread
FIRST_MIC_S = 5.0  # longest wait for the first attempt at the microphone before READY
FIRST_HEALTH_S = 5.0
MICROPHONE_FIRST = 1  # steps of it that wait: from here on the door's streams stand back
SECOND_PASS_S = 60.0  # of one turn takes several seconds on a slow board: longer means it hangs
STOP_S = 4.5  # systemd and people count on 5 s
PUBLISH_S = 1.5  # of it, kept for sending the last words and saying goodbye
_TICK_S = 1.0

_log = logging.getLogger(__name__)


class Daemon:
    """One life: `run` returns when a signal asked for the end. The constructor opens nothing."""

    def __init__(self, keeper: SettingsManager, samples_dir: Path | None = None) -> None:
        self._keeper = keeper
        self.hangs = False
        """Work is left behind that would keep the process from ending."""
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._background = BackgroundWorker("second-pass")
        self._stop_by: float | None = None
        self._notifier = Notifier()
        self._vigil = Watchdog(
            self._notifier, self._say_silence, lambda said: self._publisher.event(Error(said))
        )
        self._link = ConnectionReport(False, ConnectionStatus.CONNECTING, "not connected yet")
        self._mic_before: MicrophoneState | None = None
        self._embedded: EmbeddedBroker | None = None
        self._api_server: ApiServer | None = None
        self._ready = False
        self._mic_by = 0.0
        self._started_at = time.monotonic()
        self._next_health = self._started_at + FIRST_HEALTH_S
        self._stumbled = False
        settings = keeper.settings
        self._hearing = MicrophoneManager(
            settings.alsa_device, settings.gain_db, settings.mute, self._on_mic, samples_dir
        )

    def run(self) -> int:
        """Raises ConfigError or ModelError if it cannot begin; otherwise the exit code: 0, or
        70 if a thread has stopped turning."""
        with while_it_gets_on(self._notifier):
            self._start()
        self._say_state(self._hearing.state)
        while self._stop_by is None:
            try:
                self._jobs.get(timeout=_TICK_S)()
            except queue.Empty:
                pass
            except Exception:
                log_exception(_log, "job-failed", "a job of the main thread failed")
            self._look_safely()
        code = self._stop(self._stop_by)
        return EdgedError.exit_code if self._vigil.given_up else code

    # -- the beginning and the end

    def _start(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        settings = self._keeper.settings
        self._notifier.status(f"loading the model {settings.model}")
        models = loader.load(settings.models_dir, settings.model, settings.threads)
        models = loader.for_this_machine(models)
        if self._stop_by is not None:
            raise SystemExit(0)  # stopped while it loaded: nothing was said, nothing is to be said
        for name in (*models.missing, *models.too_slow):
            why = "is too slow on this board" if name in models.too_slow else "is missing"
            log_event(_log, logging.WARNING, "no-turn-model", f"{name} {why}: turns end without it")
        self._engine = Engine(
            self._hearing.ring,
            models,
            settings.options(),
            self._on_events,
            self._on_speaking,
            self._background,
        )
        spool = SpoolSettings(
            settings.spool_path, settings.spool_max_mb, journal_dir=default_journal_dir()
        )
        self._publisher = Publisher(
            settings.broker(self._embedded_address(settings)),
            spool,
            self._on_command,
            self._on_link,
        )
        self._control = Control(
            self._keeper,
            self._hearing,
            self._engine,
            self._publisher,
            self._notifier,
            self._embedded_address,
            self._say_info,
            self._while_loading,
        )
        if settings.listen:
            self._api_server = self._make_api_server(settings)
            self._api_server.start()
        self._control.announce()
        self._on_speaking(False)
        self._publisher.start()
        self._engine.start()
        self._hearing.start()
        self._mic_by = time.monotonic() + FIRST_MIC_S
        watch = self._vigil.heartbeats.watch
        watch("capture", self._hearing.heartbeat_age_s)
        watch("engine", lambda: time.monotonic() - self._engine.heartbeat)
        watch("mqtt", self._publisher.heartbeat_age_s)
        watch("second pass", lambda: self._background.age_s, SECOND_PASS_S)

    def _make_api_server(self, settings: Settings) -> ApiServer:
        """Raises ConfigError if its packages or its certificate are missing."""
        sessions = factory.session_provider(
            lambda: self._engine.models,
            lambda: self._keeper.settings,
            lambda: self._engine.waiting >= MICROPHONE_FIRST,
        )
        api_server = factory.api_server(
            settings, sessions, self._vitals, self._problems, True, self._on_mute
        )
        self._vigil.heartbeats.watch("api", lambda: time.monotonic() - api_server.heartbeat)
        return api_server

    def _stop(self, by: float) -> int:
        """Finishes the sentence, publishes it, says offline."""
        self._notifier.stopping()
        self._notifier.status("stopping: the last words are published")
        self._hearing.stop(1.0)
        if not self._engine.stop(max(0.5, by - time.monotonic() - PUBLISH_S)):
            self.hangs = True
            log_event(_log, logging.ERROR, "engine-stuck", "the recogniser did not end in time")
        self._publisher.state("listening", "off")
        if self._api_server is not None:  # its followers have had the last words by now
            self._api_server.stop(0.0)
        self._publisher.stop(max(0.5, by - time.monotonic()))
        if self._api_server is not None:
            self._api_server.stop(max(0.1, by - time.monotonic()))
        if self._embedded is not None:
            self._embedded.stop()
        self.hangs |= not self._background.idle or has_orphaned_work()
        log_event(_log, logging.INFO, "stopped", "stopped")
        return 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        """In the main thread, between two lines of it: only notes what is asked."""
        if number == signal.SIGHUP:
            self._jobs.put(lambda: self._control.reload_quietly())  # there may be none yet
        elif self._stop_by is None:
            self._stop_by = time.monotonic() + STOP_S
            self._jobs.put(lambda: None)

    # -- what others tell, on their threads

    def _on_mic(self, state: MicrophoneStatus) -> None:
        self._jobs.put(partial(self._say_state, state))

    def _on_link(self, state: ConnectionReport) -> None:
        self._link = state
        self._jobs.put(lambda: None)

    def _on_events(self, events: Sequence[Event]) -> None:
        """On the engine's thread."""
        for event in events:
            latency_ms = None
            if isinstance(event, Turn):
                heard_s = self._engine.heard_s + self._hearing.ring.depth_s
                latency_ms = max(0.0, heard_s - event.stop_s) * 1000
            self._publisher.event(event, latency_ms)
        if self._api_server is not None:
            self._api_server.publish_events(events)

    def _on_speaking(self, speaking: bool) -> None:
        """On the engine's thread."""
        self._tell("speaking", "on" if speaking else "off")

    def _tell(self, name: str, value: Mapping[str, Any] | str) -> None:
        """A state, to the broker and to who follows at the door."""
        self._publisher.state(name, value)
        if self._api_server is not None:
            self._api_server.publish_state(name, value)

    def _on_mute(self, muted: bool) -> None:
        """Asked for at the door, on its thread."""
        if self._jobs.qsize() < MAX_COMMANDS:
            self._put(partial(self._control.mute, muted), muted)

    def _on_command(self, command: Command) -> None:
        """On the MQTT thread. Raises queue.Full, which the publisher answers with "busy"."""
        if command.name == "flush":
            done = partial(self._publisher.reply, command, True, flush_id=command.payload)
            if not self._engine.submit(FlushCommand(command.payload, done)):
                raise queue.Full
        elif self._jobs.qsize() >= MAX_COMMANDS:
            raise queue.Full
        else:
            asked = command.payload
            mutes = asked.get("mute") if command.name == "config" else asked
            self._put(partial(self._control.do, command), mutes is True)

    def _put(self, job: Callable[[], None], mutes: bool) -> None:
        """A mute is obeyed at once and decided upon later: the main thread may wait for models."""
        if not mutes or self._keeper.loaded.pinned("mute"):  # what is pinned is refused
            self._jobs.put(job)
            return
        self._hearing.mute_ahead()
        self._jobs.put(partial(self._decide, job))

    def _decide(self, job: Callable[[], None]) -> None:
        """On the main thread."""
        try:
            job()
        finally:
            self._hearing.mute_decided()

    # -- what is made of it, on the main thread

    def _say_state(self, mic: MicrophoneStatus) -> None:
        """Tells of the microphone: `state/mic`, `listening`, an `error` when it was lost."""
        hears = device_info.hears(mic)
        self._tell("mic", device_info.microphone(mic))
        self._say_listening()
        self._say_info()
        if not hears:
            self._engine.submit(EndCommand())
        if mic.problem and mic.state is not self._mic_before:
            self._publisher.event(Error(f"microphone: {mic.message}"))
        self._mic_before = mic.state

    def _say_listening(self) -> None:
        hears = device_info.hears(self._hearing.state) and not self._vigil.deaf
        self._publisher.state("listening", "on" if hears else "off")

    def _say_silence(self) -> None:
        """Other threads than before give no sign of life, or all do again."""
        self._say_listening()
        self._next_health = 0.0

    def _watch(self, now: float) -> None:
        self._vigil.look(now)
        if self._vigil.given_up and self._stop_by is None:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        """A thread hangs, and no watchdog ends the process: a container's restart policy can."""
        message = "edged ends, to be started again by whoever looks after it"
        log_event(_log, logging.CRITICAL, "given-up", f"{self._vigil.sentence}; {message}")
        self.hangs = True
        self._stop_by = now + STOP_S
        last = threading.Timer(2 * STOP_S, os._exit, (EdgedError.exit_code,))
        last.daemon = True  # for what hangs may hang the farewell too
        last.start()

    def _say_info(self) -> None:
        models, mic = self._engine.models, self._hearing.state
        self._publisher.info(device_info.info(self._keeper.loaded, mic, models))

    def _look_safely(self) -> None:
        """What fails here ends nothing. It is said once, until it goes well again."""
        try:
            self._look_after(time.monotonic())
        except Exception:
            if not self._stumbled:
                log_exception(_log, "supervision-failed", "the supervision failed; it goes on")
            self._stumbled = True
        else:
            self._stumbled = False

    def _while_loading(self) -> None:
        """A reload waits for models. The threads turn meanwhile, and are watched as ever."""
        self._watch(time.monotonic())
        if self._stop_by is not None:
            raise EndingError("edged stops")

    def _look_after(self, now: float) -> None:
        self._watch(now)  # first: what fails below is no reason to be restarted
        mic = self._hearing.state
        self._notifier.status(self._sentence(mic))
        tried = mic.state is not MicrophoneState.OPENING or now > self._mic_by
        if tried and not self._ready:
            self._ready = True
            self._notifier.ready()
            log_event(_log, logging.INFO, "ready", f"ready: {mic.message}")
        if self._keeper.files_changed(now):
            self._control.reload_quietly()
        self._keeper.retry_save(now)
        if now >= self._next_health:
            self._next_health = now + self._keeper.settings.health_every_s
            self._publisher.state("health", self._health())

    def _sentence(self, mic: MicrophoneStatus) -> str:
        broker = "broker ok" if self._link.connected else f"broker: {self._link.message}"
        parts = [
            self._vigil.sentence,
            mic.message,
            broker,
            self._control.problem,
            self._keeper.save_error,
            self._publisher.stats().disk_error,
        ]
        return "; ".join(part for part in parts if part)

    def _problems(self) -> list[str]:
        """Why somebody should look after this box, for /healthz."""
        mic = self._hearing.state
        silent = [f"no sign of life from {name}" for name in self._vigil.heartbeats.stale()]
        return silent + [mic.message] * mic.problem

    def _health(self) -> dict[str, Any]:
        ring, level, stats = self._hearing.ring, self._hearing.level, self._publisher.stats()
        rtf, rejected = self._engine.rtf, self._engine.rejected
        return {
            "level_dbfs": None if level is None else round(level.rms_dbfs, 1),
            "clipping": None if level is None else level.clipping,
            "rtf": None if rtf is None else round(rtf, 3),
            "lag_s": round(ring.depth_s, 2),
            "cpu_temp": cpu_temp_c(),
            "rss_mb": rss_mb(),
            "xruns": self._hearing.xruns,
            "dropped_s": round(ring.dropped / SAMPLE_RATE, 2),
            "engine_failures": self._engine.failures,
            "rejected": rejected.total(),
            "rejected_by_reason": dict(rejected),
            "outbox_depth": stats.depth,
            "spooled": stats.spooled,
            "messages_dropped": dict(stats.dropped),
            "disk_error": stats.disk_error,
            "damaged_spools": stats.damaged,
            "heard_s": round(self._engine.heard_s, 1),
            "silent_threads": list(self._vigil.silent),
            "unsaved": self._keeper.save_error or None,
            "uptime_s": round(time.monotonic() - self._started_at),
        }

    def _vitals(self) -> dict[str, Any]:
        """Health for who does not ask the broker: what `state/...` and the Will tell there."""
        return self._health() | {
            "broker_connected": self._link.connected,
            "microphone_open": not self._hearing.state.problem,
        }

    def _embedded_address(self, settings: Settings) -> BrokerAddress | None:
        """Returns the address of the embedded broker, which it starts; None if it is not used.

        Raises PeerError if the broker cannot be started.
        """
        if settings.broker_address is not None:
            return None
        if self._embedded is None:
            embedded = EmbeddedBroker()
            embedded.start()
            self._embedded = embedded
        return self._embedded.address
