"""Audio files and standard input as sources: decoded to their true end, in constant memory.

PCM, WAV and Ogg Opus are read here as they are from sockets (pcm.py, wav.py, opus.py); everything
else by FFmpeg (container.py). A format is known by its bytes, never by the file's name.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from edged.audio import ogg
from edged.audio.container import ContainerReader
from edged.audio.decoding import AudioFormatError, BlockReader, UnsupportedCodecError
from edged.audio.frame_maker import FrameMaker
from edged.audio.opus import MAGIC as OPUS_MAGIC
from edged.audio.opus import RATE as OPUS_RATE
from edged.audio.opus import OpusReader
from edged.audio.pcm import READ_S, PcmReader, RawFormat
from edged.audio.source import Block, Frame, Source
from edged.audio.wav import WavReader
from edged.errors import InputError

ACCEPTED = (
    "wav, flac, mp3, ogg, opus, aac, m4a, mp4, webm, wma, aiff, au, caf and others, "
    "or raw PCM with --input-format"
)
STDIN = "-"
HEAD_BYTES = 64
CHUNK = 1 << 16  # bytes that are read at once
_TAIL_BYTES = 1 << 17  # of an Ogg file, in which its last page begins


def display_name(path: str) -> str:
    """A file's name for people and JSON, which take text alone; a name may be any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def open_audio(path: str, raw: RawFormat | None = None) -> Source:
    """Opens the file at `path`, or standard input for `-`.

    `raw` says that there is no header, and what the bytes are; standard input without it may also
    hold a file, which need not be seekable. Raises InputError: one sentence with the file, what is
    wrong, and what is accepted.
    """
    if path == STDIN:
        return _standard_input(raw)
    name, mode = display_name(path), _mode(path)
    if stat.S_ISDIR(mode):
        raise InputError(f"{name} is a directory: name the audio files in it")
    if raw is not None:
        size = os.stat(path).st_size if stat.S_ISREG(mode) else None
        return RawAudio(name, _open(path), raw, size)
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{name} is not a regular file: say with --input-format what raw audio it gives"
        )
    file = _open(path)
    try:
        return AudioFile(name, file)
    except InputError:
        file.close()
        raise


def read_samples(path: str) -> tuple[Block, int]:
    """The whole of a short file at its own rate: float32[n, channels] and Hz.

    Raises InputError, also where a part of it is damaged.
    """
    source = AudioFile(display_name(path), _open(path))
    with contextlib.closing(source):
        return source.samples()


class RawAudio:
    """PCM without a header, decoded as its bytes arrive. Drops a cut sample at the end."""

    def __init__(
        self, name: str, stream: BinaryIO, raw: RawFormat, size: int | None = None
    ) -> None:
        """`stream` is closed by `close`; `size` in bytes, None: unknown."""
        self.name = name
        self.bad_samples = 0
        self.duration_s = None if size is None else size / (raw.frame_bytes * raw.rate)
        self._stream = stream
        self._raw = raw

    def frames(self) -> Iterator[Frame]:
        """Raises InputError if the bytes cannot be read."""
        reader, maker = PcmReader(self._raw), FrameMaker()
        size = max(1, round(READ_S * self._raw.rate)) * self._raw.frame_bytes
        while data := _read(self.name, lambda: self._stream.read(size)):
            for block in reader.push(data):
                yield from maker.push(block, reader.rate)
        yield from maker.finish()
        self.bad_samples = maker.bad_samples

    def close(self) -> None:
        self._stream.close()


