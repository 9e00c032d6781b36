"""The ring between the capture thread and the engine thread.

One producer writes samples and marks gaps, one consumer takes whole steps. Nothing is lost unless
the ring would overflow: then the oldest samples are dropped, counted, and come out as a `Gap`, so
that stream time (samples out, gaps included) always equals samples in, gaps included.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.audio.source import Frame

CAPACITY_S = 32
MAX_GAP_STEPS = 25  # of one item, so that the consumer never works for long without a heartbeat
MAX_MARKS = 256  # separate gaps in the ring; beyond, the audio between the oldest two is dropped

Samples: TypeAlias = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that was lost: `samples` at 24 kHz, 1 to MAX_GAP_STEPS whole steps."""

    samples: int


class Ring:
    """Preallocated int16 at 24 kHz mono; every method may be called from any thread."""

    def __init__(self, capacity: int = CAPACITY_S * SAMPLE_RATE) -> None:
        """`capacity` in samples, at least one step."""
        if capacity < STEP_SAMPLES:
            raise ValueError(f"a ring holds at least {STEP_SAMPLES} samples, not {capacity}")
        self._buffer: Samples = np.zeros(capacity, np.int16)
        self._read = 0  # both count samples since the start; the buffer index is modulo capacity
        self._written = 0
        self._marks: deque[list[int]] = deque()  # [position, samples lost there], ascending
        self._lost = 0  # the sum of the marks
        self._sealed = False
        self._woken = False
        self._ready = threading.Condition()
        self._dropped = 0
        self._gap_samples = 0

    # -- the producer's side

    def write(self, samples: Samples) -> None:
        """Appends a copy of int16[n], any n. Overwrites the oldest samples if there is no room."""
        with self._ready:
            if self._sealed:
                return
            excess = len(samples) - len(self._buffer)
            if excess > 0:  # more than the ring holds: drop the beginning
                self._drop(self._written - self._read)
                self._mark(excess)
                self._dropped += excess
                samples = samples[excess:]
            free = len(self._buffer) - (self._written - self._read)
            if len(samples) > free:
                self._drop(len(samples) - free)
            self._copy_in(samples)
            self._notify()

    def mark_gap(self, samples: int) -> None:
        """Notes that `samples` (24 kHz) were lost after everything written so far."""
        with self._ready:
            if self._sealed or samples <= 0:
                return
            self._gap_samples += samples
            self._mark(samples)
            self._notify()

    # -- the consumer's side

    def take(self, max_steps: int, timeout: float = 0.0) -> list[Frame | Gap]:
        """Takes up to `max_steps` items in order: copies of int16[1920], or a `Gap` of whole steps.

        The part of a gap that is less than a step becomes zeros in the frames beside it. Waits up
        to `timeout` seconds for the first whole step; returns [] if none came, or after `wake()`.
        """
        with self._ready:
            if timeout > 0:
                self._ready.wait_for(
                    lambda: self._woken or self._pending() >= STEP_SAMPLES, timeout
                )
                self._woken = False
            items: list[Frame | Gap] = []
            while len(items) < max_steps and self._pending() >= STEP_SAMPLES:
                items.append(self._take_one())
            return items

    def wake(self) -> None:
        """Ends a waiting `take`, for other work of the consumer."""
        with self._ready:
            self._woken = True
            self._ready.notify_all()

    # -- both

    def wipe(self) -> None:
        """Forgets everything: overwrites the samples with zeros and removes the gaps."""
        with self._ready:
            self._buffer[:] = 0
            self._read = self._written
            self._marks.clear()
            self._lost = 0

    def seal(self, sealed: bool) -> None:
        """Seals or opens the ring. A sealed ring is wiped and refuses samples and gaps (mute)."""
        with self._ready:
            self._sealed = sealed
            if sealed:
                self.wipe()

    @property
    def depth(self) -> int:
        """Whole steps that wait for the consumer, gaps included."""
        with self._ready:
            return self._pending() // STEP_SAMPLES

    @property
    def depth_s(self) -> float:
        """Seconds of audio that wait for the consumer, gaps included."""
        with self._ready:
            return self._pending() / SAMPLE_RATE

    @property
    def dropped(self) -> int:
        """Samples overwritten because the consumer was too late, since the start."""
        return self._dropped

    @property
    def gap_samples(self) -> int:
        """Samples that the producer marked as lost (overruns), since the start."""
        return self._gap_samples

    # -- with the lock held

    def _pending(self) -> int:
        return self._written - self._read + self._lost

    def _notify(self) -> None:
        if self._pending() >= STEP_SAMPLES:
            self._ready.notify_all()

    def _mark(self, samples: int) -> None:
        if self._marks and self._marks[-1][0] == self._written:
            self._marks[-1][1] += samples
        else:
            if len(self._marks) >= MAX_MARKS:
                self._drop(self._marks[1][0] - self._read)
            self._marks.append([self._written, samples])
        self._lost += samples

    def _drop(self, samples: int) -> None:
        """Makes the oldest `samples` part of a gap at the head, with the gaps among them."""
        if samples <= 0:
            return
        self._read += samples
        self._dropped += samples
        self._lost += samples
        while self._marks and self._marks[0][0] <= self._read:
            samples += self._marks.popleft()[1]
        self._marks.appendleft([self._read, samples])

    def _copy_in(self, samples: Samples) -> None:
        start = self._written % len(self._buffer)
        first = min(len(samples), len(self._buffer) - start)
        self._buffer[start : start + first] = samples[:first]
        self._buffer[: len(samples) - first] = samples[first:]
        self._written += len(samples)

    def _take_one(self) -> Frame | Gap:
        """Takes one item. The caller has checked that a whole step waits."""
        if self._gap_here() >= STEP_SAMPLES:
            steps = min(self._gap_here() // STEP_SAMPLES, MAX_GAP_STEPS)
            return Gap(self._use_gap(steps * STEP_SAMPLES))
        frame = np.zeros(STEP_SAMPLES, np.int16)
        filled = 0
        while filled < STEP_SAMPLES:
            room = STEP_SAMPLES - filled
            if self._gap_here():
                filled += self._use_gap(min(room, self._gap_here()))
                continue
            until = self._marks[0][0] if self._marks else self._written
            count = min(room, until - self._read)
            self._copy_out(frame[filled : filled + count])
            filled += count
        return frame

    def _gap_here(self) -> int:
        return self._marks[0][1] if self._marks and self._marks[0][0] == self._read else 0

    def _use_gap(self, samples: int) -> int:
        self._marks[0][1] -= samples
        self._lost -= samples
        if self._marks[0][1] == 0:
            self._marks.popleft()
        return samples

    def _copy_out(self, out: Samples) -> None:
        start = self._read % len(self._buffer)
        first = min(len(out), len(self._buffer) - start)
        out[:first] = self._buffer[start : start + first]
        out[first:] = self._buffer[: len(out) - first]
        self._read += len(out)
