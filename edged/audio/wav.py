"""WAV as it arrives: the header, then the samples of every data chunk (RIFF, RIFX, RF64).

The end of the audio is the end of the bytes wherever the header does not know it: streaming
writers leave the size 0 or 0xFFFFFFFF, and interrupted ones leave it too small or too large.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from edged.audio.decoding import (
    AudioFormatError,
    BlockReader,
    UnsupportedCodecError,
    WrongFormatError,
)
from edged.audio.ffmpeg import PacketReader
from edged.audio.pcm import PcmReader, RawFormat, shape_error
from edged.audio.source import Block

_UNKNOWN_SIZE = 0xFFFFFFFF  # what writers put for a size that they do not know; 0 is usual too
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_MAX_FORMAT_BYTES = 1024  # of the `fmt ` chunk; 40 are usual
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9 _]{4}", re.ASCII)
_LAW = {_A_LAW: "A_LAW", _MU_LAW: "MU_LAW"}
_CODECS = {  # format tag -> FFmpeg's decoder and the bits of a coded sample
    0x02: ("adpcm_ms", 4),
    0x11: ("adpcm_ima_wav", 4),
    0x31: ("gsm_ms", 0),
    0x50: ("mp2float", 0),
    0x55: ("mp3float", 0),
}
_FRAMED = ("mp2float", "mp3float")  # packets are found by their own headers, not by block_align
ACCEPTED = "PCM of 8 to 32 bits, float, A-law, mu-law, ADPCM, GSM and MP3 are accepted"


class WavReader:
    """A `BlockReader` for WAV."""

    def __init__(self) -> None:
        self._header = bytearray()  # bytes of chunk headers, and of the `fmt ` and `ds64` chunks
        self._order = ""  # of integers: "<" or ">", known with the first 12 bytes
        self._skip = 0  # bytes of a chunk that edged does not need
        self._left: int | None = 0  # bytes of the open data chunk; None: until the end
        self._long_size: int | None = None  # of the data chunk, as an RF64 file has it
        self._odd = False  # the data chunk is followed by a pad byte
        self._samples: BlockReader | None = None
        self._seen_data = False

    @property
    def rate(self) -> int:
        return self._samples.rate if self._samples else 0

    @property
    def damage(self) -> str | None:
        return self._samples.damage if self._samples else None

    @property
    def seconds_per_byte(self) -> float:
        return self._samples.seconds_per_byte if self._samples and self._seen_data else 0.0

    @property
    def unread(self) -> int:
        return len(self._header) + (self._samples.unread if self._samples else 0)

    def push(self, data: bytes) -> Iterator[Block]:
        """Raises AudioFormatError for what is not WAV."""
        while data:
            if self._left != 0:
                size = len(data) if self._left is None else min(self._left, len(data))
                piece, data = data[:size], data[size:]
                if self._left is not None:
                    self._left -= size
                yield from self._decode(piece)
            elif self._skip:
                size = min(self._skip, len(data))
                data, self._skip = data[size:], self._skip - size
            else:
                self._header += data
                data = self._read_header()

    def finish(self) -> Iterator[Block]:
        if self._samples is not None and self._seen_data:
            yield from self._samples.finish()
        elif self._header or self._order:
            raise AudioFormatError("it ends within its header")

    def _decode(self, data: bytes) -> Iterator[Block]:
        assert self._samples is not None
        yield from self._samples.push(data)

    def _read_header(self) -> bytes:
        """Reads chunk headers as far as they have arrived -> the bytes behind them."""
        while self._left == 0 and not self._skip and self._step():
            pass
        if self._left != 0 or self._skip:
            return self._take(len(self._header))
        return b""

    def _step(self) -> bool:
        """Reads one chunk header. False: more bytes are needed."""
        if not self._order:
            return self._read_magic()
        if len(self._header) < 8 + self._odd:
            return False
        if self._odd:
            self._odd = False
            if _CHUNK_NAME.match(self._header, 1) or self._header[0] == 0:
                del self._header[:1]
                return True
        name = bytes(self._header[:4])
        (size,) = struct.unpack_from(f"{self._order}I", self._header, 4)
        if self._seen_data and not _CHUNK_NAME.fullmatch(name):
            # The writer did not know the size of the data chunk, or could not correct it.
            self._left = None
        elif name == b"data":
            self._open_data(size)
        elif name in (b"fmt ", b"ds64"):
            return self._read_chunk(name, size)
        else:
            self._skip_chunk(size)
        return True

    def _read_magic(self) -> bool:
        if len(self._header) < 12:
            return False
        magic = bytes(self._header[:12])
        if magic[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or magic[8:] != b"WAVE":
            raise WrongFormatError("it is not WAV (no RIFF at its start)")
        self._order = ">" if magic[:4] == b"RIFX" else "<"
        del self._header[:12]
        return True

    def _open_data(self, size: int) -> None:
        if self._samples is None:
            raise AudioFormatError("its header has no format before its data")
        del self._header[:8]
        if self._long_size is not None and size == _UNKNOWN_SIZE:
            size, self._long_size = self._long_size, None
        self._seen_data = True
        self._left = None if size == _UNKNOWN_SIZE else size
        self._odd = bool(size % 2)

    def _read_chunk(self, name: bytes, size: int) -> bool:
        if not 16 <= size <= _MAX_FORMAT_BYTES:
            raise AudioFormatError("its header is damaged: the size of its format is impossible")
        if len(self._header) < 8 + size:
            return False
        del self._header[:8]
        chunk = self._take(size)
        if name == b"ds64":
            (self._long_size,) = struct.unpack_from("<Q", chunk, 8)
        elif self._samples is None:
            self._samples = _samples(chunk, self._order)
        self._skip = size % 2
        return True

    def _skip_chunk(self, size: int) -> None:
        del self._header[:8]
        self._skip = size + size % 2

    def _take(self, size: int) -> bytes:
        data = bytes(self._header[:size])
        del self._header[:size]
        return data


def _samples(chunk: bytes, order: str) -> BlockReader:
    """The `fmt ` chunk -> the reader of what it describes."""
    tag, channels, rate, _, align, bits = struct.unpack_from(f"{order}HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack_from(f"{order}H", chunk, 24)
    if reason := shape_error(rate, channels):
        raise AudioFormatError(f"it {reason}")
    if tag in _CODECS:
        codec, coded_bits = _CODECS[tag]
        size = 0 if codec in _FRAMED else align
        if codec not in _FRAMED and not 0 < align <= 1 << 16:
            raise AudioFormatError("its header is damaged: the size of its blocks is impossible")
        return PacketReader(codec, rate, channels, size, coded_bits)
    encoding = _encoding(tag, channels, align, bits, order)
    if encoding is None:
        raise UnsupportedCodecError(f"WAV format {tag} with {bits} bits", ACCEPTED)
    return PcmReader(RawFormat(encoding, rate, channels))


def _encoding(tag: int, channels: int, align: int, bits: int, order: str) -> str | None:
    """The key of SAMPLE_FORMATS; None if there is none.

    The width of a sample is the share that it has of a block (block_align): 24 bits may stand in
    4 bytes, with the unused ones below (Microsoft, "Multiple Channel Audio Data and WAVE Files").
    """
    end = "LE" if order == "<" else "BE"
    if tag in _LAW:
        return _LAW[tag] if bits == 8 else None
    if tag == _FLOAT:
        return {32: f"FLOAT_{end}", 64: f"FLOAT64_{end}"}.get(bits)
    if tag != _PCM or not 1 <= bits <= 32:
        return None
    width = -(-bits // 8)
    if align % channels == 0 and width <= align // channels <= 4:
        width = align // channels
    return {1: "U8", 2: f"S16_{end}", 3: f"S24_3{end}", 4: f"S32_{end}"}[width]
