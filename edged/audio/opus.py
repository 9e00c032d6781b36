"""Ogg Opus -> blocks of audio, each as soon as its page has arrived (RFC 7845)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edged.audio.decoding import AudioFormatError, parts
from edged.audio.ffmpeg import PacketDecoder
from edged.audio.ogg import OggPacket, OggReader
from edged.audio.source import Block

RATE = 48_000  # of every Opus decoder
MAGIC = b"OpusHead"
_MAX_HELD = 1024  # packets; a page has at most 255
MAX_FILLED_S = 30.0  # a longer hole in the positions is no lost page but a wrong position


class OpusReader:
    """A `BlockReader` for Ogg Opus: float32[n, channels] at 48 kHz, link after link of a chain."""

    def __init__(self) -> None:
        self.rate = RATE
        self.seconds_per_byte = 0.0
        self._ogg = OggReader(MAGIC)
        self._link: _ChainLink | None = None
        self._given_s = 0.0  # of the links before
        self._damaged_at: float | None = None
        self._received = False

    @property
    def unread(self) -> int:
        return self._ogg.unread

    @property
    def damage(self) -> str | None:
        if self._damaged_at is not None:
            return (
                f"is damaged {self._damaged_at:.2f} s in: "
                f"{parts(self._ogg.damaged_pages)} could not be decoded"
            )
        if self._ogg.other_streams:
            return "holds parts that are not Opus, which were left out"
        return None

    def push(self, data: bytes) -> Iterator[Block]:
        self._received = self._received or bool(data)
        damaged = self._ogg.damaged_pages
        for packet in self._ogg.push(data):
            lost = self._ogg.damaged_pages > damaged
            damaged = self._ogg.damaged_pages
            if lost and self._damaged_at is None:
                self._damaged_at = self._position_s()
            if packet.first:
                self._given_s = self._position_s()
                self._link = _ChainLink(packet.data)
            elif self._link is not None:
                yield from self._link.push(packet, lost)
        if self._ogg.damaged_pages and self._damaged_at is None:
            self._damaged_at = self._position_s()

    def finish(self) -> Iterator[Block]:
        if self._link is not None:
            yield from self._link.finish()
        if self._received and (self._link is None or not self._link.given):
            raise AudioFormatError("it ends before any audio")

    def _position_s(self) -> float:
        return self._given_s + (self._link.given / RATE if self._link else 0.0)


class _ChainLink:
    """One logical stream of a chain."""

    def __init__(self, head: bytes) -> None:
        if len(head) < 19:
            raise AudioFormatError("it is damaged: its Opus header is too short")
        self.channels, family = head[9], head[18]
        if family != 0 or self.channels not in (1, 2):
            raise AudioFormatError(f"it has {self.channels} channels: mono and stereo are accepted")
        self.given = 0  # samples, those skipped included
        self._skip = int.from_bytes(head[10:12], "little")  # samples before the first to be heard
        gain_db = int.from_bytes(head[16:18], "little", signed=True) / 256
        self._gain = np.float32(10 ** (gain_db / 20))
        self._decoder = PacketDecoder("libopus", RATE, self.channels)
        self._has_tags = False
        self._first_position: int | None = None  # of the first sample, told by the first page
        self._held: list[OggPacket] | None = None  # behind lost pages, until their place is known

    def push(self, packet: OggPacket, lost: bool) -> Iterator[Block]:
        """`lost`: pages before this packet are missing."""
        if not self._has_tags:
            if not packet.data.startswith(b"OpusTags"):
                raise AudioFormatError("it lacks its comment header (OpusTags)")
            self._has_tags = True
            return
        if lost and self._held is None:
            self._held = []
        if self._held is None:
            yield from self._decode(packet)
            return
        self._held.append(packet)
        if packet.granule is not None or len(self._held) > _MAX_HELD:
            held, self._held = self._held, None
            if packet.granule is not None:
                lasting = sum(packet_samples(each.data) for each in held)
                first = self._first_position or 0
                yield from self._fill(packet.granule - first - self.given - lasting)
            for each in held:
                yield from self._decode(each)

    def finish(self) -> Iterator[Block]:
        held, self._held = self._held or [], None
        for packet in held:
            yield from self._decode(packet)

    def _decode(self, packet: OggPacket) -> Iterator[Block]:
        if not packet.data:
            return
        # A broken packet is one short gap, as on a telephone line.
        for block in self._decoder.decode(packet.data):
            start = max(0, self._skip - self.given)
            stop = len(block)
            if packet.last and packet.granule is not None:  # the last packet may be longer
                end = packet.granule - (self._first_position or 0)
                stop = min(stop, end - self.given)
            self.given += len(block)
            if start < stop:
                yield block[start:stop] * self._gain
        if self._first_position is None and packet.granule is not None:
            # FFmpeg's encoder begins at the skip, not at 0.
            self._first_position = 0 if packet.last else max(0, packet.granule - self.given)

    def _fill(self, missing: int) -> Iterator[Block]:
        """Silence for lost pages, so that what follows keeps its time."""
        if 0 < missing <= MAX_FILLED_S * RATE:
            self.given += missing
            yield np.zeros((missing, self.channels), np.float32)


def packet_samples(packet: bytes) -> int:
    """How many samples at 48 kHz an Opus packet holds (RFC 6716, section 3.1)."""
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        size = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        size = (480, 960)[config & 1]
    else:
        size = (120, 240, 480, 960)[config & 3]
    if code < 3:
        return size * (1, 2, 2)[code]
    return size * (packet[1] & 63 if len(packet) > 1 else 0)
