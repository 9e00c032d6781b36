"""The capture thread: keeps one ALSA device open, or keeps trying to open it.

OPENING -> RUNNING <-> SILENT; LOST from anywhere, retried for ever; MUTED on request. Whatever the
device does, the thread goes on and reports it: only `stop` ends it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import select
import threading
import time
from collections.abc import Callable

from edged import SAMPLE_RATE
from edged.audio import alsa_hang_guard
from edged.audio.alsa import DEV_SND, Microphone, NegotiatedFormat, open_microphone
from edged.audio.cards import is_card_name
from edged.audio.converter import Converter
from edged.audio.level import Level
from edged.audio.microphone_status import MicrophoneState, MicrophoneStatus, log_status
from edged.audio.pacer import Pacer
from edged.audio.ring import Ring
from edged.audio.stream_clock import StreamClock
from edged.errors import DeviceError
from edged.logs import log_event, log_exception

_log = logging.getLogger(__name__)

NO_DATA_S = 1.5  # without data for so long, the device is dead, whatever it reports
START_S = 3.0  # sound servers take up to 2 s before the first data of an idle source
SILENT_S = 30.0  # of exact digital zeros: muted in hardware, or its volume is at zero
TICK_S = 0.5  # how often a lost device is looked for
MUTED_TICK_S = 1.0
RETRY_MIN_S, RETRY_MAX_S = 0.5, 10.0
# Nothing announces the return of a sound server's device: it is tried more often, for an hour.
RETRY_SERVER_S, SERVER_PATIENCE_S = 2.0, 3600.0
STABLE_S = 1.0  # after running for so long, the next loss starts with the shortest wait again
MAX_GAP_S = 30.0  # a longer loss is a pause: stream time does not advance for the rest of it
XRUN_EPISODE_S = 60.0
MUTED = "muted: the microphone is closed"
MUTED_HANGING = (
    "muted: nothing is heard; the microphone is closed when its sound server answers again"
)
ONLY_OVERRUNS = "it only overruns and no audio comes (for a USB microphone, try another port)"
FAILED = "an error in edged stopped the microphone (the log has it); it is tried again"


class Capture:
    """Owns the device and the thread that reads it. Every method may be called from any thread.

    Attributes:
        xruns: overruns so far.
        heartbeat: monotonic time at which the thread last got audio or tried again.
        status: the last status.
    """

    def __init__(
        self,
        ring: Ring,
        device: str,
        gain_db: float,
        on_status: Callable[[MicrophoneStatus], None],
    ) -> None:
        """Opens nothing before `start`. `on_status` is called on the capture thread."""
        self.xruns = 0
        self.heartbeat = time.monotonic()
        self.status = MicrophoneStatus(
            MicrophoneState.OPENING, device, f"opening {device}", time.time()
        )
        self._ring = ring
        self._device = device  # the one that is wanted
        self._current = device  # the one that the thread works on
        self._gain_db = gain_db
        self._on_status = on_status
        self._muted = False
        self._stopping = False
        self._changed = False  # the device or the mute: what is open must be closed
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._converter: Converter | None = None
        self._clock = StreamClock()
        self._position = 0.0  # 24 kHz samples since the start, gaps included
        self._retry_s = RETRY_MIN_S
        self._lost_at: float | None = None  # monotonic, while LOST
        self._last_xrun = -math.inf
        self._reported = False

    def __del__(self) -> None:
        os.close(self._wake_fd)  # not earlier: other threads may still write to it

    # -- for other threads

    def start(self) -> None:
        """Starts the thread."""
        self.heartbeat = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Closes the device and ends the thread. May be called twice, or without `start`."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def mute(self, muted: bool) -> None:
        """Closes the device (the status is MUTED once it is closed) and wipes the ring, or opens.

        No sample reaches the ring from the moment of the call.
        """
        self._muted = muted
        if muted:
            self._ring.seal(True)
        self._changed = True
        self._wake()

    def set_gain(self, gain_db: float) -> None:
        """Sets the digital gain from the next period on. What becomes too loud is clipped."""
        self._gain_db = gain_db
        if self._converter is not None:
            self._converter.set_gain(gain_db)

    def reopen(self, device: str) -> None:
        """Opens another device, or the same once more."""
        self._device = device
        self._changed = True
        self._wake()

    @property
    def negotiated(self) -> NegotiatedFormat | None:
        """The format of the open device."""
        return self.status.negotiated

    @property
    def level(self) -> Level | None:
        """The level of the last second, before the gain; None while no device is open."""
        converter = self._converter
        return None if converter is None else converter.meter.level

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    # -- the thread

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._run_once()
            except Exception:  # a bug must not end the capture
                if self.status.message != FAILED:
                    log_exception(_log, "microphone-failed", "The capture thread failed.")
                self._lose(FAILED)
                self._wait_to_retry(_sound_devices())

    def _run_once(self) -> None:
        """From opening the device until it is closed, or one wait for it."""
        self._clear_wake()
        self._changed = False  # before the requests are read: a new one sets it again
        if self._muted:
            self._stay_muted()
            return
        device, seen = self._device, _sound_devices()
        self._current = device
        status = self.status
        is_new = status.state is MicrophoneState.MUTED or status.device != device
        if not self._reported or is_new:
            self._lost_at, self._retry_s = None, RETRY_MIN_S
            self._report(MicrophoneState.OPENING, f"opening {device}")
        try:
            microphone = open_microphone(device, self._wake_fd)
        except DeviceError as error:
            self._lose(str(error))
            self._wait_to_retry(seen)
            return
        try:
            self._ring.seal(self._muted)
            self._read(microphone)
        except DeviceError as error:
            self._lose(_lost_message(device, error))
        finally:
            self._converter = None
            microphone.close()
        if self.status.state is MicrophoneState.LOST:
            self._wait_to_retry(_sound_devices())

    def _read(self, microphone: Microphone) -> None:
        """Reads until there is another request. Raises DeviceError when the device is lost."""
        negotiated = microphone.negotiated
        converter = Converter(
            negotiated.rate, negotiated.channels, negotiated.format, self._gain_db
        )
        self._converter = converter
        opened_at = last = time.monotonic()
        pacer = Pacer(opened_at)
        discontinuous = True  # what comes next does not follow what came before
        try:
            while not self._has_request():
                data = microphone.read()
                now = time.monotonic()
                if data is None:
                    self._count_overrun(now)
                    self.heartbeat = now
                    if not discontinuous:
                        last = now  # edged was late, not the device
                    self._ring.write(converter.flush())
                    converter.restart()
                    discontinuous = True
                    if now - last > START_S:
                        raise DeviceError(ONLY_OVERRUNS)
                    time.sleep(0.005)  # a device that only overruns must not keep the CPU busy
                elif data:
                    self._take(microphone, converter, data, now, discontinuous)
                    discontinuous = False
                    last = self.heartbeat = now
                    wait_s = pacer.wait_s(now, microphone.frames(data) / converter.rate)
                    if wait_s > 0:
                        self._sleep(wait_s)
                    if now - opened_at > STABLE_S:
                        self._retry_s = RETRY_MIN_S
                else:
                    self._check_for_data(now - last, started=not discontinuous)
                    microphone.wait(0.25)
        finally:
            self._ring.write(converter.flush())

    def _take(
        self,
        microphone: Microphone,
        converter: Converter,
        data: bytes,
        now: float,
        discontinuous: bool,
    ) -> None:
        """Writes new audio to the ring, behind a gap for what was lost before it."""
        to_24k = SAMPLE_RATE / converter.rate
        queued = microphone.queued() * to_24k
        self._position += microphone.frames(data) * to_24k
        if discontinuous:
            self._mark_gap(now, queued)
        self._clock.observe(now, self._position + queued)
        self._ring.write(converter.push(data))
        negotiated = microphone.negotiated
        if converter.zeros < SILENT_S * converter.rate:
            self._lost_at = None
            message = f"listening to {microphone.name} ({negotiated})"
            self._report(MicrophoneState.RUNNING, message, negotiated)
            return
        self._report(
            MicrophoneState.SILENT,
            f"{microphone.name} gives nothing but digital silence: look for a mute switch on "
            "it, or a capture volume of zero (alsamixer)",
            negotiated,
        )

    def _mark_gap(self, now: float, queued: float) -> None:
        lost = self._clock.lost_samples(now, self._position + queued)
        limit = round(MAX_GAP_S * SAMPLE_RATE)
        if lost > limit:
            lost = limit
            self._clock.restart()
        self._ring.mark_gap(lost)
        self._position += lost

    def _count_overrun(self, now: float) -> None:
        self.xruns += 1
        if now - self._last_xrun > XRUN_EPISODE_S:
            log_event(
                _log,
                logging.WARNING,
                "microphone-overrun",
                f"{self._current}: audio was lost in an overrun ({self.xruns} in all).",
                xruns=self.xruns,
            )
        self._last_xrun = now

    def _check_for_data(self, without_s: float, started: bool) -> None:
        """Raises DeviceError if a device gives no data. Sound servers get some time to start."""
        if without_s < NO_DATA_S:
            return
        error = DeviceError("it is open, but no data comes")
        if started or without_s > START_S:
            raise error
        self._lose(_lost_message(self._current, error))

    def _wait_to_retry(self, seen: int) -> None:
        """Waits with growing, random pauses; shorter when a sound device comes or goes."""
        until = time.monotonic() + self._retry_s * random.uniform(0.8, 1.2)
        self._retry_s = min(self._retry_s * 2, self._max_retry_s())
        while not self._has_request() and (left := until - time.monotonic()) > 0:
            self.heartbeat = time.monotonic()
            self._sleep(min(TICK_S, left))
            if _sound_devices() != seen:
                self._retry_s = RETRY_MIN_S
                return

    def _max_retry_s(self) -> float:
        lost_s = time.monotonic() - (self._lost_at or time.monotonic())
        if is_card_name(self._current) or lost_s > SERVER_PATIENCE_S:
            return RETRY_MAX_S
        return RETRY_SERVER_S

    def _stay_muted(self) -> None:
        """Waits with the device closed."""
        self._ring.seal(True)
        self._lost_at = None
        hanging = alsa_hang_guard.has_unclosed()
        self._report(MicrophoneState.MUTED, MUTED_HANGING if hanging else MUTED)
        while self._muted and not self._stopping:
            self.heartbeat = time.monotonic()
            self._sleep(MUTED_TICK_S)
            if hanging and alsa_hang_guard.close_pending(self._current):
                hanging = False
                self._report(MicrophoneState.MUTED, MUTED)

    # -- helpers

    def _has_request(self) -> bool:
        return self._stopping or self._muted or self._changed

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _sleep(self, seconds: float) -> None:
        """Ends early when another thread has a request."""
        if select.select([self._wake_fd], [], [], seconds)[0]:
            self._clear_wake()

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _lose(self, message: str) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        self._report(MicrophoneState.LOST, message)

    def _report(
        self, state: MicrophoneState, message: str, negotiated: NegotiatedFormat | None = None
    ) -> None:
        """Logs a change once and passes it to `on_status`."""
        old, device = self.status, self._current
        same = self._reported and (state, device) == (old.state, old.device)
        if same and (message, negotiated) == (old.message, old.negotiated):
            return
        self._reported = True
        since = old.since if same else time.time()
        self.status = MicrophoneStatus(state, device, message, since, negotiated)
        # One warning for each episode: later messages only add to it.
        log_status(_log, self.status, is_new_problem=self.status.problem and not old.problem)
        try:
            self._on_status(self.status)
        except Exception:
            log_exception(
                _log, "microphone-listener", "The microphone's status could not be handed on."
            )


def _lost_message(device: str, error: DeviceError) -> str:
    return f"{device} is lost: {error}; edged tries to get it back"


def _sound_devices() -> int:
    """A number that changes whenever a kernel sound device comes or goes."""
    try:
        return os.stat(DEV_SND).st_mtime_ns
    except OSError:
        return 0
