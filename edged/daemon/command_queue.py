"""Receives commands on other threads and queues them for the thread that carries them out."""

from __future__ import annotations

import queue
from collections.abc import Callable
from functools import partial

from edged.audio.microphone import MicrophoneManager
from edged.config.settings_manager import SettingsManager
from edged.daemon.control import Control
from edged.engine.engine_thread import Engine, FlushCommand
from edged.mqtt.commands import Command
from edged.mqtt.publisher import Publisher

MAX_JOBS = 64  # of the main thread's queue; beyond this a command is refused as "busy"

Job = Callable[[], None]


class CommandQueue:
    """Commands of MQTT and of the API server. Its methods may be called on any thread."""

    def __init__(
        self,
        jobs: queue.SimpleQueue[Job],
        control: Control,
        settings_manager: SettingsManager,
        microphone: MicrophoneManager,
        engine: Engine,
        publisher: Publisher,
    ) -> None:
        """jobs: the queue of the main thread."""
        self._jobs = jobs
        self._control = control
        self._settings_manager = settings_manager
        self._microphone = microphone
        self._engine = engine
        self._publisher = publisher

    def mqtt_command(self, command: Command) -> None:
        """Queues a command. Raises queue.Full, to which the publisher replies "busy"."""
        if command.name == "flush":
            reply = partial(self._publisher.reply, command, True, flush_id=command.payload)
            if not self._engine.submit(FlushCommand(command.payload, reply)):
                raise queue.Full
        elif self._jobs.qsize() >= MAX_JOBS:
            raise queue.Full
        else:
            payload = command.payload
            mute = payload.get("mute") if command.name == "config" else payload
            job = partial(self._control.execute, command)
            self._put(job, mutes=mute is True)

    def api_mute(self, muted: bool) -> None:
        """Queues a mute or unmute of a client of the API server; drops it if the queue is full."""
        if self._jobs.qsize() < MAX_JOBS:
            self._put(partial(self._control.mute, muted), mutes=muted)

    def _put(self, job: Job, mutes: bool) -> None:
        """A mute takes effect at once, even if the main thread is busy for seconds.

        The main thread decides later whether it stays, and ends it if the settings refuse it.
        """
        if not mutes or self._settings_manager.loaded.pinned("mute"):
            self._jobs.put(job)
            return
        self._microphone.hold_mute()
        self._jobs.put(partial(self._decide, job))

    def _decide(self, job: Job) -> None:
        """On the main thread."""
        try:
            job()
        finally:
            self._microphone.release_mute()
