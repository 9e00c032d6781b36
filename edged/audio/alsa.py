"""One microphone through libasound: opened, checked, read without blocking.

pyalsaaudio silently replaces the format, rate and channels that a device lacks, so what was really
negotiated is read back (`NegotiatedFormat`). alsa_hang_guard.py keeps the process from hanging with
a sound server; kernel devices cannot hang.
"""

from __future__ import annotations

import atexit
import ctypes
import getpass
import logging
import math
import os
import select
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio import alsa_hang_guard, cards
from edged.audio.pcm import SAMPLE_FORMATS
from edged.errors import DeviceError
from edged.logs import log_event

try:
    import alsaaudio
except ImportError:  # only a microphone needs it
    alsaaudio = None

_log = logging.getLogger(__name__)

PERIODS = 8  # 640 ms in the kernel
MIN_BUFFER_S = 0.5
# Asked for in this order if the device lacks S16_LE.
FALLBACK_FORMATS = ("S32_LE", "S24_3LE", "S24_LE", "FLOAT_LE")
POOR_FORMATS = ("U8", "S8")  # taken only if the device has nothing else
OVERRUN = -32  # -EPIPE, which pyalsaaudio returns and does not raise
NOT_THERE = ("No such file or directory", "No such device", "No such device or address")
DEV_SND = Path("/dev/snd")
SERVER_HANGS = "its sound server does not answer: restart it, or choose a card from `edged devices`"


@dataclass(frozen=True, slots=True)
class NegotiatedFormat:
    """What the device gives.

    Attributes:
        rate: in Hz.
        format: ALSA's name of the sample format.
        period: frames that the device gives at once.
        buffer: frames that the kernel or sound server holds.
    """

    rate: int = SAMPLE_RATE
    channels: int = 1
    format: str = "S16_LE"
    period: int = STEP_SAMPLES
    buffer: int = STEP_SAMPLES * PERIODS

    @property
    def buffer_s(self) -> float:
        """Seconds that the buffer holds."""
        return self.buffer / self.rate

    def __str__(self) -> str:
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.rate} Hz, {channels}, {self.format}"


class Microphone:
    """An open capture device. Only the thread that opened it may use and close it.

    Attributes:
        name: ALSA's name of the device.
        card_number: the kernel's; None for a plugin, such as a sound server.
    """

    def __init__(
        self, pcm: Any, name: str, negotiated: NegotiatedFormat, wake_fd: int | None = None
    ) -> None:
        """`wake_fd`: a descriptor that also ends a wait when it becomes readable."""
        self.name = name
        self.negotiated = negotiated
        self._pcm = pcm
        self._frame_bytes = SAMPLE_FORMATS[negotiated.format].width * negotiated.channels
        self._fds = pcm.polldescriptors()
        self._poll = select.poll()
        for fd, events in self._fds:
            self._poll.register(fd, events)
        if wake_fd is not None:
            self._poll.register(wake_fd, select.POLLIN)
        self._was_ready = False
        number = int(pcm.info().get("card_no", -1))
        self.card_number = None if number < 0 else number

    def read(self) -> bytes | None:
        """Returns what has arrived: whole frames, at most a period; b"" if nothing has.

        None means an overrun: audio was lost. The first read starts the stream, and so does the
        first one after an overrun. Raises DeviceError if the device is gone.
        """
        try:
            frames, data = self._pcm.read()
        except alsaaudio.ALSAAudioError as error:
            raise DeviceError(_reason(error)) from None
        if frames == OVERRUN:
            return None
        if frames < 0:
            raise DeviceError(os.strerror(-frames))
        if frames == 0 and self._was_ready:
            time.sleep(0.005)  # some plugins report data and have none
        self._was_ready = False
        return bytes(data)

    def wait(self, timeout_s: float) -> None:
        """Waits until there is data, the wake descriptor is readable, or the time is over."""
        ready = dict(self._poll.poll(max(0, math.ceil(timeout_s * 1000))))
        own = [(fd, ready.get(fd, 0)) for fd, _ in self._fds]
        if any(events for _, events in own):
            self._was_ready = True
            try:
                self._pcm.polldescriptors_revents(own)
            except alsaaudio.ALSAAudioError as error:
                raise DeviceError(_reason(error)) from None

    def frames(self, data: bytes) -> int:
        """How many frames (samples of all channels) these bytes are."""
        return len(data) // self._frame_bytes

    def queued(self) -> int:
        """Frames captured and not read yet; 0 if the device does not tell."""
        try:
            return max(0, int(self._pcm.avail()))
        except alsaaudio.ALSAAudioError:
            return 0

    def close(self) -> None:
        """Closes the device; one whose sound server hangs is closed when the server answers."""
        if cards.is_card_name(self.name) or alsa_hang_guard.answers(self.name):
            self._pcm.close()
        else:
            alsa_hang_guard.close_later(self._pcm)


