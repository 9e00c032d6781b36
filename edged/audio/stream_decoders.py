"""`input_format`: bytes of any chunk size in, the session's frames out.

Audio is taken in blocks of 80 ms from its first sample on, as files are read (audio/files.py), so
that the same audio gives the same frames whichever way it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from edged.audio.files import LISTEN_S
from edged.audio.opus import RATE as OPUS_RATE
from edged.audio.opus import OpusReader
from edged.audio.pcm import READ_S, RawFormat, decode
from edged.audio.resample import QUIET_PEAK, FrameMaker
from edged.audio.source import Block, Frame
from edged.audio.wav_header import WavHeader
from edged.errors import RequestError

PCM_RATES = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)
RAW = {f"pcm_{rate}": RawFormat("s16", rate) for rate in PCM_RATES} | {
    "pcm": RawFormat("s16"),
    "ulaw_8000": RawFormat("ulaw", 8000),
    "mulaw_8000": RawFormat("ulaw", 8000),
    "alaw_8000": RawFormat("alaw", 8000),
}
FORMATS = ("wav", "opus", *sorted(RAW))
MAX_HELD = 16 << 20  # bytes of samples that `Ahead` looks at: 30 s of 48 kHz stereo are 12 MB


class Decoder(Protocol):
    """Bytes of one stream to frames. Both methods decode lazily, so that a small message that
    unpacks to much audio never has to be held as audio. They raise RequestError."""

    seconds_per_byte: float
    """Of audio, as far as it is known: 0 before that."""

    def push(self, data: bytes) -> Iterator[Frame]: ...

    def finish(self) -> Iterator[Frame]:
        """What is left, padded with silence to a whole frame."""


def decoder(input_format: object, whole: bool = False) -> Decoder:
    """`whole`: nobody waits for the first step before all has come, so that a recording which is
    far too quiet can be raised, as `edged transcribe` does. Raises RequestError that names what is
    allowed."""
    make = Ahead if whole else FrameMaker
    if input_format == "wav":
        return Wav(make)
    if input_format == "opus":
        return Opus(make)
    if isinstance(input_format, str) and input_format in RAW:
        return Raw(RAW[input_format])
    shown = f"{input_format!r:.60}"
    raise RequestError(f"input_format must be one of {', '.join(FORMATS)}, not {shown}")


class Maker(Protocol):
    """Blocks of one rate and number of channels to frames."""

    def push(self, block: Block) -> Iterable[Frame]: ...

    def finish(self) -> Iterable[Frame]: ...


class Ahead:
    """Holds blocks back until it is known whether the recording is far too quiet."""

    def __init__(self, rate: int, channels: int) -> None:
        self._shape = rate, channels
        self._held: list[Block] = []
        self._left = min(round(LISTEN_S * rate), MAX_HELD // (4 * channels))  # samples to look at
        self._peak = 0.0
        self._maker: FrameMaker | None = None

    def push(self, block: Block) -> Iterable[Frame]:
        if self._maker is not None:
            yield from self._maker.push(block)
            return
        self._held.append(block)
        self._left -= len(block)
        if len(block):
            self._peak = max(self._peak, float(np.nan_to_num(np.abs(block)).max()))
        if self._peak > QUIET_PEAK or self._left <= 0:
            yield from self._begin(self._held)

    def finish(self) -> Iterable[Frame]:
        if self._maker is None:
            yield from self._begin(self._held)
        assert self._maker is not None
        yield from self._maker.finish()

    def _begin(self, held: list[Block]) -> Iterable[Frame]:
        self._maker = FrameMaker(*self._shape, quiet=0.0 < self._peak <= QUIET_PEAK)
        self._held = []
        for block in held:
            yield from self._maker.push(block)


class Raw:
    """Samples without a header. A cut sample at the end is dropped."""

    def __init__(self, raw: RawFormat, make: Callable[[int, int], Maker] = FrameMaker) -> None:
        self.seconds_per_byte = 1 / (raw.rate * raw.frame_bytes)
        self._raw = raw
        self._block = max(1, round(READ_S * raw.rate)) * raw.frame_bytes
        self._maker = make(raw.rate, raw.channels)
        self._bytes = bytearray()

    def push(self, data: bytes) -> Iterator[Frame]:
        self._bytes += data
        while len(self._bytes) >= self._block:
            block = bytes(self._bytes[: self._block])
            del self._bytes[: self._block]
            yield from self._maker.push(decode(block, self._raw))

    def finish(self) -> Iterator[Frame]:
        whole = len(self._bytes) // self._raw.frame_bytes * self._raw.frame_bytes
        if whole:
            yield from self._maker.push(decode(bytes(self._bytes[:whole]), self._raw))
        yield from self._maker.finish()


class Wav:
    """A header, then what it says. Audio ends where the header says it does."""

    def __init__(self, make: Callable[[int, int], Maker] = FrameMaker) -> None:
        self.seconds_per_byte = 0.0
        self._make = make
        self._header = WavHeader()
        self._samples: Raw | None = None
        self._empty = True

    def push(self, data: bytes) -> Iterator[Frame]:
        self._empty = self._empty and not data
        if self._samples is None:
            data = self._header.push(data)
            if self._header.raw is None:
                return
            self._samples = Raw(self._header.raw, self._make)
            self.seconds_per_byte = self._samples.seconds_per_byte
        if self._header.left is not None:
            data = data[: self._header.left]
            self._header.left -= len(data)
        yield from self._samples.push(data)

    def finish(self) -> Iterator[Frame]:
        if self._samples is not None:
            yield from self._samples.finish()
        elif not self._empty:
            raise RequestError("the WAV ended within its header")


class Opus:
    """Ogg Opus, each page as it arrives."""

    def __init__(self, make: Callable[[int, int], Maker] = FrameMaker) -> None:
        self.seconds_per_byte = 0.0
        self._make = make
        self._reader = OpusReader()
        self._maker: Maker | None = None
        self._block: list[Block] = []  # packets of less than a block together
        self._received = 0
        self._decoded = 0  # samples

    def push(self, data: bytes) -> Iterator[Frame]:
        self._received += len(data)
        for packet in self._reader.push(data):
            self._decoded += len(packet)
            read = max(1, self._received - self._reader.unread)
            self.seconds_per_byte = self._decoded / OPUS_RATE / read
            if self._maker is None:
                self._maker = self._make(OPUS_RATE, self._reader.channels)
            self._block.append(packet)
            while (block := self._whole_block()) is not None:
                yield from self._maker.push(block)

    def finish(self) -> Iterator[Frame]:
        if self._maker is not None:
            if self._block:
                yield from self._maker.push(np.concatenate(self._block))
            yield from self._maker.finish()
        elif self._received:
            raise RequestError("the opus input ended before any audio")

    def _whole_block(self) -> Block | None:
        size = round(READ_S * OPUS_RATE)
        if sum(map(len, self._block)) < size:
            return None
        samples = np.concatenate(self._block)
        self._block = [samples[size:]] if len(samples) > size else []
        return samples[:size]
