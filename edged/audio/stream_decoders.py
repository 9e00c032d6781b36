"""The API's `input_format`: bytes of any chunk size in, the session's frames out.

The readers are those of files (files.py): the same audio gives the same frames whichever way it
comes.
"""

from __future__ import annotations

from collections.abc import Iterator

from edged.audio.decoding import AudioFormatError, BlockReader, WrongFormatError
from edged.audio.frame_maker import FrameMaker
from edged.audio.opus import OpusReader
from edged.audio.pcm import PcmReader, RawFormat
from edged.audio.source import Block, Frame
from edged.audio.wav import WavReader
from edged.errors import RequestError

PCM_RATES = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)
RAW = {f"pcm_{rate}": RawFormat("s16", rate) for rate in PCM_RATES} | {
    "pcm": RawFormat("s16"),
    "ulaw_8000": RawFormat("ulaw", 8000),
    "mulaw_8000": RawFormat("ulaw", 8000),
    "alaw_8000": RawFormat("alaw", 8000),
}
_GIVE_FORMAT = ", which is the default: give its input_format in `setup`"
INPUT_FORMATS = ("wav", "opus", *sorted(RAW))


class StreamDecoder:
    """Decodes one stream. Both methods decode lazily and raise RequestError."""

    def __init__(
        self, input_format: str, whole: bool = False, reader: BlockReader | None = None
    ) -> None:
        """`input_format` is one of INPUT_FORMATS, or any name if there is a `reader`.

        `whole`: nobody waits for the first step before all audio has come, so that a recording
        which is far too quiet can be raised, as `edged transcribe` does.
        """
        self._format = input_format
        self._reader = reader or _reader(input_format)
        self._maker = FrameMaker(raise_quiet=whole)
        self._received = 0  # bytes
        self._decoded_s = 0.0

    @property
    def seconds_per_byte(self) -> float:
        """Of audio, as far as it is known: 0 before that."""
        if self._reader.seconds_per_byte:
            return self._reader.seconds_per_byte
        return self._decoded_s / max(1, self._received - self._reader.unread)

    def push(self, data: bytes) -> Iterator[Frame]:
        self._received += len(data)
        yield from self._frames(self._reader.push(data))

    def finish(self) -> Iterator[Frame]:
        """Yields what is left, padded with silence to a whole frame.

        Raises RequestError, after that, if something in the stream could not be decoded.
        """
        if not self._received:
            return
        yield from self._frames(self._reader.finish())
        yield from self._maker.finish()
        if self._reader.damage:
            raise RequestError(f"the {self._format} input {self._reader.damage}")

    def _frames(self, blocks: Iterator[Block]) -> Iterator[Frame]:
        try:
            for block in blocks:
                self._decoded_s += len(block) / self._reader.rate
                yield from self._maker.push(block, self._reader.rate)
        except AudioFormatError as error:
            is_default = self._format == "wav" and isinstance(error, WrongFormatError)
            hint = _GIVE_FORMAT if is_default else ""
            raise RequestError(
                f"the {self._format} input cannot be decoded: {error}{hint}"
            ) from error


def decoder(input_format: object, whole: bool = False) -> StreamDecoder:
    """A decoder for what a client names. Raises RequestError that lists what is allowed."""
    if isinstance(input_format, str) and input_format in INPUT_FORMATS:
        return StreamDecoder(input_format, whole)
    raise RequestError(
        f"input_format must be one of {', '.join(INPUT_FORMATS)}, not {input_format!r:.60}"
    )


def _reader(input_format: str) -> BlockReader:
    if input_format == "wav":
        return WavReader()
    if input_format == "opus":
        return OpusReader()
    return PcmReader(RAW[input_format])
