"""The daemon's one microphone, whichever kind it is: ALSA's, or files played like one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from edged.audio.capture import Capture, MicrophoneStatus
from edged.audio.file_capture import FileCapture, is_file_device
from edged.audio.level import Level
from edged.audio.ring import Ring


class MicrophoneManager:
    """Owns the ring and the capture; swaps the latter when the device is of the other kind.

    All methods belong to one thread (the main one), but for `mute_ahead` and what is only read.
    """

    def __init__(
        self,
        device: str,
        gain_db: float,
        muted: bool,
        on_state: Callable[[MicrophoneStatus], None],
        samples_dir: Path | None = None,
    ) -> None:
        self.ring = Ring()
        self._device = device
        self._gain_db = gain_db
        self._muted = muted
        self._ahead = 0  # mutes that were asked for and are not decided upon yet
        self._lock = threading.Lock()  # no new capture misses a mute
        self._on_state = on_state
        self._samples_dir = samples_dir
        self._xruns_before = 0
        self._capture = self._make()

    def start(self) -> None:
        with self._lock:
            self._capture.mute(self._silenced)
        self._capture.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Closes the device. What it gave stays in the ring."""
        self._capture.stop(timeout_s)

    def mute(self, muted: bool) -> None:
        with self._lock:
            before, self._muted = self._silenced, muted
            self._obey(before)

    def mute_ahead(self) -> None:
        """On any thread: nothing is heard from now on, until `mute_decided` is called as often."""
        with self._lock:
            before, self._ahead = self._silenced, self._ahead + 1
            self._obey(before)

    def mute_decided(self) -> None:
        """A mute that was obeyed ahead has been taken, by `mute`, or refused."""
        with self._lock:
            before, self._ahead = self._silenced, self._ahead - 1
            self._obey(before)

    def set_gain(self, gain_db: float) -> None:
        self._gain_db = gain_db
        self._capture.set_gain(gain_db)

    def use(self, device: str) -> None:
        """Another device. Nothing but the microphone is touched."""
        other_kind = is_file_device(device) != is_file_device(self._device)
        self._device = device
        if not other_kind:
            self._capture.reopen(device)
            return
        self._capture.stop()
        self._xruns_before += self._capture.xruns
        self._capture = self._make()
        self.start()

    @property
    def state(self) -> MicrophoneStatus:
        return self._capture.state

    @property
    def level(self) -> Level | None:
        return self._capture.level

    @property
    def xruns(self) -> int:
        return self._xruns_before + self._capture.xruns

    def heartbeat_age_s(self) -> float:
        return time.monotonic() - self._capture.heartbeat

    @property
    def _silenced(self) -> bool:
        return self._muted or self._ahead > 0

    def _obey(self, before: bool) -> None:
        if self._silenced != before:  # to unmute again would open an open device anew
            self._capture.mute(self._silenced)

    def _make(self) -> Capture | FileCapture:
        if is_file_device(self._device):
            return FileCapture(
                self.ring, self._device, self._gain_db, self._on_state, self._samples_dir
            )
        return Capture(self.ring, self._device, self._gain_db, self._on_state)
