"""Corrections of a recording that a voice detector would take for silence: offset and level."""

from __future__ import annotations

import numpy as np

from edged.audio.downmix import Mono

MEMORY_S = 1.0  # time constant of the offset
MIN_OFFSET = 0.01  # of full scale (-40 dB): a smaller one does no harm
QUIET_PEAK = 0.01  # of full scale: peaks are raised to this
MAX_GAIN = 10.0  # 20 dB
PEAK_MEMORY_S = 10.0  # time constant of the peak


class OffsetRemover:
    """Removes a constant offset from mono audio: with one, the voice detector hears nothing.

    The offset is followed slowly and subtracted in ramps, so that nothing clicks. Samples with an
    offset below MIN_OFFSET are not changed.
    """

    def __init__(self, rate: int) -> None:
        """rate in Hz."""
        self._rate = rate
        self._mean: float | None = None
        self._subtracted = 0.0

    def push(self, mono: Mono) -> Mono:
        """float32[n] -> float32[n]."""
        if not len(mono):
            return mono
        block_mean = float(mono.mean(dtype=np.float64))
        if self._mean is None:
            self._mean = block_mean
            self._subtracted = self._target()
        keep = float(np.exp(-len(mono) / (MEMORY_S * self._rate)))
        self._mean = keep * self._mean + (1.0 - keep) * block_mean
        before, self._subtracted = self._subtracted, self._target()
        if before == self._subtracted == 0.0:
            return mono
        return mono - np.linspace(before, self._subtracted, len(mono), dtype=np.float32)

    def _target(self) -> float:
        mean = self._mean or 0.0
        return mean if abs(mean) > MIN_OFFSET else 0.0


class QuietGain:
    """Raises a recording that is so quiet that the voice detector takes it for silence.

    The peaks of the last seconds are raised to QUIET_PEAK, by MAX_GAIN at most; anything louder
    passes unchanged. The gain falls at once and rises slowly.
    """

    def __init__(self, rate: int) -> None:
        """rate in Hz."""
        self._rate = rate
        self._peak = 0.0
        self._gain = 1.0

    def push(self, mono: Mono) -> Mono:
        """float32[n] -> float32[n]."""
        if not len(mono):
            return mono
        forget = float(np.exp(-len(mono) / (PEAK_MEMORY_S * self._rate)))
        self._peak = max(float(np.abs(mono).max()), self._peak * forget)
        before = self._gain
        self._gain = min(MAX_GAIN, max(1.0, QUIET_PEAK / max(self._peak, 1e-9)))
        if self._gain <= before:
            return mono if self._gain == 1.0 else mono * np.float32(self._gain)
        return mono * np.linspace(before, self._gain, len(mono), dtype=np.float32)
