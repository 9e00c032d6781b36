"""What every decoder of audio has in common: its interface, and its error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from edged.audio.source import Block


class AudioFormatError(Exception):
    """The bytes cannot be decoded. The message is one clause that names no file.

    Callers turn it into an InputError (files) or a RequestError (sockets).
    """


class WrongFormatError(AudioFormatError):
    """The bytes are of another format than the one that was announced."""


class UnsupportedCodecError(AudioFormatError):
    """The bytes are intact, and coded in a way that edged does not decode."""

    def __init__(self, codec: str, accepted: str = "") -> None:
        super().__init__(f"it holds {codec}" + (f"; {accepted}" if accepted else ""))


def parts(count: int) -> str:
    """A number of parts, for messages about damage."""
    return "one part" if count == 1 else f"{count} parts"


class BlockReader(Protocol):
    """Bytes of one recording or stream, in pieces of any size, to blocks of samples.

    Both methods decode lazily, so that a small piece that unpacks to much audio is never held as
    audio. They raise AudioFormatError where nothing more can be decoded.
    """

    @property
    def rate(self) -> int:
        """Hz of the block that was yielded last; 0 before the first one. It may change."""

    @property
    def damage(self) -> str | None:
        """What could not be decoded so far, as the rest of a sentence: "is damaged 1.4 s in"."""

    @property
    def seconds_per_byte(self) -> float:
        """Of audio, if it is constant and known; otherwise 0."""

    @property
    def unread(self) -> int:
        """Bytes that were pushed and wait for more."""

    def push(self, data: bytes) -> Iterator[Block]: ...

    def finish(self) -> Iterator[Block]:
        """Yields what is left when no more bytes come."""
