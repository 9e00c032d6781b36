"""The one microphone of the daemon: an ALSA device, or files that are played in its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from edged.audio.capture import Capture
from edged.audio.file_capture import FileCapture, is_file_device
from edged.audio.level import Level
from edged.audio.microphone_status import MicrophoneStatus
from edged.audio.ring import Ring


class MicrophoneManager:
    """Owns the ring and the capture, and replaces the capture if the kind of device changes.

    Used by the main thread, except for `hold_mute` and the attributes that are only read.

    Attributes:
        ring: what the microphone gave.
    """

    def __init__(
        self,
        device: str,
        gain_db: float,
        muted: bool,
        on_status: Callable[[MicrophoneStatus], None],
        samples_dir: Path | None = None,
    ) -> None:
        """
        Args:
            device: a value of EDGED_ALSA_DEVICE.
            on_status: called with each new status, on the capture thread.
            samples_dir: the folder of the sample speech, for the device `sample`.
        """
        self.ring = Ring()
        self._device = device
        self._gain_db = gain_db
        self._muted = muted
        self._holds = 0
        self._lock = threading.Lock()  # so that a new capture does not miss a mute
        self._on_status = on_status
        self._samples_dir = samples_dir
        self._xruns_before = 0
        self._capture = self._make()

    def start(self) -> None:
        """Starts to capture."""
        with self._lock:
            self._capture.mute(self.muted)
        self._capture.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Closes the device. What it gave stays in the ring."""
        self._capture.stop(timeout_s)

    def mute(self, muted: bool) -> None:
        """Closes or opens the device."""
        with self._lock:
            before, self._muted = self.muted, muted
            self._apply_mute(before)

    def hold_mute(self) -> None:
        """Mutes at once, until `release_mute` is called as often. May be called on any thread."""
        with self._lock:
            before, self._holds = self.muted, self._holds + 1
            self._apply_mute(before)

    def release_mute(self) -> None:
        """Ends one `hold_mute`. Then `mute` alone counts again."""
        with self._lock:
            before, self._holds = self.muted, self._holds - 1
            self._apply_mute(before)

    def set_gain(self, gain_db: float) -> None:
        """Sets the digital gain."""
        self._gain_db = gain_db
        self._capture.set_gain(gain_db)

    def set_device(self, device: str) -> None:
        """Captures from another device from now on, into the same ring."""
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
    def muted(self) -> bool:
        """Whether the device is to be closed."""
        return self._muted or self._holds > 0

    @property
    def status(self) -> MicrophoneStatus:
        """The last status."""
        return self._capture.status

    @property
    def level(self) -> Level | None:
        """The level of the last second; None if there was none."""
        return self._capture.level

    @property
    def xruns(self) -> int:
        """Overruns of the sound card since the start."""
        return self._xruns_before + self._capture.xruns

    def heartbeat_age_s(self) -> float:
        """Seconds since the last heartbeat of the capture thread."""
        return time.monotonic() - self._capture.heartbeat

    def _apply_mute(self, before: bool) -> None:
        if self.muted != before:  # to unmute again would reopen an open device
            self._capture.mute(self.muted)

    def _make(self) -> Capture | FileCapture:
        if is_file_device(self._device):
            return FileCapture(
                self.ring, self._device, self._gain_db, self._on_status, self._samples_dir
            )
        return Capture(self.ring, self._device, self._gain_db, self._on_status)
