"""Audio files as sources: whatever libsndfile reads, in short blocks.

A file is recognised by its first bytes, and only the formats of ACCEPTED reach libsndfile: its
other parsers are no use to speech. Nothing in a header is believed that would cost memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile

from edged.audio.pcm import RawAudio, RawFormat, check_shape
from edged.audio.resample import QUIET_PEAK, FrameMaker
from edged.audio.source import Block, Frame, Source
from edged.errors import InputError

ACCEPTED = "wav, flac, ogg, opus, mp3, aiff, au, rf64, w64, caf, or raw PCM with --input-format"
UNSUPPORTED = ("AAC", "MP4", "WebM")  # libsndfile has no decoder for them
STDIN = "-"

BLOCK_S = 0.08  # short: damage costs the block that it is in
LISTEN_S = 30.0  # how far ahead a file's level is looked at; speech at once ends the look
HEAD_BYTES = 16


def display_name(path: str) -> str:
    """A file's name for people and JSON, who take text alone; a name may be any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def open_audio(path: str, raw: RawFormat | None = None) -> Source:
    """The file at `path`, or raw PCM on standard input for `-`.

    `raw` says that there is no header, and what the bytes are. Raises InputError: one sentence
    with the file, what is wrong, and what is accepted.
    """
    if path == STDIN:
        return _standard_input(raw or RawFormat())
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise InputError(f"{display_name(path)} is a directory: name the audio files in it")
    if raw is not None:
        size = os.stat(path).st_size if stat.S_ISREG(mode) else None
        return RawAudio(display_name(path), _open(path), raw, size)
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{display_name(path)} is not a regular file: say with --input-format what raw audio "
            "it gives"
        )
    return AudioFile(path)


class AudioFile:
    """A file with a header, read by libsndfile."""

    def __init__(self, path: str) -> None:
        """Raises InputError for a file that cannot be decoded."""
        self.name = display_name(path)
        self._path = os.fsencode(path)  # libsndfile's binding takes no other text than UTF-8
        self.bad_samples = 0
        self._kind = kind = _recognise(path)
        try:
            with _mute_mpg123(kind):
                self._file = soundfile.SoundFile(self._path)
        except (soundfile.SoundFileError, OSError) as problem:
            raise InputError(
                f"{self.name} is not a readable {kind} file: {_reason(problem)} "
                f"(accepted: {ACCEPTED})"
            ) from problem
        try:
            check_shape(self.name, self._file.samplerate, self._file.channels)
        except InputError:
            self.close()
            raise

    @property
    def duration_s(self) -> float | None:
        frames = int(self._file.frames)
        # A file of unknown length carries the largest number that libsndfile has.
        return frames / self._file.samplerate if 0 <= frames < 2**40 else None

    def frames(self) -> Iterator[Frame]:
        """Raises InputError at damage, after all frames that stand before it."""
        rate, channels = self._file.samplerate, self._file.channels
        buffer = np.empty((round(BLOCK_S * rate), channels), np.float32)
        maker = FrameMaker(rate, channels, self._is_quiet(buffer))
        good = 0
        damage: soundfile.LibsndfileError | None = None
        try:
            while len(block := self._read(buffer)):
                good += len(block)
                yield from maker.push(block)
        except soundfile.LibsndfileError as problem:
            damage = problem
        yield from maker.finish()
        self.bad_samples = maker.bad_samples
        if damage is not None:
            raise InputError(
                f"{self.name} is damaged {good / rate:.2f} s in, and what follows was not read: "
                f"{_reason(damage)}"
            ) from damage

    def close(self) -> None:
        self._file.close()

    def _is_quiet(self, buffer: Block) -> bool:
        """Whether nothing in the first LISTEN_S is louder than QUIET_PEAK, though not silent."""
        peak = 0.0
        try:  # opened anew: libsndfile's seek(0) in GSM loses half a second
            with _mute_mpg123(self._kind), soundfile.SoundFile(self._path) as ahead:
                for _ in range(round(LISTEN_S / BLOCK_S)):
                    block = ahead.read(out=buffer)
                    if not len(block) or peak > QUIET_PEAK:
                        break
                    peak = max(peak, float(np.nan_to_num(np.abs(block)).max()))
        except (soundfile.LibsndfileError, OSError):  # reading will meet it again, and tell
            return False
        return 0.0 < peak <= QUIET_PEAK

    def _read(self, buffer: Block) -> Block:
        with _mute_mpg123(self._kind):
            return cast(Block, self._file.read(out=buffer))


def _standard_input(raw: RawFormat) -> Source:
    if sys.stdin is None or sys.stdin.isatty():  # None: it was closed by the caller
        raise InputError("standard input is no pipe: send raw PCM into it, or name a file")
    stream = sys.stdin.buffer
    if isinstance(stream, io.BufferedReader):
        try:
            kind = _kind(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
        except OSError as problem:  # such as `0>file`, which opens it for writing
            raise InputError(f"standard input cannot be read: {_strerror(problem)}") from problem
        if kind is not None and kind not in ("MP3", "AAC"):  # noise may look like these
            raise InputError(
                f"standard input holds a {kind} file, but `-` takes raw PCM (24 kHz s16 mono, or "
                "what --input-format, --rate and --channels say): give the file by its name"
            )
    return RawAudio("standard input", cast(BinaryIO, stream), raw)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError) as problem:
        raise InputError(
            f"{display_name(path)} cannot be opened: {_strerror(problem)}"
        ) from problem


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as problem:
        raise InputError(
            f"{display_name(path)} cannot be opened: {_strerror(problem)}"
        ) from problem


def _recognise(path: str) -> str:
    """The kind of file. Raises InputError where there is no decoder for it."""
    with _open(path) as file:
        head = file.read(HEAD_BYTES)
    kind = _kind(head)
    name = display_name(path)
    if not head:
        raise InputError(f"{name} is empty: zero bytes (accepted: {ACCEPTED})")
    if kind is None:
        raise InputError(f"{name} is not an audio file that edged knows (accepted: {ACCEPTED})")
    if kind in UNSUPPORTED:
        raise InputError(
            f"{name} is {kind} audio, which is not supported; convert it with "
            f"`ffmpeg -i {Path(name).name} out.wav` (accepted: {ACCEPTED})"
        )
    return kind


def _kind(head: bytes) -> str | None:
    """The container, from the first HEAD_BYTES; None: unknown."""
    match head[:4]:
        case b"RIFF" | b"RIFX" | b"RF64":
            return "WAV" if head[8:12] == b"WAVE" else None
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
            return "WebM"
    if head[4:8] == b"ftyp":
        return "MP4"
    if head[:3] == b"ID3":
        return "MP3"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # The layer bits of an MPEG audio frame are 00 in AAC alone (ISO/IEC 13818-7, ADTS).
        return "AAC" if head[1] & 0x06 == 0 else "MP3"
    return None


def _reason(problem: Exception) -> str:
    """libsndfile's own words, without the path and the full stop."""
    text = str(getattr(problem, "error_string", problem))
    if "regular file" in text:  # what libsndfile says of an MP3 without one good frame
        return "no audio was found in it"
    return text.removeprefix("Error :").strip().rstrip(".") or "it cannot be decoded"


def _strerror(problem: Exception) -> str:
    return (getattr(problem, "strerror", None) or str(problem)).lower()


@contextlib.contextmanager
def _mute_mpg123(kind: str) -> Iterator[None]:
    """libmpg123 writes its warnings about a broken MP3 straight to file descriptor 2."""
    if kind != "MP3":
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
