"""Audio in any container that FFmpeg knows, decoded to its true end."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, cast

import numpy as np

from edged.audio.decoding import AudioFormatError, UnsupportedCodecError, parts
from edged.audio.ffmpeg import CHUNK, library, samples_of
from edged.audio.mpeg_audio import frame_bytes
from edged.audio.pcm import shape_error
from edged.audio.source import Block

DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,gsm,loas,matroska,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,ogg,tta,voc,w64,wv"
)
"""Containers that recordings come in. FFmpeg has 350 more, playlists among them."""

DECODERS = (
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,eac3,alac,amrnb,amrwb,ape,flac,gsm,gsm_ms,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,"
    "mp3float,mpc7,mpc8,nellymoser,opus,speex,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,"
    "wmavoice,adpcm_g722,adpcm_g726,adpcm_g726le,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,"
    "adpcm_yamaha,pcm_alaw,pcm_mulaw,pcm_s8,pcm_u8,pcm_s16be,pcm_s16le,pcm_u16be,pcm_u16le,"
    "pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_bluray"
)

MAX_FILLED_S = 30.0  # a longer hole in the positions is no damage but a wrong position
MIN_FILLED_S = 0.02  # a shorter one is rounding
TOLERATED_S = 0.1  # of audio lost where two MP3 files were joined
MIN_GOOD = 0.5  # the share of packets that must decode, or the bytes are no audio at all
JUDGED_PACKETS = 20  # packets after which MIN_GOOD is asked for
SHORT_BY_S = 0.5  # a file that ends so much before its header's length is cut short
_OGG_STREAM = b"OggS\0\2"  # the page that a logical stream begins with
# Their headers give the true length: what is missing at the end was cut off.
_EXACT_LENGTH = frozenset(("mov", "asf", "tta", "wv", "caf", "w64", "ape", "mpc8"))
# Frames that anything may stand between: broken ones where tags or other files begin are usual.
_SELF_FRAMED = frozenset(("mp3", "aac", "loas", "ac3", "eac3"))


class ContainerReader:
    """The audio track of a file in any container that FFmpeg knows, decoded to its true end."""

    def __init__(self, file: BinaryIO, seekable: bool = True) -> None:
        """`file` is the caller's. Raises AudioFormatError if no audio can be found in it."""
        self.rate = 0
        self._av = library()
        self._input = _InputFile(file, seekable)
        self._container = self._open(self._input)
        self._stream = self._audio_stream()
        self._format = self._container.format.name
        self._is_ogg = self._format == "ogg"
        self._given_s = 0.0
        self._good = self._broken = 0  # packets
        self._damaged_at: float | None = None
        self._lost_s = 0.0
        self._first_s: float | None = None  # position of the first frame
        self._gave_up = False  # the container cannot be read any further

    @property
    def duration_s(self) -> float | None:
        """As the header has it."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is None:
            return None
        return float(self._container.duration / self._av.time_base)

    @property
    def damage(self) -> str | None:
        if self._damaged_at is not None and not self._is_tolerable():
            if self._gave_up:
                return f"is damaged {self._damaged_at:.2f} s in, and what follows was not read"
            lost = parts(self._broken)
            return f"is damaged {self._damaged_at:.2f} s in: {lost} could not be decoded"
        length_s, allowed_s = self.duration_s, self._allowed_shortness_s()
        if length_s is not None and self._given_s < length_s - allowed_s:
            return (
                f"is damaged or cut short: {self._given_s:.2f} s of {length_s:.2f} s were decoded"
            )
        return None

    def blocks(self) -> Iterator[Block]:
        """float32[n, channels] at `rate`, which may change. Silence stands for lost audio.

        Raises AudioFormatError where hardly anything can be decoded.
        """
        for packet in self._packets():
            try:
                frames = packet.decode()
            except (self._av.error.FFmpegError, ValueError):
                self._count_broken(packet)
                continue
            self._good += bool(frames)
            for frame in frames:
                yield from self._with_lost_time(frame)
        if self._input.error is not None:
            raise self._input.error
        if (self._gave_up and not self._good) or (self._broken and not self._is_believable()):
            raise AudioFormatError("hardly anything in it can be decoded")

    def close(self) -> None:
        self._container.close()

    def _open(self, source: _InputFile) -> Any:
        options = {"format_whitelist": DEMUXERS, "codec_whitelist": DECODERS}
        more: dict[str, Any] = {"buffer_size": CHUNK}
        if int(self._av.__version__.partition(".")[0]) < 19:
            more["metadata_errors"] = "ignore"  # titles need not be UTF-8; later it is the default
        for name in (None, "mp3"):
            if name and not source.rewind_if_mpeg_audio():
                break
            try:
                return self._av.open(source, "r", name, options, **more)
            except (self._av.error.FFmpegError, ValueError):
                if source.error is not None:
                    raise source.error from None
        raise AudioFormatError("no audio that edged knows was found in it")

    def _audio_stream(self) -> Any:
        streams = [each for each in self._container.streams if each.type == "audio"]
        if not streams:
            self.close()
            raise AudioFormatError("it has no audio track")
        context = streams[0].codec_context
        if context is None or context.name not in DECODERS.split(","):
            self.close()
            raise UnsupportedCodecError("an unknown codec" if context is None else context.name)
        if "flac" in context.name:
            context.options = {"err_detect": "crccheck+explode"}
        context.thread_count = 1
        return streams[0]

    def _packets(self) -> Iterator[Any]:
        position = 0  # of the last packet in the file
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (self._av.error.FFmpegError, ValueError, LookupError):
                # LookupError: the file announces another stream in its middle.
                start = self._input.find(_OGG_STREAM, position + 1) if self._is_ogg else None
                if start is None:
                    self._note_damage()
                    self._gave_up = True
                    return
                # FFmpeg does not follow a chain to a link of another rate.
                position = start
                packets = self._reopen(start)
                continue
            if packet is None:
                return
            position = max(position, packet.pos or 0)
            yield packet

    def _reopen(self, start: int) -> Iterator[Any]:
        """The packets of the file from byte `start` on."""
        self._container.close()
        self._input.begin_at(start)
        self._container = self._open(self._input)
        self._stream = self._audio_stream()
        self._first_s = None
        return cast(Iterator[Any], self._container.demux(self._stream))

    def _with_lost_time(self, frame: Any) -> Iterator[Block]:
        block = samples_of(frame)
        if reason := shape_error(frame.sample_rate, block.shape[1]):
            raise AudioFormatError(f"it {reason}")
        self.rate = frame.sample_rate
        missing_s = self._missing_s(frame)
        if missing_s:
            if self._format == "flac" or self._lost_s:
                self._note_damage()
                self._broken = max(1, self._broken)
            yield np.zeros((round(missing_s * self.rate), block.shape[1]), np.float32)
            self._given_s += missing_s
        self._given_s += len(block) / self.rate
        yield block

    def _missing_s(self, frame: Any) -> float:
        """How much audio is missing before this frame, by its position."""
        if frame.pts is None:
            return 0.0
        at_s = float(frame.pts * Fraction(frame.time_base))
        if self._first_s is None:
            self._first_s = at_s - self._given_s
        missing_s = at_s - self._first_s - self._given_s
        if abs(missing_s) > MAX_FILLED_S or missing_s < -MIN_FILLED_S:
            self._first_s = (
                at_s - self._given_s
            )  # another part of a chain, with positions of its own
            return 0.0
        return missing_s if missing_s > MIN_FILLED_S else 0.0

    def _count_broken(self, packet: Any) -> None:
        self._broken += 1
        self._note_damage()
        if packet.duration and packet.time_base:
            self._lost_s += float(packet.duration * packet.time_base)
        if self._broken >= JUDGED_PACKETS and not self._is_believable():
            raise AudioFormatError("hardly anything in it can be decoded")

    def _note_damage(self) -> None:
        if self._damaged_at is None:
            self._damaged_at = self._given_s

    def _is_believable(self) -> bool:
        """Random bytes may look like a few packets of some codec."""
        return self._good >= MIN_GOOD * (self._good + self._broken)

    def _is_tolerable(self) -> bool:
        return self._format in _SELF_FRAMED and self._lost_s <= TOLERATED_S and not self._gave_up

    def _allowed_shortness_s(self) -> float:
        """How much of the header's length may be missing before the file counts as damaged."""
        if self._format == "flac":
            return 0.01
        exact = not _EXACT_LENGTH.isdisjoint(self._format.split(","))
        return SHORT_BY_S if exact else math.inf


