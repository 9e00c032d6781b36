"""Level, peak and clipping of the last second, in dBFS.

In dBFS here, 0 dB is a full-scale square wave, so a full-scale sine reads -3.0 dB RMS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR_DBFS = -120.0  # of digital silence; 16 bits end at -96
CLIPPING = 32_000 / 32_768  # converters seldom clip exactly at full scale


def to_db(amplitude: float) -> float:
    """An amplitude (1.0 is full scale) in dBFS, at least FLOOR_DBFS."""
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS


def from_db(decibels: float) -> float:
    """The factor that so many decibels are."""
    return float(10 ** (decibels / 20))


@dataclass(frozen=True, slots=True)
class Level:
    """One window: RMS and peak in dBFS, and the share of clipped samples (0 to 1)."""

    rms_dbfs: float
    peak_dbfs: float
    clipped: float

    @property
    def clipping(self) -> bool:
        """Whether more than one sample in a thousand is clipped, which a listener hears."""
        return self.clipped > 0.001


class LevelMeter:
    """Measures windows of a stream. One thread calls `push`; any may read `level`.

    `level` is None until the first window is full.
    """

    def __init__(self, rate: int, window_s: float = 1.0) -> None:
        self._window = max(1, round(rate * window_s))
        self._squares = 0.0
        self._peak = 0.0
        self._clipped = 0
        self._count = 0
        self.level: Level | None = None

    def push(self, samples: NDArray[np.float32]) -> None:
        """Adds float32[n] in -1..1, before edged's gain."""
        if len(samples) == 0:
            return
        loud = np.abs(samples)
        self._squares += float(np.dot(samples, samples))
        self._peak = max(self._peak, float(loud.max()))
        self._clipped += int(np.count_nonzero(loud >= CLIPPING))
        self._count += len(samples)
        if self._count >= self._window:
            self._close_window()

    def _close_window(self) -> None:
        rms = math.sqrt(self._squares / self._count)
        self.level = Level(to_db(rms), to_db(self._peak), self._clipped / self._count)
        self._squares, self._peak, self._clipped, self._count = 0.0, 0.0, 0, 0
