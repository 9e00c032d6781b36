"""Ogg framing as it arrives: bytes in, packets out (RFC 3533). Decoding them is a library's job."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from edged.errors import RequestError

MAX_PACKET = 1 << 16  # bytes: 120 ms of Opus are at most 61 298 (RFC 7845, section 6)
_HEADER = struct.Struct(
    "<4sBBqIIIB"
)  # magic, version, flags, granule, serial, number, crc, segments
_CONTINUED, _LAST = 1, 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Packet:
    """`granule`: the stream's position in samples after the last packet of a page, on that packet
    alone. `last`: the stream ends with this packet."""

    data: bytes
    granule: int | None = None
    last: bool = False


class OggReader:
    """The packets of the first logical stream; pages of others are left out."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._serial: int | None = None
        self._partial = bytearray()  # of a packet that goes on in the next page

    @property
    def unread(self) -> int:
        """Bytes of pages that were not yet read."""
        return len(self._bytes)

    def push(self, data: bytes) -> Iterator[Packet]:
        """Any number of bytes -> the packets that they complete, read lazily. Raises RequestError
        where the bytes are not Ogg."""
        self._bytes += data
        while (page := self._page()) is not None:
            yield from self._packets(*page)

    def _page(self) -> tuple[int, int, bytes, bytes] | None:
        """Flags, granule, segment table and body of the next whole page of our stream."""
        while len(self._bytes) >= _HEADER.size:
            magic, version, flags, granule, serial, _, crc, count = _HEADER.unpack_from(self._bytes)
            if magic != b"OggS" or version != 0:
                raise RequestError(
                    "the opus input is not an Ogg stream (no OggS where one belongs)"
                )
            head = _HEADER.size + count
            if len(self._bytes) < head:
                return None
            table = bytes(self._bytes[_HEADER.size : head])
            size = head + sum(table)
            if len(self._bytes) < size:
                return None
            page = bytes(self._bytes[:size])
            del self._bytes[:size]
            if _crc(page[:22] + bytes(4) + page[26:]) != crc:
                raise RequestError("the opus input is damaged: a page's checksum is wrong")
            if self._serial is None:
                self._serial = serial
            if serial == self._serial:
                return flags, granule, table, page[head:]
        return None

    def _packets(self, flags: int, granule: int, table: bytes, body: bytes) -> Iterator[Packet]:
        if not flags & _CONTINUED:
            self._partial.clear()
        at, ended = 0, []
        for size in table:
            self._partial += body[at : at + size]
            at += size
            if len(self._partial) > MAX_PACKET:
                raise RequestError(
                    f"the opus input is damaged: a packet of over {MAX_PACKET} bytes"
                )
            if size < 255:
                ended.append(bytes(self._partial))
                self._partial.clear()
        for number, data in enumerate(ended, 1):
            if number < len(ended):
                yield Packet(data)
            else:
                yield Packet(data, granule if granule >= 0 else None, bool(flags & _LAST))


def _crc(page: bytes) -> int:
    """CRC-32 with the polynomial 0x04c11db7, most significant bit first, starting from 0.

    zlib's runs the other way round: reversed bits make one of the other.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
