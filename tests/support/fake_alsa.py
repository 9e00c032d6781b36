"""A sound card that misbehaves on command, in the place of libasound.

Only for what no real device here can be made to do: an overrun, a device that lacks what is
asked for, one that hangs, is busy, or goes in the middle of a word.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import alsaaudio
import numpy as np
import pytest

FORMATS = {
    getattr(alsaaudio, n): n.removeprefix("PCM_FORMAT_")
    for n in dir(alsaaudio)
    if n.startswith("PCM_FORMAT_")
}


def ramp(first: int, count: int) -> np.ndarray:
    """Sample n is n % 20000 + 1: a sample tells when it was captured."""
    return (np.arange(first, first + count) % 20_000 + 1).astype(np.int16)


class FakeCard:
    """`FakeCard().install(monkeypatch)`: every PCM opened from now on is this card's."""

    def __init__(
        self,
        rate: int | None = None,
        channels: int | None = None,
        formats: tuple[str, ...] = ("S16_LE",),
        sound: Callable[[int, int], np.ndarray] = ramp,
    ) -> None:
        """None: whatever is asked for. `sound(first, count)` int16[count] of the first channel."""
        self.rate, self.channels, self.formats, self.sound = rate, channels, formats, sound
        self.problem: str | None = None  # what every call fails with, as libasound words it
        self.only: str | None = None  # the one name that can record
        self.hanging = False
        self.lost_s = 0.0  # the next read is an overrun that loses so much
        self.overrunning = False  # every read is an overrun
        self.paced = True  # False: there is always more to read, as with ALSA's `null`
        self.read_most = 10**9  # frames a read gives at most
        self.opened: list[FakePcm] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeCard:
        monkeypatch.setattr(alsaaudio, "PCM", lambda **wish: FakePcm(self, wish))
        return self

    @property
    def open_now(self) -> int:
        return sum(pcm.is_open for pcm in self.opened)


class FakePcm:
    def __init__(self, card: FakeCard, wish: dict[str, Any]) -> None:
        self.card, self.device = card, wish["device"]
        self._check()
        assert wish["mode"] == alsaaudio.PCM_NONBLOCK
        self.wish = wish
        self.rate = card.rate or wish["rate"]
        self.channels = card.channels or wish["channels"]
        asked = FORMATS[wish["format"]]
        self.format = asked if asked in card.formats else card.formats[0]
        self.period: int = wish["periodsize"]
        self.buffer = wish["periodsize"] * wish["periods"]
        self.started: float | None = None
        self.given = 0
        self.is_open = True
        self._fd = os.eventfd(1)  # always ready, like the worst of plugins
        card.opened.append(self)

    def info(self) -> dict[str, Any]:
        assert self.is_open, "info() on a closed PCM aborts the process"
        return {
            "rate": self.rate,
            "channels": self.channels,
            "format_name": self.format,
            "period_size": self.period,
            "buffer_size": self.buffer,
        }

    def polldescriptors(self) -> list[tuple[int, int]]:
        return [(self._fd, 1)]

    def polldescriptors_revents(self, ready: list[tuple[int, int]]) -> int:
        assert self.is_open, "polldescriptors_revents() on a closed PCM aborts the process"
        return ready[0][1]

    def read(self) -> tuple[int, bytes]:
        self._check()
        now = time.monotonic()
        if self.started is None:
            self.started = now
        if self.card.lost_s:  # an overrun: what was captured is gone, the stream begins anew
            self.given += round(self.card.lost_s * self.rate)
            self.card.lost_s = 0.0
            return -32, b""
        if self.card.overrunning:
            return -32, b""
        if self.card.hanging:
            return 0, b""
        count = min(self._there(now), self.card.read_most, self.period)
        if count <= 0:
            return 0, b""
        sound = self.card.sound(self.given, count)
        self.given += count
        return count, self._encode(sound)

    def avail(self) -> int:
        return max(0, self._there(time.monotonic()))

    def close(self) -> None:
        if self.is_open:
            os.close(self._fd)
        self.is_open = False

    def _there(self, now: float) -> int:
        """Whole periods only, as many a USB card counts."""
        if not self.card.paced:
            return self.period
        captured = int((now - (self.started or now)) * self.rate)
        return captured // self.period * self.period - self.given

    def _encode(self, sound: np.ndarray) -> bytes:
        wide = np.repeat(sound, self.channels)
        if self.format == "S32_LE":
            return (wide.astype("<i4") << 16).tobytes()
        return wide.astype("<i2").tobytes()

    def _check(self) -> None:
        if self.card.only and self.device != self.card.only:
            raise alsaaudio.ALSAAudioError(f"No such file or directory [{self.device}]")
        if self.card.problem:
            raise alsaaudio.ALSAAudioError(f"{self.card.problem} [{self.device}]")