class _InputFile:
    """What PyAV reads from: without a name, so that the bytes alone tell the format.

    Its methods do not raise: PyAV would print the second exception on standard error.
    """

    SCANNED = 1 << 16  # bytes at the start in which an MPEG audio frame is looked for

    def __init__(self, file: BinaryIO, seekable: bool) -> None:
        self.error: OSError | None = None
        self._file = file
        if seekable:
            self._start = file.tell()
            self.seek = self._seek
            self.tell = self._tell

    def read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            self.error = error
            return b""

    def rewind_if_mpeg_audio(self) -> bool:
        """Goes to the first of two MPEG audio frames that follow each other; False: none here."""
        if not hasattr(self, "seek"):
            return False
        self._file.seek(self._start)
        head = self._file.read(self.SCANNED)
        at = head.find(b"\xff")
        while at >= 0:
            size = frame_bytes(head[at : at + 4])
            if size and frame_bytes(head[at + size : at + size + 4]):
                self._start += at
                self._file.seek(self._start)
                return True
            at = head.find(b"\xff", at + 1)
        return False

    def begin_at(self, start: int) -> None:
        """Makes byte `start` the first one."""
        self._start += start
        self._file.seek(self._start)

    def find(self, pattern: bytes, start: int) -> int | None:
        """Where `pattern` stands next at or after byte `start`; None: nowhere, or unknown."""
        if not hasattr(self, "seek"):
            return None
        self._file.seek(self._start + start)
        seen = b""
        while data := self._file.read(CHUNK):
            at = (seen + data).find(pattern)
            if at >= 0:
                return start - len(seen) + at
            seen = data[-len(pattern) + 1 :]
            start += len(data)
        return None

    def _seek(self, offset: int, whence: int = 0) -> int:
        """The new position; negative if there is no such place."""
        try:
            place = self._file.seek(offset + (self._start if whence == 0 else 0), whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL
        return place - self._start

    def _tell(self) -> int:
        return self._file.tell() - self._start
