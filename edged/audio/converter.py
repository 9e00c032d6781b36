"""What a device really gave -> 24 kHz, 16-bit, mono.

Bytes of any common sample format, 1 to 32 channels and any rate go in, in pieces of any size;
int16 samples come out. Stream time is kept: `flush()` gives the resampler's tail (about 38 ms
of it is inside soxr at any time; 24 kHz needs no resampler and has no delay).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.audio.level import LevelMeter, from_db
from edged.audio.resample import Downmix, to_int16
from edged.errors import DeviceError

Floats = NDArray[np.float32]

MAX_CHANNELS = 32
MIN_RATE, MAX_RATE = 4_000, 384_000


def _plain(kind: str, scale: float, offset: float = 0.0) -> Callable[[bytes], Floats]:
    """A format that numpy knows: offset away, then scaled to -1..1."""

    def decode(data: bytes) -> Floats:
        wide = np.frombuffer(data, kind)
        scaled = (wide.astype(np.float64) - offset) / scale
        return np.nan_to_num(scaled, posinf=1.0, neginf=-1.0).astype(np.float32)

    return decode


def _packed24(order: str) -> Callable[[bytes], Floats]:
    """Three bytes a sample: they become the upper bytes of an int32."""

    def decode(data: bytes) -> Floats:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        upper = slice(1, 4) if order == "<" else slice(0, 3)
        wide[:, upper] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view(f"{order}i4").ravel() / 2.0**31).astype(np.float32)

    return decode


def _padded24(order: str) -> Callable[[bytes], Floats]:
    """24 bits in the lower part of 32; what the upper byte holds is not defined."""

    def decode(data: bytes) -> Floats:
        wide = np.frombuffer(data, f"{order}i4").astype(np.int32) << 8
        return (wide / 2.0**31).astype(np.float32)

    return decode


# ALSA's names (snd_pcm_format_name) -> bytes a sample, decoder
FORMATS: dict[str, tuple[int, Callable[[bytes], Floats]]] = {
    "S16_LE": (2, _plain("<i2", 2.0**15)),
    "S16_BE": (2, _plain(">i2", 2.0**15)),
    "U16_LE": (2, _plain("<u2", 2.0**15, 2.0**15)),
    "S32_LE": (4, _plain("<i4", 2.0**31)),
    "S32_BE": (4, _plain(">i4", 2.0**31)),
    "S24_3LE": (3, _packed24("<")),
    "S24_3BE": (3, _packed24(">")),
    "S24_LE": (4, _padded24("<")),
    "S24_BE": (4, _padded24(">")),
    "FLOAT_LE": (4, _plain("<f4", 1.0)),
    "FLOAT_BE": (4, _plain(">f4", 1.0)),
    "FLOAT64_LE": (8, _plain("<f8", 1.0)),
    "S8": (1, _plain("i1", 2.0**7)),
    "U8": (1, _plain("u1", 2.0**7, 2.0**7)),
}


class Converter:
    """One stream of one device.

    Two channels (a stereo microphone) are mixed by what they carry. Of more, the first is taken:
    microphone arrays put the processed voice there, and the others may hold raw microphones or
    the loudspeaker's echo.
    """

    def __init__(self, rate: int, channels: int, format_name: str, gain_db: float = 0.0) -> None:
        """Raises DeviceError, naming what is supported, for what cannot be converted."""
        if format_name not in FORMATS:
            known = ", ".join(FORMATS)
            raise DeviceError(f"the device gives {format_name} samples; edged reads {known}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise DeviceError(
                f"the device gives {channels} channels; edged reads 1 to {MAX_CHANNELS}"
            )
        if not MIN_RATE <= rate <= MAX_RATE:
            raise DeviceError(
                f"the device gives {rate} Hz; edged reads {MIN_RATE} to {MAX_RATE} Hz"
            )
        self.rate = rate
        self.meter = LevelMeter(rate)
        self.zeros = 0  # samples in a row that were exactly zero, in device samples
        self._channels = channels
        self._width, self._decode = FORMATS[format_name]
        self._gain = from_db(gain_db)
        # As is: no rounding twice, no gain.
        self._exact = rate == SAMPLE_RATE and channels == 1 and format_name == "S16_LE"
        self._downmix = Downmix(rate, 2) if channels == 2 else None
        self._soxr: soxr.ResampleStream | None = None
        self.restart()

    def set_gain(self, gain_db: float) -> None:
        self._gain = from_db(gain_db)

    def restart(self) -> None:
        """After a gap: what comes next has nothing to do with what came before."""
        if self.rate != SAMPLE_RATE:
            self._soxr = soxr.ResampleStream(
                self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )

    def push(self, data: bytes) -> NDArray[np.int16]:
        """Whole device frames (all channels) -> int16[about n * 24000 / rate].

        Raises ValueError for a part of a frame: that would shift every sample after it.
        """
        if len(data) % (self._width * self._channels):
            raise ValueError(f"{len(data)} bytes are not whole frames")
        block = self._decode(data).reshape(-1, self._channels)
        mono = self._downmix.push(block) if self._downmix else np.ascontiguousarray(block[:, 0])
        self.meter.push(mono)
        self._count_zeros(mono)
        if self._exact and self._gain == 1.0:
            return np.frombuffer(data, "<i2").astype(np.int16)
        return self._finish(self._soxr.resample_chunk(mono) if self._soxr else mono)

    def flush(self) -> NDArray[np.int16]:
        """What the resampler still holds."""
        if self._soxr is None:
            return np.zeros(0, np.int16)
        return self._finish(self._soxr.resample_chunk(np.zeros(0, np.float32), last=True))

    def _finish(self, samples: Floats) -> NDArray[np.int16]:
        return to_int16(samples * np.float32(self._gain))

    def _count_zeros(self, mono: Floats) -> None:
        sounding = np.flatnonzero(mono)
        if len(sounding):
            self.zeros = len(mono) - 1 - int(sounding[-1])
        else:
            self.zeros += len(mono)
