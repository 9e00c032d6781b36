"""Ogg Opus -> blocks of audio, each as soon as its page has arrived (RFC 7845)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edged.audio.ogg import OggReader, Packet
from edged.audio.source import Block
from edged.errors import RequestError

RATE = 48_000  # of every Opus decoder


class OpusReader:
    """Ogg pages in, float32[n, channels] at 48 kHz out."""

    def __init__(self) -> None:
        self._ogg = OggReader()
        self._codec: Any = None
        self._headers = 0
        self._skip = 0  # samples of the encoder's start that are not to be heard
        self._given = 0  # samples, those skipped included
        self._from: int | None = None  # place of the first sample, told by the first page
        self._gain = np.float32(1)
        self.channels = 0  # known after the first page

    @property
    def unread(self) -> int:
        """Bytes that wait for the rest of their page, or to be decoded."""
        return self._ogg.unread

    def push(self, data: bytes) -> Iterator[Block]:
        """Decodes lazily, packet by packet. Raises RequestError for what is not Ogg Opus."""
        for packet in self._ogg.push(data):
            if self._headers == 0:
                self._open(packet.data)
                self._headers = 1
            elif self._headers == 1:
                if not packet.data.startswith(b"OpusTags"):
                    raise RequestError("the opus input lacks its comment header (OpusTags)")
                self._headers = 2
            elif packet.data:
                yield from self._decode(packet)

    def _open(self, head: bytes) -> None:
        import av  # only who sends Opus pays for it

        if len(head) < 19 or not head.startswith(b"OpusHead"):
            raise RequestError("the opus input is Ogg, but not Opus (no OpusHead)")
        self.channels, family = head[9], head[18]
        if family != 0 or self.channels not in (1, 2):
            raise RequestError(f"opus must be mono or stereo, not {self.channels} channels")
        self._skip = int.from_bytes(head[10:12], "little")
        gain_db = int.from_bytes(head[16:18], "little", signed=True) / 256
        self._gain = np.float32(10 ** (gain_db / 20))
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.options = {"request_sample_fmt": "flt"}  # not rounded to 16 bit in between
        self._codec.sample_rate = RATE
        self._codec.layout = "mono" if self.channels == 1 else "stereo"
        self._codec.open()

    def _decode(self, packet: Packet) -> Iterator[Block]:
        import av

        try:
            frames = self._codec.decode(av.Packet(packet.data))
        except av.error.FFmpegError:
            frames = []  # one broken packet is one short gap, as on a telephone line
        for frame in frames:
            block = frame.to_ndarray().reshape(-1, self.channels).astype(np.float32) * self._gain
            start = max(0, self._skip - self._given)
            stop = len(block)
            if packet.last and packet.granule is not None:  # the last packet may be longer
                stop = min(stop, packet.granule - (self._from or 0) - self._given)
            self._given += len(block)
            if start < stop:
                yield block[start:stop]
        if self._from is None and packet.granule is not None:  # FFmpeg begins at the skip, not at 0
            self._from = 0 if packet.last else max(0, packet.granule - self._given)
