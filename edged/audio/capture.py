"""The capture thread: a microphone that is always being listened to, or said to be lost.

OPENING -> RUNNING <-> SILENT, and LOST from anywhere, for ever retried; MUTED on request.
Whatever the device does, the thread goes on and says so: it ends only by `stop()`.
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
from dataclasses import dataclass
from enum import StrEnum

from edged import SAMPLE_RATE
from edged.audio import alsa_hang_guard
from edged.audio.alsa import DEV_SND, Microphone, NegotiatedFormat, open_microphone
from edged.audio.cards import names_card
from edged.audio.converter import Converter
from edged.audio.level import Level
from edged.audio.ring import Ring
from edged.audio.stream_clock import StreamClock
from edged.errors import DeviceError

log = logging.getLogger(__name__)

QUIET_S = 1.5  # no data for so long: the device is dead, whatever it says
START_S = 3.0  # sound servers take up to 2 s before the first data of an idle source
SILENT_S = 30.0  # exact digital zeros for so long: muted in hardware, or its volume is at zero
TICK_S = 0.5  # how often a lost device is looked for
MUTED_TICK_S = 1.0
RETRY_MIN_S, RETRY_MAX_S = 0.5, 10.0
# The return of a device of a sound server shows nowhere: it is tried more often, for an hour.
RETRY_SERVER_S, SERVER_PATIENCE_S = 2.0, 3600.0
STABLE_S = 1.0  # ran for so long: the next loss starts again with the shortest wait
MAX_SPEED = 1.05  # of real time, in the long run; no sound card is that far off
MAX_LEAD_S = 2.0  # what a device may give at once, such as a sound server that was held up
MAX_GAP_S = 30.0  # a longer loss is a pause: stream time stands still for the rest of it
XRUN_EPISODE_S = 60.0
MUTED = "muted: the microphone is closed"
MUTED_HUNG = "muted: nothing is heard; the microphone is closed when its sound server answers again"
ONLY_OVERRUNS = "it only overruns and no audio comes (for a USB microphone, try another port)"
STUMBLED = "an error in edged stopped the microphone (the log has it); it is tried again"


class MicrophoneState(StrEnum):
    """What the microphone is doing."""

    OPENING = "opening"
    RUNNING = "running"
    SILENT = "silent"  # runs, but gives nothing but zeros
    LOST = "lost"
    MUTED = "muted"


@dataclass(frozen=True, slots=True)
class MicrophoneStatus:
    """`message` is for people, with the remedy if there is something to mend.

    `since` is Unix time; `negotiated` what the device gives, None unless it is open.
    """

    state: MicrophoneState
    device: str
    message: str
    since: float
    negotiated: NegotiatedFormat | None = None

    @property
    def problem(self) -> bool:
        """Whether somebody should look after it."""
        return self.state in (MicrophoneState.LOST, MicrophoneState.SILENT)


class Pace:
    """Limits a device that gives audio without end, such as ALSA's `null` and `file` devices.

    Unlimited, stream time would run away by minutes in a second, and the engine after it.
    """

    def __init__(self, now: float) -> None:
        self._seen_at = now
        self._lead_s = 0.0  # of the audio over the clock

    def wait_s(self, now: float, audio_s: float) -> float:
        """How long to wait after `audio_s` seconds of audio came at `now` (monotonic)."""
        self._lead_s += audio_s - (now - self._seen_at) * MAX_SPEED
        self._lead_s = max(0.0, self._lead_s)
        self._seen_at = now
        return max(0.0, self._lead_s - MAX_LEAD_S)


class Capture:
    """Owns the device and the thread that reads it. Every method may be called from any thread."""

    def __init__(
        self,
        ring: Ring,
        device: str,
        gain_db: float,
        on_state: Callable[[MicrophoneStatus], None],
    ) -> None:
        """Nothing is opened before `start`. `on_state` is called on the capture thread."""
        self.xruns = 0
        self.heartbeat = time.monotonic()
        """Monotonic time of the last proof of life: frames came, or the retry loop turned."""
        self.state = MicrophoneStatus(
            MicrophoneState.OPENING, device, f"opening {device}", time.time()
        )
        self._ring = ring
        self._device = device  # what is wished for
        self._current = device  # what the thread is busy with
        self._gain_db = gain_db
        self._on_state = on_state
        self._muted = False
        self._stopping = False
        self._changed = False  # what is open must be looked at again
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
        self.heartbeat = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Closes the device and ends the thread. May be called twice, or without `start`."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def mute(self, muted: bool) -> None:
        """Closes the device (the state says MUTED when it is done) and wipes the ring; or opens.

        From the moment of the call no sample reaches the ring.
        """
        self._muted = muted
        if muted:
            self._ring.seal(True)
        self._changed = True
        self._wake()

    def set_gain(self, gain_db: float) -> None:
        """Digital gain, dB, from the next period on; what gets too loud is clipped."""
        self._gain_db = gain_db
        if self._converter is not None:
            self._converter.set_gain(gain_db)

    def reopen(self, device: str) -> None:
        """Another device, or the same once more."""
        self._device = device
        self._changed = True
        self._wake()

    @property
    def negotiated(self) -> NegotiatedFormat | None:
        return self.state.negotiated

    @property
    def level(self) -> Level | None:
        """The last second, before the gain; None while nothing is heard."""
        converter = self._converter
        return None if converter is None else converter.meter.level

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    # -- the thread

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # a bug must not make the box deaf
                if self.state.message != STUMBLED:
                    log.exception("the capture thread stumbled")
                self._lose(STUMBLED)
                self._wait_to_retry(_sound_devices())

    def _turn(self) -> None:
        """One life of the device, or one wait for it."""
        self._forget_wake()
        self._changed = False  # before the wishes are read: a new one sets it again
        if self._muted:
            self._stay_muted()
            return
        device, seen = self._device, _sound_devices()
        self._current = device
        if (
            not self._reported
            or self.state.state is MicrophoneState.MUTED
            or self.state.device != device
        ):
            self._lost_at, self._retry_s = None, RETRY_MIN_S
            self._report(MicrophoneState.OPENING, f"opening {device}")
        try:
            microphone = open_microphone(device, self._wake_fd)
        except DeviceError as problem:
            self._lose(str(problem))
            self._wait_to_retry(seen)
            return
        try:
            self._ring.seal(self._muted)
            self._listen(microphone)
        except DeviceError as problem:
            self._lose(_lost(device, problem))
        finally:
            self._converter = None
            microphone.close()
        if self.state.state is MicrophoneState.LOST:
            self._wait_to_retry(_sound_devices())

    def _listen(self, microphone: Microphone) -> None:
        """Reads until somebody asks for something else. Raises DeviceError when it is lost."""
        negotiated = microphone.negotiated
        converter = Converter(
            negotiated.rate, negotiated.channels, negotiated.format, self._gain_db
        )
        self._converter = converter
        opened_at = last = time.monotonic()
        pace = Pace(opened_at)
        broken = True  # what comes next does not follow what came before
        try:
            while not self._asked():
                data = microphone.read()
                now = time.monotonic()
                if data is None:
                    self._overrun(now)
                    self.heartbeat = now
                    if not broken:
                        last = now  # it was we who were late: the device is alive
                    self._ring.write(converter.flush())
                    converter.restart()
                    broken = True
                    if now - last > START_S:
                        raise DeviceError(ONLY_OVERRUNS)
                    time.sleep(0.005)  # a device that only overruns must not spin
                elif data:
                    self._hear(microphone, converter, data, now, broken)
                    broken = False
                    last = self.heartbeat = now
                    wait_s = pace.wait_s(now, microphone.frames(data) / converter.rate)
                    if wait_s > 0:
                        self._sleep(wait_s)
                    if now - opened_at > STABLE_S:
                        self._retry_s = RETRY_MIN_S
                else:
                    self._check_quiet(now - last, started=not broken)
                    microphone.wait(0.25)
        finally:
            self._ring.write(converter.flush())

    def _hear(
        self, microphone: Microphone, converter: Converter, data: bytes, now: float, broken: bool
    ) -> None:
        """New audio goes to the ring, behind a gap of what was lost before it."""
        to_24k = SAMPLE_RATE / converter.rate
        frames = microphone.frames(data)
        queued = microphone.queued() * to_24k
        self._position += frames * to_24k
        if broken:
            self._mark_lost(now, queued)
        self._clock.saw(now, self._position + queued)
        self._ring.write(converter.push(data))
        negotiated = microphone.negotiated
        if converter.zeros < SILENT_S * converter.rate:
            self._lost_at = None
            self._report(
                MicrophoneState.RUNNING,
                f"listening to {microphone.name} ({negotiated})",
                negotiated,
            )
        else:
            self._report(
                MicrophoneState.SILENT,
                f"{microphone.name} gives nothing but digital silence: look for a mute switch on "
                "it, or a capture volume of zero (alsamixer)",
                negotiated,
            )

    def _mark_lost(self, now: float, queued: float) -> None:
        missing = self._clock.missing(now, self._position + queued)
        limit = round(MAX_GAP_S * SAMPLE_RATE)
        if missing > limit:
            missing = limit
            self._clock.restart()
        self._ring.mark_gap(missing)
        self._position += missing

    def _overrun(self, now: float) -> None:
        self.xruns += 1
        if now - self._last_xrun > XRUN_EPISODE_S:
            log.warning("%s: overrun, audio was lost (%d in all)", self._current, self.xruns)
        self._last_xrun = now

    def _check_quiet(self, quiet_s: float, started: bool) -> None:
        """A device that runs and says nothing. Sound servers get some time to start."""
        if quiet_s < QUIET_S:
            return
        dead = DeviceError("it is open, but no data comes")
        if started or quiet_s > START_S:
            raise dead
        self._lose(_lost(self._current, dead))

    def _wait_to_retry(self, seen: int) -> None:
        """Backs off, with jitter; shorter when a sound device comes or goes."""
        until = time.monotonic() + self._retry_s * random.uniform(0.8, 1.2)
        self._retry_s = min(self._retry_s * 2, self._longest_wait())
        while not self._asked() and (left := until - time.monotonic()) > 0:
            self.heartbeat = time.monotonic()
            self._sleep(min(TICK_S, left))
            if _sound_devices() != seen:
                self._retry_s = RETRY_MIN_S
                return

    def _longest_wait(self) -> float:
        lost_s = time.monotonic() - (self._lost_at or time.monotonic())
        if names_card(self._current) or lost_s > SERVER_PATIENCE_S:
            return RETRY_MAX_S
        return RETRY_SERVER_S

    def _stay_muted(self) -> None:
        """The device is closed: nothing runs."""
        self._ring.seal(True)
        self._lost_at = None
        hangs = alsa_hang_guard.anything_left_open()
        self._report(MicrophoneState.MUTED, MUTED_HUNG if hangs else MUTED)
        while self._muted and not self._stopping:
            self.heartbeat = time.monotonic()
            self._sleep(MUTED_TICK_S)
            if hangs and alsa_hang_guard.close_left_open(self._current):
                hangs = False
                self._report(MicrophoneState.MUTED, MUTED)

    # -- small parts

    def _asked(self) -> bool:
        return self._stopping or self._muted or self._changed

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _sleep(self, seconds: float) -> None:
        """Ends early when another thread wants something."""
        if select.select([self._wake_fd], [], [], seconds)[0]:
            self._forget_wake()

    def _forget_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _lose(self, message: str) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        self._report(MicrophoneState.LOST, message)

    def _report(
        self, state: MicrophoneState, message: str, negotiated: NegotiatedFormat | None = None
    ) -> None:
        """Tells of a change, once: to the log and to `on_state`."""
        old, device = self.state, self._current
        same = self._reported and (state, device) == (old.state, old.device)
        if same and (message, negotiated) == (old.message, old.negotiated):
            return
        self._reported = True
        self.state = MicrophoneStatus(
            state, device, message, old.since if same else time.time(), negotiated
        )
        # One warning an episode: the sentences after it only say more.
        worse = self.state.problem and not old.problem
        log.log(logging.WARNING if worse else logging.INFO, "microphone: %s", message)
        try:
            self._on_state(self.state)
        except Exception:
            log.exception("telling of the microphone's state failed")


def _lost(device: str, problem: DeviceError) -> str:
    return f"{device} is lost: {problem}; edged tries to get it back"


def _sound_devices() -> int:
    """Changes whenever a kernel sound device comes or goes."""
    try:
        return os.stat(DEV_SND).st_mtime_ns
    except OSError:
        return 0
