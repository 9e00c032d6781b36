"""Ogg framing as it arrives: bytes in, packets of one kind of stream out (RFC 3533)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from edged.audio.decoding import AudioFormatError

MAX_PACKET = 1 << 16  # bytes: 120 ms of Opus are at most 61 298 (RFC 7845, section 6)
HEADER = struct.Struct(
    "<4sBBqIIIB"
)  # magic, version, flags, granule, serial, number, crc, segments
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_MAX_PAGE = HEADER.size + 255 + 255 * 255
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class OggPacket:
    """One packet of a logical stream.

    Attributes:
        granule: the position in samples after this packet, on the last packet of a page alone.
        first: the stream begins with this packet.
        last: the stream ends with this packet.
    """

    data: bytes
    granule: int | None = None
    first: bool = False
    last: bool = False


class OggReader:
    """The packets of the logical streams that begin with `magic`, one stream after the other.

    A chained file holds several, each with a serial number of its own. Pages of other streams
    beside them are left out. A damaged page is skipped and counted.
    """

    def __init__(self, magic: bytes) -> None:
        self.damaged_pages = 0
        self.other_streams = 0  # links of a chain that begin with something else
        self._magic = magic
        self._bytes = bytearray()
        self._serial: int | None = None
        self._has_data = False  # the stream has gone beyond its first page
        self._partial = bytearray()  # of a packet that continues on the next page
        self._in_sync = True

    @property
    def unread(self) -> int:
        """Bytes of pages that are not complete yet."""
        return len(self._bytes)

    def push(self, data: bytes) -> Iterator[OggPacket]:
        """Any number of bytes -> the packets that they complete, read lazily.

        Raises AudioFormatError if the first page is not Ogg, or no stream begins with `magic`.
        """
        self._bytes += data
        while (page := self._page()) is not None:
            yield from self._packets(*page)

    def _page(self) -> tuple[int, int, bytes, bytes] | None:
        """Flags, granule, segment table and body of the next whole page of our stream."""
        while self._synchronise():
            _, _, flags, granule, serial, _, crc, count = HEADER.unpack_from(self._bytes)
            head = HEADER.size + count
            if len(self._bytes) < head:
                return None
            table = bytes(self._bytes[HEADER.size : head])
            size = head + sum(table)
            if len(self._bytes) < size:
                return None
            page = bytes(self._bytes[:size])
            if page_checksum(page) != crc:
                self._lose_sync()
                continue
            del self._bytes[:size]
            self._in_sync = True
            body = page[head:]
            if flags & _FIRST:
                self._begin_stream(serial, body)
            elif self._serial is None:
                raise AudioFormatError(f"it is Ogg, but not {_name(self._magic)}")
            if serial == self._serial:
                self._has_data = self._has_data or not flags & _FIRST
                return flags, granule, table, body
        return None

    def _synchronise(self) -> bool:
        """Whether a page header stands at the start of what was read; looks for one if not."""
        while len(self._bytes) >= HEADER.size:
            if self._bytes.startswith(b"OggS\0"):
                return True
            if self._serial is None:
                raise AudioFormatError("it is not an Ogg stream (no OggS where a page begins)")
            self._lose_sync()
        return False

    def _lose_sync(self) -> None:
        """Goes on to the next place where a page may begin."""
        if self._in_sync:
            if self._serial is None:
                raise AudioFormatError("it is damaged: the checksum of its first page is wrong")
            self.damaged_pages += 1
            self._partial.clear()
        self._in_sync = False
        found = self._bytes.find(b"OggS", 1)
        del self._bytes[: found if found >= 0 else max(1, len(self._bytes) - 3)]

    def _begin_stream(self, serial: int, body: bytes) -> None:
        """All streams that run beside each other begin before any of them has data."""
        if self._serial is not None and not self._has_data:
            return
        if body.startswith(self._magic):
            self._serial = serial
            self._has_data = False
            self._partial.clear()
        elif self._has_data:
            self.other_streams += 1

    def _packets(self, flags: int, granule: int, table: bytes, body: bytes) -> Iterator[OggPacket]:
        if not flags & _CONTINUED:
            self._partial.clear()
        elif not self._partial:  # its beginning was lost with another page
            table, body = _without_first_packet(table, body)
        at, ended = 0, []
        for size in table:
            self._partial += body[at : at + size]
            at += size
            if len(self._partial) > MAX_PACKET:
                raise AudioFormatError(f"it is damaged: a packet of more than {MAX_PACKET} bytes")
            if size < 255:
                ended.append(bytes(self._partial))
                self._partial.clear()
        for number, data in enumerate(ended, 1):
            if number < len(ended):
                yield OggPacket(data, first=bool(flags & _FIRST) and number == 1)
            else:
                yield OggPacket(
                    data,
                    granule if granule >= 0 else None,
                    bool(flags & _FIRST) and number == 1,
                    bool(flags & _LAST),
                )


def page_checksum(page: bytes) -> int:
    """The CRC-32 of a whole page: polynomial 0x04c11db7, most significant bit first, from 0.

    zlib's runs the other way round, so the bits of input and result are reversed.
    """
    blank = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def last_granule(tail: bytes) -> int | None:
    """The position that the last page within `tail` (the end of a file) carries."""
    at = tail.rfind(b"OggS\0")
    if at < 0 or at + HEADER.size > len(tail):
        return None
    granule = int(HEADER.unpack_from(tail, at)[3])
    return granule if granule >= 0 else None


def _without_first_packet(table: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A page without the end of the packet that it begins with."""
    for number, size in enumerate(table, 1):
        if size < 255:
            return table[number:], body[sum(table[:number]) :]
    return b"", b""


def _name(magic: bytes) -> str:
    return magic.decode("ascii").removesuffix("Head")
