"""Blocks of any rate, number of channels and length -> the session's frames.

Everything streams: memory does not grow with the audio.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.audio.corrections import QUIET_PEAK, OffsetRemover, QuietGain
from edged.audio.downmix import Downmix, Mono
from edged.audio.pcm import READ_S
from edged.audio.source import Block, Frame

LOOK_AHEAD_S = 30.0  # of a recording, to learn its level; speech ends the look at once
MAX_HELD_BYTES = 16 << 20  # of samples meanwhile: 30 s of 48 kHz stereo are 12 MB


class FrameMaker:
    """Makes 24 kHz mono frames of one stream, whose rate and channels may change on the way.

    NaN and infinite samples become silence and are counted in `bad_samples`; what is too loud is
    clipped, never wrapped. Output time equals input time: the resampler's delay is taken out.
    Audio is processed in blocks of 80 ms from its first sample on, so the result does not depend
    on the sizes of the blocks that come in.
    """

    def __init__(self, raise_quiet: bool = False) -> None:
        """`raise_quiet`: look ahead, and raise a recording that is far too quiet.

        For recordings alone: nothing is yielded before speech or LOOK_AHEAD_S of audio came.
        """
        self.bad_samples = 0
        self._held: list[tuple[Block, int]] | None = [] if raise_quiet else None
        self._held_bytes = 0
        self._held_s = 0.0
        self._peak = 0.0
        self._quiet = False
        self._pipeline: _Pipeline | None = None
        self._rest = np.empty(0, np.int16)

    def push(self, block: Block, rate: int) -> Iterator[Frame]:
        """float32[n, channels] at `rate` Hz -> the frames that it completes."""
        if self._held is None:
            yield from self._process(block, rate)
        elif len(block):
            self._held.append((block, rate))
            self._held_bytes += block.nbytes
            self._held_s += len(block) / rate
            self._peak = max(self._peak, float(np.nan_to_num(np.abs(block)).max()))
            if (
                self._peak > QUIET_PEAK
                or self._held_s >= LOOK_AHEAD_S
                or self._held_bytes >= MAX_HELD_BYTES
            ):
                yield from self._release()

    def finish(self) -> Iterator[Frame]:
        """The rest, its last frame padded with silence. The maker cannot be used again."""
        yield from self._release()
        if self._pipeline is not None:
            yield from self._cut(self._pipeline.finish())
        if len(self._rest):
            yield np.pad(self._rest, (0, STEP_SAMPLES - len(self._rest)))
            self._rest = self._rest[:0]

    def _release(self) -> Iterator[Frame]:
        """Ends the look ahead."""
        held, self._held = self._held or [], None
        self._quiet = self._quiet or 0.0 < self._peak <= QUIET_PEAK
        for block, rate in held:
            yield from self._process(block, rate)

    def _process(self, block: Block, rate: int) -> Iterator[Frame]:
        shape = rate, block.shape[1]
        if self._pipeline is None or self._pipeline.shape != shape:
            if self._pipeline is not None:
                yield from self._cut(self._pipeline.finish())
            self._pipeline = _Pipeline(*shape, self._quiet)
        finite = np.isfinite(block)
        if not finite.all():
            self.bad_samples += int(block.size - np.count_nonzero(finite))
            block = np.where(finite, block, np.float32(0))
        for mono in self._pipeline.push(block):
            yield from self._cut(mono)

    def _cut(self, mono: Mono) -> Iterator[Frame]:
        samples = np.concatenate([self._rest, to_int16(mono)])
        whole = len(samples) // STEP_SAMPLES * STEP_SAMPLES
        self._rest = samples[whole:].copy()
        for at in range(0, whole, STEP_SAMPLES):
            yield samples[at : at + STEP_SAMPLES]


class _Pipeline:
    """Downmix, offset, gain and resampler for one rate and number of channels."""

    def __init__(self, rate: int, channels: int, quiet: bool) -> None:
        self.shape = rate, channels
        self._size = max(1, round(READ_S * rate))
        self._blocks: list[Block] = []
        self._filled = 0
        self._downmix = Downmix(rate, channels)
        self._offset = OffsetRemover(rate)
        self._gain = QuietGain(rate) if quiet else None
        self._resampler = (
            None
            if rate == SAMPLE_RATE
            else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        )

    def push(self, block: Block) -> Iterator[Mono]:
        """Finite samples -> 24 kHz mono, in blocks of READ_S."""
        self._blocks.append(block)
        self._filled += len(block)
        if self._filled < self._size:
            return
        waiting = np.concatenate(self._blocks) if len(self._blocks) > 1 else block
        whole = len(waiting) // self._size * self._size
        for at in range(0, whole, self._size):
            yield self._convert(waiting[at : at + self._size])
        self._blocks = [waiting[whole:]] if whole < len(waiting) else []
        self._filled = len(waiting) - whole

    def finish(self) -> Mono:
        parts = [self._convert(np.concatenate(self._blocks))] if self._blocks else []
        self._blocks, self._filled = [], 0
        if self._resampler is not None:
            parts.append(self._resample(np.empty(0, np.float32), last=True))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _convert(self, block: Block) -> Mono:
        # A float file may hold anything: the resampler must not overflow to infinity.
        mono = self._offset.push(self._downmix.push(np.clip(block, -64, 64)))
        if self._gain is not None:
            mono = self._gain.push(mono)
        return self._resample(mono)

    def _resample(self, mono: Mono, last: bool = False) -> Mono:
        if self._resampler is None:
            return mono
        return np.asarray(self._resampler.resample_chunk(mono, last=last), np.float32)


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Full scale 1.0 -> 32768, rounded and clipped."""
    clipped = np.clip(samples, np.float32(-1.0), np.float32(1.0 - 2**-15))
    rounded: Mono = np.rint(clipped * np.float32(2**15))
    return rounded.astype(np.int16)
