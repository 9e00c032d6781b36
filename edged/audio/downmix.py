"""Several channels to one."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged.audio.source import Block

Mono: TypeAlias = NDArray[np.float32]
_Weights: TypeAlias = NDArray[np.float64]

UNUSED_POWER = 1e-4  # a channel this far (40 dB) below the loudest is unused rather than quiet
MEMORY_S = 1.0  # time constant of the channels' powers


class Downmix:
    """Mixes channels to mono so that somebody who speaks in one channel alone keeps their level.

    The result is the mean of the channels that carry sound. Channels that cancel each other (one
    wired in reverse) are not added: the louder one is taken alone. Weights move over one block, so
    that a change does not click.
    """

    def __init__(self, rate: int, channels: int) -> None:
        """rate in Hz."""
        self._rate = rate
        self._powers = np.zeros(channels)
        self._mix_power = 0.0  # of the mean of the channels in use
        self._weights: _Weights | None = None

    def push(self, block: Block) -> Mono:
        """float32[n, channels] -> float32[n]."""
        if block.shape[1] == 1 or len(block) == 0:
            return block[:, 0]
        target = self._target_weights(block)
        if self._weights is None or np.array_equal(self._weights, target):
            self._weights = target
            return (block @ target).astype(np.float32)
        ramp = np.linspace(0.0, 1.0, len(block))
        mixed = (block @ self._weights) * (1.0 - ramp) + (block @ target) * ramp
        self._weights = target
        return mixed.astype(np.float32)

    def _target_weights(self, block: Block) -> _Weights:
        keep = float(np.exp(-len(block) / (MEMORY_S * self._rate)))
        powers = np.mean(np.square(block, dtype=np.float64), axis=0)
        self._powers = keep * self._powers + (1.0 - keep) * powers
        loudest = float(self._powers.max())
        if loudest == 0.0:
            return np.full(len(powers), 1.0 / len(powers))
        used = self._powers > UNUSED_POWER * loudest
        mean: _Weights = used.astype(np.float64) / float(used.sum())
        mix_power = float(np.mean(np.square(block @ mean)))
        self._mix_power = keep * self._mix_power + (1.0 - keep) * mix_power
        # Unrelated channels leave at least this much of the loudest in their mean.
        expected = loudest / float(used.sum()) ** 2
        if self._mix_power < 0.5 * expected:
            mean = np.zeros(len(powers))
            mean[int(self._powers.argmax())] = 1.0
        return mean
