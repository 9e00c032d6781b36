"""Publishes the state of the device when it changes, to the broker and to the API server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edged.audio.microphone import MicrophoneManager
from edged.audio.microphone_status import MicrophoneState, MicrophoneStatus
from edged.config.settings_manager import SettingsManager
from edged.daemon import device_info
from edged.daemon.watchdog import Watchdog
from edged.engine.engine_thread import EndCommand, Engine
from edged.events import Error, Event, Turn
from edged.mqtt.publisher import Publisher

if TYPE_CHECKING:
    from edged.server.api_server import ApiServer

_OPEN = (MicrophoneState.RUNNING, MicrophoneState.SILENT)


class StatePublisher:
    """`info`, `state/mic`, `state/listening`, `state/speaking`, and the recogniser's events.

    Attributes:
        api_server: its subscribers get events and states too; None if it is off.
    """

    def __init__(
        self,
        settings_manager: SettingsManager,
        microphone: MicrophoneManager,
        engine: Engine,
        publisher: Publisher,
        watchdog: Watchdog,
    ) -> None:
        self.api_server: ApiServer | None = None
        self._settings_manager = settings_manager
        self._microphone = microphone
        self._engine = engine
        self._publisher = publisher
        self._watchdog = watchdog
        self._previous: MicrophoneState | None = None

    def events(self, events: Sequence[Event]) -> None:
        """Hands on events of the recogniser. Called on the engine thread."""
        for event in events:
            latency_ms = None
            if isinstance(event, Turn):
                heard_s = self._engine.heard_s + self._microphone.ring.depth_s
                latency_ms = max(0.0, heard_s - event.stop_s) * 1000
            self._publisher.event(event, latency_ms)
        if self.api_server is not None:
            self.api_server.publish_events(events)

    def speaking(self, speaking: bool) -> None:
        """Whether somebody speaks. Called on the engine thread."""
        self._state("speaking", "on" if speaking else "off")

    def microphone(self, status: MicrophoneStatus) -> None:
        """Another status of the microphone, and an `error` event if it was lost.

        Ends the session if no sound comes any more.
        """
        self._state("mic", device_info.microphone(status))
        self.listening()
        self.info()
        if status.state not in _OPEN:
            self._engine.submit(EndCommand())
        if status.problem and status.state is not self._previous:
            self._publisher.event(Error(f"microphone: {status.message}"))
        self._previous = status.state

    def listening(self) -> None:
        """Whether sound reaches the recogniser."""
        is_open = self._microphone.status.state in _OPEN
        listening = is_open and not self._watchdog.recognition_stopped
        self._publisher.state("listening", "on" if listening else "off")

    def info(self) -> None:
        """Version, models, audio format and settings."""
        loaded, status = self._settings_manager.loaded, self._microphone.status
        models, language = self._engine.models, self._engine.options.language
        self._publisher.info(device_info.info(loaded, status, models, language))
        if self.api_server is not None:
            self.api_server.publish_state("language", language)

    def _state(self, name: str, value: Mapping[str, Any] | str) -> None:
        self._publisher.state(name, value)
        if self.api_server is not None:
            self.api_server.publish_state(name, value)
