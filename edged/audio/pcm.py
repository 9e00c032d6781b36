"""PCM: the sample formats that edged knows, one set of limits, and one decoder for all of them.

Raw files, WAV files, sockets and microphones all come through `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.audio.source import Block
from edged.errors import InputError

MIN_RATE, MAX_RATE = 2_000, 768_000  # Hz
MAX_CHANNELS = 64
READ_S = 0.08  # how much audio is decoded at once

_Decode = Callable[[bytes], NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class SampleFormat:
    """How one sample is stored.

    Attributes:
        width: bytes of one sample.
        decode: whole samples -> floats, full scale 1.0. Float formats are not clipped and may
            hold NaN.
    """

    width: int
    decode: _Decode


def _integer(dtype: str, bits: int, offset: int = 0) -> SampleFormat:
    """A format that numpy reads: `offset` is subtracted, then 2**(bits - 1) becomes 1.0."""
    kind = np.float32 if bits <= 16 else np.float64  # both hold the sample exactly

    def decode(data: bytes) -> NDArray[np.floating]:
        values: NDArray[np.floating] = np.frombuffer(data, dtype).astype(kind)
        return (values - kind(offset)) / kind(2 ** (bits - 1))

    return SampleFormat(bits // 8, decode)


def _float(dtype: str) -> SampleFormat:
    return SampleFormat(np.dtype(dtype).itemsize, lambda data: np.frombuffer(data, dtype))


def _packed_24(order: str) -> SampleFormat:
    """Three bytes a sample: they become the upper bytes of an int32."""
    upper = slice(1, 4) if order == "<" else slice(0, 3)

    def decode(data: bytes) -> NDArray[np.floating]:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, upper] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view(f"{order}i4").ravel() / 2.0**31

    return SampleFormat(3, decode)


def _padded_24(order: str) -> SampleFormat:
    """24 bits in the lower part of 32. ALSA leaves the upper byte undefined."""

    def decode(data: bytes) -> NDArray[np.floating]:
        return (np.frombuffer(data, f"{order}i4").astype(np.int32) << 8) / 2.0**31

    return SampleFormat(4, decode)


def _mu_law(code: int) -> int:
    """One mu-law byte -> a 16-bit sample (ITU-T G.711, as its reference code expands it)."""
    code = ~code & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def _a_law(code: int) -> int:
    """One A-law byte -> a 16-bit sample (ITU-T G.711, as its reference code expands it)."""
    code ^= 0x55
    exponent, magnitude = (code & 0x70) >> 4, ((code & 0x0F) << 4) + 8
    if exponent:
        magnitude = (magnitude + 0x100) << (exponent - 1)
    return magnitude if code & 0x80 else -magnitude


def _table(expand: Callable[[int], int]) -> SampleFormat:
    values = np.array([expand(code) for code in range(256)], np.float32) / np.float32(2**15)
    return SampleFormat(1, lambda data: values[np.frombuffer(data, np.uint8)])


SAMPLE_FORMATS: dict[str, SampleFormat] = {
    "S16_LE": _integer("<i2", 16),
    "S16_BE": _integer(">i2", 16),
    "U16_LE": _integer("<u2", 16, 2**15),
    "S32_LE": _integer("<i4", 32),
    "S32_BE": _integer(">i4", 32),
    "S24_3LE": _packed_24("<"),
    "S24_3BE": _packed_24(">"),
    "S24_LE": _padded_24("<"),
    "S24_BE": _padded_24(">"),
    "FLOAT_LE": _float("<f4"),
    "FLOAT_BE": _float(">f4"),
    "FLOAT64_LE": _float("<f8"),
    "FLOAT64_BE": _float(">f8"),
    "S8": _integer("i1", 8),
    "U8": _integer("u1", 8, 2**7),
    "MU_LAW": _table(_mu_law),
    "A_LAW": _table(_a_law),
}
"""By ALSA's names (snd_pcm_format_name)."""

RAW_ENCODINGS = {
    "pcm": "S16_LE",
    "s16": "S16_LE",
    "u8": "U8",
    "s24": "S24_3LE",
    "s32": "S32_LE",
    "f32": "FLOAT_LE",
    "ulaw": "MU_LAW",
    "alaw": "A_LAW",
}
"""The names that `--input-format` takes -> keys of SAMPLE_FORMATS."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How to read bytes that have no header. Channels are interleaved.

    Attributes:
        encoding: a key of RAW_ENCODINGS (all little-endian) or of SAMPLE_FORMATS.
        rate: in Hz.
        channels: 1 to MAX_CHANNELS.

    Raises InputError for what is not allowed.
    """

    encoding: str = "pcm"
    rate: int = SAMPLE_RATE
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in RAW_ENCODINGS and self.encoding not in SAMPLE_FORMATS:
            raise InputError(
                f"the input format must be one of {', '.join(RAW_ENCODINGS)}, not {self.encoding!r}"
            )
        if reason := shape_error(self.rate, self.channels):
            raise InputError(f"the raw input {reason}")

    @property
    def samples(self) -> SampleFormat:
        return SAMPLE_FORMATS[RAW_ENCODINGS.get(self.encoding, self.encoding)]

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.samples.width * self.channels


def shape_error(rate: int, channels: int) -> str | None:
    """Why no speech has this rate (Hz) or number of channels; None if it may.

    The answer continues a sentence: "has a sample rate of 100 Hz: ... is accepted".
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        return f"has a sample rate of {rate} Hz: {MIN_RATE} to {MAX_RATE} Hz is accepted"
    if not 1 <= channels <= MAX_CHANNELS:
        return f"has {channels} channels: 1 to {MAX_CHANNELS} are accepted"
    return None


def decode(data: bytes, raw: RawFormat) -> Block:
    """Whole samples of all channels -> float32[n, channels].

    Raises ValueError for a part of a sample: it would shift every sample after it.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a 64-bit float may be too large for 32
        samples = np.asarray(raw.samples.decode(data), np.float32)
    return samples.reshape(-1, raw.channels)


class PcmReader:
    """A `BlockReader` for bytes without a header. Drops a cut sample at the end."""

    def __init__(self, raw: RawFormat) -> None:
        self.rate = raw.rate
        self.seconds_per_byte = 1 / (raw.rate * raw.frame_bytes)
        self.damage: str | None = None
        self._raw = raw
        self._chunk = max(1, round(READ_S * raw.rate)) * raw.frame_bytes
        self._bytes = bytearray()

    @property
    def unread(self) -> int:
        return len(self._bytes)

    def push(self, data: bytes) -> Iterator[Block]:
        self._bytes += data
        while whole := len(self._bytes) // self._raw.frame_bytes * self._raw.frame_bytes:
            size = min(whole, self._chunk)
            piece = bytes(self._bytes[:size])
            del self._bytes[:size]
            yield decode(piece, self._raw)

    def finish(self) -> Iterator[Block]:
        self._bytes.clear()
        yield from ()
