"""FFmpeg's decoders, through PyAV: packets to blocks of samples.

The library is loaded on first use: it takes 17 MB and half a second. Its own words reach nobody;
what goes wrong becomes an AudioFormatError or `damage`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.audio.decoding import AudioFormatError, parts
from edged.audio.pcm import shape_error
from edged.audio.source import Block

CHUNK = 1 << 16  # bytes that are read at once
_SCALES = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "f4": 1.0, "f8": 1.0}


def library() -> ModuleType:
    """PyAV. Raises AudioFormatError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise AudioFormatError("the package av is not installed (pip install av)") from error
    return av


class PacketDecoder:
    """One decoder of FFmpeg, fed with packets that were found elsewhere."""

    def __init__(self, codec: str, rate: int, channels: int, coded_bits: int = 0) -> None:
        """`coded_bits`: of one sample in the packet, for codecs that need it.

        Raises AudioFormatError if the decoder refuses the combination.
        """
        self.broken = 0  # packets that could not be decoded
        self.rate = rate
        self._av = library()
        self._context: Any = self._av.CodecContext.create(codec, "r")
        options = {"request_sample_fmt": "flt"}  # no rounding to 16 bits in between
        if coded_bits:
            options["bits_per_coded_sample"] = str(coded_bits)
        try:
            self._context.options = options
            self._context.sample_rate = rate
            self._context.layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
            self._context.open()
        except (self._av.error.FFmpegError, ValueError) as error:
            raise AudioFormatError(f"{codec} with {channels} channels is not supported") from error

    def parse(self, data: bytes) -> list[Any]:
        """Bytes of a self-framed codec -> the packets that they complete; b"": the last ones."""
        with contextlib.suppress(self._av.error.FFmpegError):
            packets: list[Any] = self._context.parse(data or None)
            return packets
        return []

    def decode(self, packet: bytes | Any) -> Iterator[Block]:
        """One packet -> its blocks, float32[n, channels]. A broken packet yields nothing."""
        packet = self._av.Packet(packet) if isinstance(packet, bytes) else packet
        try:
            frames = self._context.decode(packet)
        except self._av.error.FFmpegError:
            self.broken += 1
            return
        for frame in frames:
            self.rate = frame.sample_rate or self.rate
            yield samples_of(frame)


class PacketReader:
    """A `BlockReader` for the packets of one codec, one behind the other (compressed WAV)."""

    def __init__(
        self, codec: str, rate: int, channels: int, packet_bytes: int, coded_bits: int
    ) -> None:
        """`packet_bytes`: of each packet; 0 if the packets carry their own size."""
        self.rate = rate
        self.seconds_per_byte = 0.0
        self._decoder = PacketDecoder(codec, rate, channels, coded_bits)
        self._packet_bytes = packet_bytes
        self._bytes = bytearray()

    @property
    def unread(self) -> int:
        return len(self._bytes)

    @property
    def damage(self) -> str | None:
        tolerated = 0 if self._packet_bytes else 1
        if self._decoder.broken <= tolerated:
            return None
        return f"is damaged: {parts(self._decoder.broken)} could not be decoded"

    def push(self, data: bytes) -> Iterator[Block]:
        if not self._packet_bytes:
            for at in range(0, len(data), CHUNK):
                yield from self._decode(self._decoder.parse(data[at : at + CHUNK]))
            return
        self._bytes += data
        while len(self._bytes) >= self._packet_bytes:
            packet = bytes(self._bytes[: self._packet_bytes])
            del self._bytes[: self._packet_bytes]
            yield from self._decode([packet])

    def finish(self) -> Iterator[Block]:
        if not self._packet_bytes:
            yield from self._decode(self._decoder.parse(b""))
        self._bytes.clear()

    def _decode(self, packets: list[Any]) -> Iterator[Block]:
        for packet in packets:
            for block in self._decoder.decode(packet):
                if reason := shape_error(self._decoder.rate, block.shape[1]):
                    raise AudioFormatError(f"it {reason}")
                self.rate = self._decoder.rate
                yield block


def samples_of(frame: Any) -> Block:
    """A frame of FFmpeg -> float32[n, channels], full scale 1.0."""
    array: NDArray[Any] = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    kind = array.dtype.str[1:]
    if kind not in _SCALES:
        raise AudioFormatError(f"its samples are of a kind that edged does not read ({kind})")
    offset = 128.0 if kind == "u1" else 0.0
    if kind in ("u1", "i2", "f4"):
        scaled = (array.astype(np.float32) - np.float32(offset)) / np.float32(_SCALES[kind])
    else:
        scaled = array / _SCALES[kind]
    return np.ascontiguousarray(scaled, np.float32)
