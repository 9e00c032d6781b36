"""Raw PCM as a source: bytes without a header, from a file or a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.audio.resample import FrameMaker
from edged.audio.source import Block, Frame
from edged.errors import InputError

WIDTHS = {  # bytes a sample
    "pcm": 2,
    "s16": 2,
    "u8": 1,
    "s24": 3,
    "s32": 4,
    "f32": 4,
    "ulaw": 1,
    "alaw": 1,
}
MIN_RATE, MAX_RATE = 2_000, 768_000  # Hz
MAX_CHANNELS = 64
READ_S = 0.08


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How to read bytes that have no header: little-endian, channels interleaved.

    `encoding` is a key of WIDTHS; pcm is s16. Raises InputError for what is not allowed.
    """

    encoding: str = "pcm"
    rate: int = SAMPLE_RATE
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in WIDTHS:
            raise InputError(
                f"the input format must be one of {', '.join(WIDTHS)}, not {self.encoding!r}"
            )
        check_shape("the raw input", self.rate, self.channels)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return WIDTHS[self.encoding] * self.channels


class RawAudio:
    """Frames as their bytes arrive. What is left of a cut sample at the end is dropped."""

    def __init__(
        self, name: str, stream: BinaryIO, raw: RawFormat, size: int | None = None
    ) -> None:
        """`stream` is the caller's until `close`; `size` in bytes, None: unknown."""
        self.name = name
        self.bad_samples = 0
        self._stream = stream
        self._raw = raw
        self._size = size

    @property
    def duration_s(self) -> float | None:
        if self._size is None:
            return None
        return self._size / (self._raw.frame_bytes * self._raw.rate)

    def frames(self) -> Iterator[Frame]:
        """Raises InputError if the bytes cannot be read."""
        raw = self._raw
        maker = FrameMaker(raw.rate, raw.channels)
        while data := self._read(max(1, round(READ_S * raw.rate)) * raw.frame_bytes):
            whole = len(data) // raw.frame_bytes * raw.frame_bytes
            yield from maker.push(decode(data[:whole], raw))
        yield from maker.finish()
        self.bad_samples = maker.bad_samples

    def close(self) -> None:
        self._stream.close()

    def _read(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except (OSError, ValueError) as problem:
            raise InputError(f"{self.name} could not be read: {problem}") from problem


def check_shape(name: str, rate: int, channels: int) -> None:
    """Raises InputError for a rate or a number of channels that no speech has."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(
            f"{name} has a sample rate of {rate} Hz: {MIN_RATE} to {MAX_RATE} Hz is accepted"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name} has {channels} channels: 1 to {MAX_CHANNELS} are accepted")


def decode(data: bytes, raw: RawFormat) -> Block:
    """Whole samples -> float32[n, channels]. Raises ValueError for a cut sample."""
    return np.asarray(_samples(data, raw.encoding), np.float32).reshape(-1, raw.channels)


def _samples(data: bytes, encoding: str) -> NDArray[np.floating]:
    match encoding:
        case "pcm" | "s16":
            return np.frombuffer(data, "<i2") / np.float32(2**15)
        case "s24":
            padded = np.zeros((len(data) // 3, 4), np.uint8)
            padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            return padded.view("<i4")[:, 0] / 2.0**31
        case "s32":
            return np.frombuffer(data, "<i4") / 2.0**31
        case "f32":
            return np.frombuffer(data, "<f4")
        case "u8":
            return (np.frombuffer(data, np.uint8) - np.float32(128)) / np.float32(128)
        case "ulaw":
            return _ULAW[np.frombuffer(data, np.uint8)]
        case _:
            return _ALAW[np.frombuffer(data, np.uint8)]


def _ulaw(code: int) -> int:
    """One mu-law byte -> a 16-bit sample (ITU-T G.711, as its reference code expands it)."""
    code = ~code & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def _alaw(code: int) -> int:
    """One A-law byte -> a 16-bit sample (ITU-T G.711, as its reference code expands it)."""
    code ^= 0x55
    exponent, magnitude = (code & 0x70) >> 4, ((code & 0x0F) << 4) + 8
    if exponent:
        magnitude = (magnitude + 0x100) << (exponent - 1)
    return magnitude if code & 0x80 else -magnitude


_ULAW = np.array([_ulaw(code) for code in range(256)], np.float32) / np.float32(2**15)
_ALAW = np.array([_alaw(code) for code in range(256)], np.float32) / np.float32(2**15)