def open_microphone(device: str, wake_fd: int | None = None) -> Microphone:
    """Opens a device by name, as near to 24 kHz, mono, 16 bits as it can.

    `wake_fd` is passed to `Microphone`. Raises DeviceError: one sentence with the remedy.
    """
    _need_libasound()
    name = cards.resolve(device)
    if not cards.is_card_name(name):
        if not alsa_hang_guard.answers(name):
            raise DeviceError(f"{device}: {SERVER_HANGS}")
        alsa_hang_guard.close_pending(name)
    try:
        pcm, negotiated = _negotiate(name)
    except alsaaudio.ALSAAudioError as error:
        reason = _reason(error)
        if device == "default" and reason in NOT_THERE and (card := _first_recording_card()):
            return open_microphone(card, wake_fd)
        raise DeviceError(explain_open_error(device, reason)) from None
    if negotiated.format not in SAMPLE_FORMATS:
        pcm.close()
        raise DeviceError(
            f"{device} gives {negotiated.format} samples only; "
            f"edged reads {', '.join(SAMPLE_FORMATS)}"
        )
    return Microphone(pcm, name, negotiated, wake_fd)


def _first_recording_card() -> str | None:
    """The device of the first card that can record.

    ALSA's `default` is the first card of any kind: on a Raspberry Pi an HDMI output, so that a USB
    microphone would never be used.
    """
    return next((card.device() for card in cards.read_cards() or [] if card.inputs), None)


def capture_names() -> list[str]:
    """What libasound lists for recording, plugins included.

    Raises DeviceError if pyalsaaudio is not installed.
    """
    _need_libasound()
    return [str(name) for name in alsaaudio.pcms(alsaaudio.PCM_CAPTURE)]


def _need_libasound() -> None:
    if alsaaudio is None:
        raise DeviceError("the package pyalsaaudio is missing: install edged's extra `daemon`")
    _redirect_libasound_errors()


def _negotiate(name: str) -> tuple[Any, NegotiatedFormat]:
    """Asks for what edged wants; asks again, for what suits the device, if it has not got that."""
    pcm, got = _open(name, NegotiatedFormat())
    if got.format in POOR_FORMATS or got.format not in SAMPLE_FORMATS:
        for other in FALLBACK_FORMATS:
            pcm.close()
            pcm, got = _open(name, replace(got, format=other))
            if got.format == other:
                break
    if got.buffer_s < MIN_BUFFER_S:  # the periods were asked for at another rate
        pcm.close()
        pcm, got = _open(name, replace(got, period=round(got.rate * STEP_S)))
    return pcm, got


def _open(name: str, wish: NegotiatedFormat) -> tuple[Any, NegotiatedFormat]:
    pcm = alsaaudio.PCM(
        type=alsaaudio.PCM_CAPTURE,
        mode=alsaaudio.PCM_NONBLOCK,
        device=name,
        rate=wish.rate,
        channels=wish.channels,
        format=getattr(alsaaudio, f"PCM_FORMAT_{wish.format}"),
        periodsize=wish.period,
        periods=PERIODS,
    )
    info = pcm.info()
    return pcm, NegotiatedFormat(
        info["rate"],
        info["channels"],
        info["format_name"],
        info["period_size"],
        info["buffer_size"],
    )


def explain_open_error(device: str, reason: str) -> str:
    """libasound's reason as a sentence with the remedy.

    libasound gives misleading reasons where only the permission is missing.
    """
    if _lacks_permission():
        return (
            f"{device} cannot be opened: user {_user()} may not use the sound devices; "
            "add the user to the group audio (sudo usermod -aG audio USER) and restart, "
            "or give the unit SupplementaryGroups=audio and DeviceAllow=char-alsa rw"
        )
    if reason in NOT_THERE:
        return f"{device} is not there: plug it in, or choose one from `edged devices`"
    if reason == "Device or resource busy":
        return f"{device} is in use by {_owner(device)}: stop it, or choose another microphone"
    if reason in ("Connection refused", "Connection terminated"):
        return f"{device} belongs to a sound server that does not run: start it, or choose a card"
    if reason == "Input/output error":
        return f"{device} gives no sound: its sound server has no such microphone now"
    if reason == "Invalid argument":
        return f"{device} cannot record in any format that ALSA could find for it"
    return f"{device} cannot be opened: {reason}"


def no_microphone_message() -> str:
    """Says why there is no microphone at all, with the remedy."""
    if _lacks_permission():
        return explain_open_error("the microphone", "No such device")
    return "there is no microphone: plug one in, or start the sound server that has it"


def _owner(device: str) -> str:
    card = cards.card_of(device)
    owners = [i.owner for i in card.inputs if i.owner] if card else []
    return owners[0] if owners else "another program"


def _lacks_permission() -> bool:
    """Whether there are sound devices and this process may open none of them."""
    try:
        controls = sorted(DEV_SND.glob("controlC*"))
    except OSError:
        return False
    for control in controls:
        try:
            os.close(os.open(control, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except PermissionError:
            continue
        except OSError:
            pass
        return False
    return bool(controls)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _reason(error: Exception) -> str:
    """ "No such device [hw:x]" -> "No such device"."""
    return str(error).rpartition(" [")[0] or str(error)


_error_handler: Any = None


def _redirect_libasound_errors() -> None:
    """Sends libasound's messages, which it writes to stderr at every attempt, to the debug log."""
    global _error_handler
    if _error_handler is not None:
        return
    prototype = ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
    )

    def log_message(file: bytes, line: int, function: bytes, _error: int, text: bytes) -> None:
        message = f"libasound {file!r}:{line} {function!r}: {text!r}"
        log_event(_log, logging.DEBUG, "libasound", message)

    _error_handler = prototype(log_message)
    try:
        library = ctypes.CDLL("libasound.so.2")
        library.snd_lib_error_set_handler(_error_handler)
    except (OSError, AttributeError):
        return
    atexit.register(library.snd_lib_error_set_handler, None)  # the callback ends with Python
