"""Any rate, any channels, float -> the session's frames: 24 kHz, mono, int16[1920].

Everything streams: memory does not grow with the audio.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.audio.source import Block, Frame

Mono: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = NDArray[np.float64]

# A channel this far below the loudest one (40 dB) is unused rather than quiet.
UNUSED_POWER = 1e-4
# How long loudness and offset are remembered.
MEMORY_S = 1.0
LEAST_OFFSET = 0.01  # of full scale: -40 dB
QUIET_PEAK = 0.01
MOST_GAIN = 10.0  # 20 dB
PEAK_MEMORY_S = 10.0


class Downmix:
    """Channels -> mono, so that nobody who speaks in one channel alone is lost.

    The mean of the channels that carry sound: speech in the left channel only keeps its level.
    Channels that cancel each other (one wired in reverse) are not added up: the louder one is
    taken alone. Weights move over one block, so a change does not click.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._powers = np.zeros(channels)
        self._mix_power = 0.0  # of the mean of the channels in use
        self._weights: Weights | None = None

    def push(self, block: Block) -> Mono:
        """float32[n, channels] -> float32[n]."""
        if block.shape[1] == 1 or len(block) == 0:
            return block[:, 0]
        target = self._choose(block)
        if self._weights is None or np.array_equal(self._weights, target):
            self._weights = target
            return (block @ target).astype(np.float32)
        ramp = np.linspace(0.0, 1.0, len(block))
        mixed = (block @ self._weights) * (1.0 - ramp) + (block @ target) * ramp
        self._weights = target
        return mixed.astype(np.float32)

    def _choose(self, block: Block) -> Weights:
        keep = float(np.exp(-len(block) / (MEMORY_S * self._rate)))
        powers = np.mean(np.square(block, dtype=np.float64), axis=0)
        self._powers = keep * self._powers + (1.0 - keep) * powers
        loudest = float(self._powers.max())
        if loudest == 0.0:
            return np.full(len(powers), 1.0 / len(powers))
        used = self._powers > UNUSED_POWER * loudest
        mean: Weights = used.astype(np.float64) / float(used.sum())
        mix_power = float(np.mean(np.square(block @ mean)))
        self._mix_power = keep * self._mix_power + (1.0 - keep) * mix_power
        # Unrelated channels leave at least this much of the loudest in their mean.
        expected = loudest / float(used.sum()) ** 2
        if self._mix_power < 0.5 * expected:
            mean = np.zeros(len(powers))
            mean[int(self._powers.argmax())] = 1.0
        return mean


class OffsetRemover:
    """Takes a constant offset out of mono audio: with one, a voice detector hears nothing.

    The offset is followed slowly and taken away in ramps, so that nothing clicks. One below
    LEAST_OFFSET does no harm, and the samples stay as they are.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._mean: float | None = None
        self._taken = 0.0

    def push(self, mono: Mono) -> Mono:
        """float32[n] -> float32[n]."""
        if not len(mono):
            return mono
        block_mean = float(mono.mean(dtype=np.float64))
        if self._mean is None:
            self._mean = block_mean
            self._taken = self._target()
        keep = float(np.exp(-len(mono) / (MEMORY_S * self._rate)))
        self._mean = keep * self._mean + (1.0 - keep) * block_mean
        before, self._taken = self._taken, self._target()
        if before == self._taken == 0.0:
            return mono
        return mono - np.linspace(before, self._taken, len(mono), dtype=np.float32)

    def _target(self) -> float:
        mean = self._mean or 0.0
        return mean if abs(mean) > LEAST_OFFSET else 0.0


class QuietGain:
    """Raises a recording that is so quiet that a voice detector takes it for silence.

    Its peaks of the last seconds are lifted to QUIET_PEAK, by MOST_GAIN at most; anything louder
    passes as it is. The gain falls at once and rises slowly.
    """

    def __init__(self, rate: int) -> None:
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
        self._gain = min(MOST_GAIN, max(1.0, QUIET_PEAK / max(self._peak, 1e-9)))
        if self._gain <= before:
            return mono if self._gain == 1.0 else mono * np.float32(self._gain)
        return mono * np.linspace(before, self._gain, len(mono), dtype=np.float32)


class FrameMaker:
    """Blocks in, whole frames out; `finish` pads the last frame with silence.

    A NaN or infinite sample becomes silence and is counted in `bad_samples`; what is too loud
    is clipped, never wrapped. Output time equals input time: the filter's delay is taken out.
    """

    def __init__(self, rate: int, channels: int, quiet: bool = False) -> None:
        """rate in Hz, 1 or more; channels 1 or more; `quiet`: far too quiet, to be raised."""
        self.bad_samples = 0
        self._downmix = Downmix(rate, channels)
        self._offset = OffsetRemover(rate)
        self._gain = QuietGain(rate) if quiet else None
        self._resampler = (
            None
            if rate == SAMPLE_RATE
            else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        )
        self._rest = np.empty(0, np.int16)

    def push(self, block: Block) -> list[Frame]:
        """float32[n, channels] -> the frames that are complete."""
        finite = np.isfinite(block)
        if not finite.all():
            self.bad_samples += int(block.size - np.count_nonzero(finite))
            block = np.where(finite, block, np.float32(0))
        # A float file may hold anything: the resampler must not overflow to infinity.
        mono = self._offset.push(self._downmix.push(np.clip(block, -64, 64)))
        if self._gain is not None:
            mono = self._gain.push(mono)
        return self._cut(self._resample(mono))

    def finish(self) -> list[Frame]:
        """What is left. The maker cannot be used again."""
        frames = self._cut(self._resample(np.empty(0, np.float32), last=True))
        if len(self._rest):
            frames.append(np.pad(self._rest, (0, STEP_SAMPLES - len(self._rest))))
            self._rest = self._rest[:0]
        return frames

    def _resample(self, mono: Mono, last: bool = False) -> Mono:
        if self._resampler is None:
            return mono
        return np.asarray(self._resampler.resample_chunk(mono, last=last), np.float32)

    def _cut(self, mono: Mono) -> list[Frame]:
        samples = np.concatenate([self._rest, to_int16(mono)])
        whole = len(samples) // STEP_SAMPLES * STEP_SAMPLES
        self._rest = samples[whole:].copy()
        return [samples[at : at + STEP_SAMPLES] for at in range(0, whole, STEP_SAMPLES)]


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Full scale 1.0 -> 32768, rounded and clipped."""
    clipped = np.clip(samples, np.float32(-1.0), np.float32(1.0 - 2**-15))
    rounded: Mono = np.rint(clipped * np.float32(2**15))
    return rounded.astype(np.int16)