class AudioFile:
    """A file with a header, or a pipe that holds one."""

    def __init__(self, name: str, file: BinaryIO, head: bytes | None = None) -> None:
        """`file` is closed by `close`.

        `head`: the first bytes of a file that cannot seek, which must still be unread.
        Raises InputError for a file of which nothing can be decoded.
        """
        self.name = name
        self.bad_samples = 0
        self.duration_s: float | None = None
        self._file = file
        self._seekable = head is None
        self._container: ContainerReader | None = None
        self._reader: BlockReader | None = None
        if head is None:
            head = _read(name, lambda: file.read(HEAD_BYTES))
            file.seek(0)
        if not head:
            raise InputError(f"{name} is empty: zero bytes (accepted: {ACCEPTED})")
        self._kind = kind_of(head)
        try:
            self._blocks = self._open()
            # The header is read now, so that a file of another kind is refused at once.
            self._first = next(self._blocks, None)
        except AudioFormatError as error:
            self.close()
            raise InputError(self._refusal(error)) from error
        except OSError as error:
            self.close()
            raise InputError(f"{name} could not be read: {_strerror(error)}") from error
        if self._reader is not None and self._seekable:
            self.duration_s = self._estimated_length()

    def frames(self) -> Iterator[Frame]:
        """Raises InputError, after everything that could be decoded, if something could not."""
        maker = FrameMaker(raise_quiet=True)
        first = [] if self._first is None else [self._first]
        failure: str | None = None
        decoded_s = 0.0
        try:
            for block in itertools.chain(first, self._blocks):
                decoded_s += len(block) / self._rate
                yield from maker.push(block, self._rate)
        except AudioFormatError as error:
            failure = f"is damaged {decoded_s:.2f} s in, and what follows was not read: {error}"
        except OSError as error:
            failure = f"could not be read further than {decoded_s:.2f} s: {_strerror(error)}"
        yield from maker.finish()
        self.bad_samples = maker.bad_samples
        failure = failure or self._decoding.damage
        if failure is not None:
            raise InputError(f"{self.name} {failure}")

    def samples(self) -> tuple[Block, int]:
        """All of it, undivided, at its own rate. Raises InputError for damage."""
        first = [] if self._first is None else [self._first]
        try:
            blocks = [*first, *self._blocks]
        except AudioFormatError as error:
            raise InputError(f"{self.name} is damaged: {error}") from error
        if not blocks or self._decoding.damage:
            raise InputError(f"{self.name} {self._decoding.damage or 'holds no audio'}")
        return np.concatenate(blocks), self._rate

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._file.close()

    @property
    def _rate(self) -> int:
        return self._decoding.rate

    @property
    def _decoding(self) -> ContainerReader | BlockReader:
        decoding = self._container or self._reader
        assert decoding is not None
        return decoding

    def _open(self) -> Iterator[Block]:
        if self._kind in ("WAV", "Opus"):
            reader: BlockReader = WavReader() if self._kind == "WAV" else OpusReader()
            self._reader = reader
            return self._read_all(reader)
        self._container = ContainerReader(self._file, self._seekable)
        self.duration_s = self._container.duration_s
        return self._container.blocks()

    def _read_all(self, reader: BlockReader) -> Iterator[Block]:
        read: Callable[[int], bytes] = getattr(self._file, "read1", self._file.read)
        while data := read(CHUNK):
            yield from reader.push(data)
        yield from reader.finish()

    def _estimated_length(self) -> float | None:
        assert self._reader is not None
        size = os.fstat(self._file.fileno()).st_size
        if self._kind == "Opus":
            at = self._file.tell()
            self._file.seek(max(0, size - _TAIL_BYTES))
            granule = ogg.last_granule(self._file.read(_TAIL_BYTES))
            self._file.seek(at)
            return None if granule is None else granule / OPUS_RATE
        return size * self._reader.seconds_per_byte or None

    def _refusal(self, error: AudioFormatError) -> str:
        if self._kind is None:
            return (
                f"{self.name} is not an audio file that edged knows: {error} (accepted: {ACCEPTED})"
            )
        if isinstance(error, UnsupportedCodecError):
            return (
                f"{self.name} cannot be decoded: {error}; convert it with "
                f"`ffmpeg -i {Path(self.name).name} out.wav`"
            )
        pipe = "" if self._seekable else ", which may need a file that can be sought in"
        return (
            f"{self.name} is not a readable {self._kind} file{pipe}: {error} (accepted: {ACCEPTED})"
        )


def kind_of(head: bytes) -> str | None:
    """The format that the first HEAD_BYTES of a file announce; None: unknown.

    Decides between the readers, and names the format in messages. A raw stream is not taken for
    one of these by chance: MP3 and AAC without a tag in front are not told here.
    """
    if head[28:36] == OPUS_MAGIC and head.startswith(b"OggS") and head[46:47] == b"\0":
        return "Opus"
    match head[:4]:
        case b"RIFF" | b"RIFX" | b"RF64" | b"BW64":
            return {b"WAVE": "WAV", b"AVI ": "AVI"}.get(head[8:12])
        case b"riff":
            return "W64"
        case b"fLaC":
            return "FLAC"
        case b"OggS":
            return "Ogg"
        case b"FORM":
            return "AIFF" if head[8:12] in (b"AIFF", b"AIFC") else None
        case b".snd" | b"dns.":
            return "AU"
        case b"caff":
            return "CAF"
        case b"\x1aE\xdf\xa3":
            return "WebM or Matroska"
        case b"\x30\x26\xb2\x75":
            return "WMA"
        case b"wvpk":
            return "WavPack"
        case b"TTA1" | b"TTA2":
            return "TTA"
    if head[4:8] == b"ftyp":
        return "MP4"
    if head[:3] == b"ID3":
        return "MP3"
    return "AMR" if head.startswith(b"#!AMR") else None


def _standard_input(raw: RawFormat | None) -> Source:
    name = "standard input"
    if sys.stdin is None or sys.stdin.isatty():  # None: it was closed by the caller
        raise InputError("standard input is no pipe: send audio into it, or name a file")
    stream = sys.stdin.buffer
    if raw is None and isinstance(stream, io.BufferedReader):
        try:
            head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
        except OSError as error:  # such as `0>file`, which opens it for writing
            raise InputError(f"standard input cannot be read: {_strerror(error)}") from error
        if kind_of(head) is not None:
            return AudioFile(name, cast(BinaryIO, stream), head)
    return RawAudio(name, cast(BinaryIO, stream), raw or RawFormat())


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{display_name(path)} cannot be opened: {_strerror(error)}") from error


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{display_name(path)} cannot be opened: {_strerror(error)}") from error


def _read(name: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (OSError, ValueError) as error:
        raise InputError(f"{name} could not be read: {_strerror(error)}") from error


def _strerror(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
