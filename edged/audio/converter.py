"""What a device really gives -> 24 kHz, 16-bit, mono."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.audio.downmix import Downmix, Mono
from edged.audio.frame_maker import to_int16
from edged.audio.level import LevelMeter, from_db
from edged.audio.pcm import SAMPLE_FORMATS, RawFormat, decode, shape_error
from edged.errors import DeviceError


class Converter:
    """Converts one stream of one device.

    Whole frames of any sample format, rate and number of channels go in, in pieces of any size;
    int16 samples come out. About 38 ms of audio are inside the resampler at any time, which
    `flush` gives; 24 kHz needs no resampler and has no delay.

    Two channels (a stereo microphone) are mixed by what they carry. Of more, the first is taken:
    microphone arrays put the processed voice there, and the others may hold raw microphones or
    the loudspeaker's echo.
    """

    def __init__(self, rate: int, channels: int, format_name: str, gain_db: float = 0.0) -> None:
        """rate in Hz; format_name a key of SAMPLE_FORMATS; gain_db is applied before the output.

        Raises DeviceError, naming what is supported, for what cannot be converted.
        """
        if format_name not in SAMPLE_FORMATS:
            known = ", ".join(SAMPLE_FORMATS)
            raise DeviceError(f"the device gives {format_name} samples; edged reads {known}")
        if reason := shape_error(rate, channels):
            raise DeviceError(f"the device {reason}")
        self.rate = rate
        self.meter = LevelMeter(rate)
        self.zeros = 0
        """Samples at the end of the stream, at the device's rate, that are exactly zero."""
        self._raw = RawFormat(format_name, rate, channels)
        self._gain = from_db(gain_db)
        # Passed on unchanged: no second rounding.
        self._exact = rate == SAMPLE_RATE and channels == 1 and format_name == "S16_LE"
        self._downmix = Downmix(rate, 2) if channels == 2 else None
        self._soxr: soxr.ResampleStream | None = None
        self.restart()

    def set_gain(self, gain_db: float) -> None:
        self._gain = from_db(gain_db)

    def restart(self) -> None:
        """Forgets the past after a gap: what comes next does not continue it."""
        if self.rate != SAMPLE_RATE:
            self._soxr = soxr.ResampleStream(
                self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )

    def push(self, data: bytes) -> NDArray[np.int16]:
        """Whole device frames (all channels) -> int16[about n * 24000 / rate].

        Raises ValueError for a part of a frame: it would shift every sample after it.
        """
        if len(data) % self._raw.frame_bytes:
            raise ValueError(f"{len(data)} bytes are not whole frames")
        block = np.nan_to_num(decode(data, self._raw), posinf=1.0, neginf=-1.0)
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

    def _finish(self, samples: Mono) -> NDArray[np.int16]:
        return to_int16(samples * np.float32(self._gain))

    def _count_zeros(self, mono: Mono) -> None:
        sounding = np.flatnonzero(mono)
        if len(sounding):
            self.zeros = len(mono) - 1 - int(sounding[-1])
        else:
            self.zeros += len(mono)
