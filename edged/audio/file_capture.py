"""Files in place of a microphone: sample speech or a recording, in real time, over and over.

`EDGED_ALSA_DEVICE=sample` or `file:PATH` selects it, so that a machine without a microphone shows
what edged does. It has the interface of `Capture` and fills the same ring.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio.alsa import NegotiatedFormat
from edged.audio.files import open_audio
from edged.audio.frame_maker import to_int16
from edged.audio.level import Level, LevelMeter, from_db
from edged.audio.microphone_status import MicrophoneState, MicrophoneStatus, log_status
from edged.audio.ring import Ring
from edged.errors import EdgedError, InputError
from edged.logs import log_exception

SAMPLE = "sample"
FILE = "file:"
PAUSE_S = 3.0  # of silence after each file: long enough for a turn to end
_RETRY_S = 2.0
_TICK_S = 1.0
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".webm")

_log = logging.getLogger(__name__)


def is_file_device(device: str) -> bool:
    """Whether the device is a file and none of ALSA's."""
    return device == SAMPLE or device.startswith(FILE)


def device_files(device: str, samples_dir: Path | None = None) -> list[Path]:
    """The files that `sample` or `file:PATH` plays. Raises InputError if there are none."""
    path = samples_dir if device == SAMPLE else Path(device.removeprefix(FILE))
    if path is None:
        raise InputError("there is no sample speech here: set EDGED_ALSA_DEVICE=file:PATH")
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not found:
            raise InputError(f"{path} holds no audio files")
        return found
    if not path.is_file():
        raise InputError(f"{path} is not there")
    return [path]


class FileCapture:
    """Owns the thread that plays. Every method may be called from any thread.

    The attributes and methods are those of `Capture`.
    """

    def __init__(
        self,
        ring: Ring,
        device: str,
        gain_db: float,
        on_status: Callable[[MicrophoneStatus], None],
        samples_dir: Path | None = None,
    ) -> None:
        """Opens nothing before `start`. `on_status` is called on the playing thread."""
        self.xruns = 0
        self.heartbeat = time.monotonic()
        self.status = MicrophoneStatus(
            MicrophoneState.OPENING, device, f"opening {device}", time.time()
        )
        self._ring = ring
        self._device = device
        self._samples_dir = samples_dir
        self._gain = from_db(gain_db)
        self._on_status = on_status
        self._meter = LevelMeter(SAMPLE_RATE)
        self._muted = False
        self._stopping = False
        self._reopen = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self.heartbeat = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Ends the thread. May be called twice, or without `start`."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def mute(self, muted: bool) -> None:
        """Stops or starts to play. No sample reaches the ring from the moment of the call."""
        self._muted = muted
        if muted:
            self._ring.seal(True)
        self._wake.set()

    def set_gain(self, gain_db: float) -> None:
        """Sets the digital gain from the next frame on. What becomes too loud is clipped."""
        self._gain = from_db(gain_db)

    def reopen(self, device: str) -> None:
        """Plays other files, or the same from their beginning."""
        self._device = device
        self._reopen = True
        self._wake.set()

    @property
    def negotiated(self) -> NegotiatedFormat | None:
        return self.status.negotiated

    @property
    def level(self) -> Level | None:
        """The level of the last second, before the gain; None while nothing is played."""
        return self._meter.level if self.status.state is MicrophoneState.RUNNING else None

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self.heartbeat = time.monotonic()
            self._wake.clear()
            self._reopen = False
            if self._muted:
                self._ring.seal(True)
                self._report(MicrophoneState.MUTED, "muted: the microphone is closed")
                self._wake.wait(_TICK_S)
                continue
            try:
                self._play(device_files(self._device, self._samples_dir))
            except EdgedError as error:
                self._report(MicrophoneState.LOST, str(error))
                self._wake.wait(_RETRY_S)
            except Exception:  # a bug must not end the capture
                log_exception(_log, "microphone-failed", f"Playing {self._device} failed.")
                self._wake.wait(_RETRY_S)

    def _play(self, files: list[Path]) -> None:
        """Plays all files once, in real time."""
        self._ring.seal(self._muted)
        for path in files:
            due = None  # the first frame begins when the file is open
            for frame in self._frames(path):
                if self._stopping or self._muted or self._reopen:
                    return
                message = f"playing {self._device} as the microphone"
                self._report(MicrophoneState.RUNNING, message, NegotiatedFormat())
                due = (time.monotonic() if due is None else due) + STEP_S
                self._wait_until(due)
                self.heartbeat = time.monotonic()
                self._ring.write(self._amplified(frame))

    @staticmethod
    def _frames(path: Path) -> Iterator[NDArray[np.int16]]:
        with contextlib.closing(open_audio(str(path))) as source:
            yield from source.frames()
        silence = np.zeros(STEP_SAMPLES, np.int16)
        for _ in range(round(PAUSE_S / STEP_S)):
            yield silence

    def _wait_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0 and not self._stopping:
            if self._wake.wait(left):
                return

    def _amplified(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        samples = frame.astype(np.float32) / np.float32(2**15)
        self._meter.push(samples)
        return frame if self._gain == 1.0 else to_int16(samples * np.float32(self._gain))

    def _report(
        self, state: MicrophoneState, message: str, negotiated: NegotiatedFormat | None = None
    ) -> None:
        old = self.status
        if (state, self._device, message) == (old.state, old.device, old.message):
            return
        since = old.since if state is old.state else time.time()
        self.status = MicrophoneStatus(state, self._device, message, since, negotiated)
        log_status(_log, self.status, is_new_problem=self.status.problem and not old.problem)
        self._on_status(self.status)
