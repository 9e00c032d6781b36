"""A WAV header as it arrives, with sizes that a streaming writer could not know."""

from __future__ import annotations

import struct

from edged.audio.pcm import RawFormat
from edged.errors import InputError, RequestError

ACCEPTED = "16, 24 or 32 bit PCM"
_UNKNOWN = (0, 0xFFFFFFFF)  # what writers put for a size they do not know
_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_ENCODINGS = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16",
    (_PCM, 24): "s24",
    (_PCM, 32): "s32",
    (_FLOAT, 32): "f32",
    (_ALAW, 8): "alaw",
    (_ULAW, 8): "ulaw",
}
_LONGEST_FORMAT = 1024  # bytes of the `fmt ` chunk; 40 are usual


class WavHeader:
    """Takes bytes until `raw` is known; `left` are the bytes of audio to come, None: unknown."""

    def __init__(self) -> None:
        self.raw: RawFormat | None = None
        self.left: int | None = None
        self._bytes = bytearray()
        self._skip = 0  # of a chunk that is of no use to us
        self._begun = False
        self._format: RawFormat | None = None

    def push(self, data: bytes) -> bytes:
        """-> the bytes of audio behind the header. Raises RequestError for what is not WAV."""
        self._bytes += data
        if not self._begun and len(self._bytes) >= 12:
            head = bytes(self._bytes[:12])
            if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
                raise RequestError(
                    "the audio is not WAV, which is the default: give its input_format in `setup`"
                )
            del self._bytes[:12]
            self._begun = True
        while self._begun and self.raw is None and self._chunk():
            pass
        if self.raw is None:
            return b""
        audio = bytes(self._bytes)
        self._bytes.clear()
        return audio

    def _chunk(self) -> bool:
        """One step through the chunks; False: more bytes are needed."""
        if self._skip:
            skipped = min(self._skip, len(self._bytes))
            del self._bytes[:skipped]
            self._skip -= skipped
            return not self._skip
        if len(self._bytes) < 8:
            return False
        name, size = struct.unpack_from("<4sI", self._bytes)
        if name == b"data":
            if self._format is None:
                raise RequestError("the WAV header has no format before its data")
            del self._bytes[:8]
            self.raw = self._format
            self.left = None if size in _UNKNOWN else size
            return True
        if name != b"fmt ":
            del self._bytes[:8]
            self._skip = size + size % 2
            return True
        if not 16 <= size <= _LONGEST_FORMAT:
            raise RequestError("the WAV header is damaged: its format has an impossible size")
        if len(self._bytes) < 8 + size:
            return False
        self._format = _format(bytes(self._bytes[8 : 8 + size]))
        del self._bytes[:8]
        self._skip = size + size % 2
        return True


def _format(chunk: bytes) -> RawFormat:
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        code = struct.unpack_from("<H", chunk, 24)[0]
    encoding = _ENCODINGS.get((code, bits))
    if encoding is None:
        raise RequestError(f"the WAV holds format {code} with {bits} bit: {ACCEPTED} is accepted")
    try:
        return RawFormat(encoding, rate, channels)
    except InputError as problem:
        raise RequestError(str(problem)) from None
