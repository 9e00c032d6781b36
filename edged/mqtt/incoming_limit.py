"""Bounds the size of incoming packets before they are in memory."""

from __future__ import annotations

_PUBLISH = 0x30


class PacketTooLargeError(OSError):
    """The broker sent a packet, other than PUBLISH, that is larger than the limit."""


class IncomingLimit:
    """Filters the byte stream from the broker: a PUBLISH larger than `limit` bytes is cut.

    An MQTT 5 broker is told the limit and keeps to it. One of MQTT 3.1.1 cannot be told, and a
    single packet may have 256 MB. The reader behind the filter sees a packet of `limit` bytes
    with the beginning of the payload, answers it as usual, and the rest is discarded as it comes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._type: int | None = None
        self._length = 0
        self._shift = 0
        self._keep = 0  # bytes of the present packet still to be passed on
        self._discard = 0  # and then to be discarded

    @property
    def discarding(self) -> int:
        """How many bytes come next that are of no use."""
        return 0 if self._keep else self._discard

    def feed(self, data: bytes) -> bytes:
        """Returns what the reader may see of `data`. Raises PacketTooLargeError."""
        passed = bytearray()
        at = 0
        while at < len(data):
            if self._keep:
                part = data[at : at + self._keep]
                self._keep -= len(part)
                passed += part
                at += len(part)
            elif self._discard:
                skipped = min(self._discard, len(data) - at)
                self._discard -= skipped
                at += skipped
            else:
                passed += self._header_byte(data[at])
                at += 1
        return bytes(passed)

    def _header_byte(self, byte: int) -> bytes:
        """Takes one byte of the fixed header; returns the whole header at its end."""
        if self._type is None:
            self._type, self._length, self._shift = byte, 0, 0
            return b""
        self._length |= (byte & 0x7F) << self._shift
        self._shift += 7
        if byte & 0x80 and self._shift < 28:
            return b""
        kind, self._type = self._type, None
        if self._length > self._limit and kind & 0xF0 != _PUBLISH:
            raise PacketTooLargeError(f"a packet of {self._length} bytes")
        self._keep = min(self._length, self._limit)
        self._discard = self._length - self._keep
        return bytes([kind]) + remaining_length(self._keep)


def remaining_length(length: int) -> bytes:
    """Returns `length` as MQTT writes it: 7 bits a byte, the lowest first."""
    encoded = bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded)
