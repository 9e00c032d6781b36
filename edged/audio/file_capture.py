"""A microphone made of files: sample speech or a recording, played in real time, over and over.

`EDGED_ALSA_DEVICE=sample` or `file:PATH` asks for it: a machine without a microphone can then show
all that edged does. It has the interface of `Capture` and feeds the same ring.
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
from edged.audio.capture import MicrophoneState, MicrophoneStatus
from edged.audio.files import open_audio
from edged.audio.level import Level, LevelMeter, from_db
from edged.audio.ring import Ring
from edged.errors import EdgedError, InputError

SAMPLE = "sample"
FILE = "file:"
PAUSE_S = 3.0  # of silence after each file: long enough for a turn to end
_RETRY_S = 2.0
_TICK_S = 1.0
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")

_log = logging.getLogger(__name__)


def is_file_device(device: str) -> bool:
    """True if the device is a file rather than something of ALSA's."""
    return device == SAMPLE or device.startswith(FILE)


def device_files(device: str, samples_dir: Path | None = None) -> list[Path]:
    """What `sample` or `file:PATH` plays. Raises InputError if there is nothing."""
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
    """Owns the thread that plays. Every method may be called from any thread."""

    def __init__(
        self,
        ring: Ring,
        device: str,
        gain_db: float,
        on_state: Callable[[MicrophoneStatus], None],
        samples_dir: Path | None = None,
    ) -> None:
        """Nothing is opened before `start`. `on_state` is called on the playing thread."""
        self.xruns = 0
        self.heartbeat = time.monotonic()
        self.state = MicrophoneStatus(
            MicrophoneState.OPENING, device, f"opening {device}", time.time()
        )
        self._ring = ring
        self._device = device
        self._samples_dir = samples_dir
        self._factor = from_db(gain_db)
        self._on_state = on_state
        self._meter = LevelMeter(SAMPLE_RATE)
        self._muted = False
        self._stopping = False
        self._reopen = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        self.heartbeat = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def mute(self, muted: bool) -> None:
        """From the moment of the call no sample reaches the ring."""
        self._muted = muted
        if muted:
            self._ring.seal(True)
        self._wake.set()

    def set_gain(self, gain_db: float) -> None:
        self._factor = from_db(gain_db)

    def reopen(self, device: str) -> None:
        self._device = device
        self._reopen = True
        self._wake.set()

    @property
    def negotiated(self) -> NegotiatedFormat | None:
        return self.state.negotiated

    @property
    def level(self) -> Level | None:
        return self._meter.level if self.state.state is MicrophoneState.RUNNING else None

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
            except EdgedError as problem:
                self._report(MicrophoneState.LOST, str(problem))
                self._wake.wait(_RETRY_S)
            except Exception:  # a bug must not make the box deaf
                _log.exception("playing %s stumbled and goes on", self._device)
                self._wake.wait(_RETRY_S)

    def _play(self, files: list[Path]) -> None:
        """All files once, in real time."""
        self._ring.seal(self._muted)
        for path in files:
            due = time.monotonic()
            for frame in self._frames(path):
                if self._stopping or self._muted or self._reopen:
                    return
                message = f"playing {self._device} as the microphone"
                self._report(MicrophoneState.RUNNING, message, NegotiatedFormat())
                due += STEP_S
                self._wait_until(due)
                self.heartbeat = time.monotonic()
                self._ring.write(self._loudened(frame))

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

    def _loudened(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        samples = frame.astype(np.float32)
        self._meter.push(samples / np.float32(32768))
        if self._factor == 1.0:
            return frame
        louder: NDArray[np.int16] = np.clip(np.rint(samples * self._factor), -32768, 32767).astype(
            np.int16
        )
        return louder

    def _report(
        self, state: MicrophoneState, message: str, negotiated: NegotiatedFormat | None = None
    ) -> None:
        old = self.state
        if (state, self._device, message) == (old.state, old.device, old.message):
            return
        since = old.since if state is old.state else time.time()
        self.state = MicrophoneStatus(state, self._device, message, since, negotiated)
        level = logging.WARNING if self.state.problem else logging.INFO
        _log.log(level, "microphone: %s", message)
        self._on_state(self.state)
