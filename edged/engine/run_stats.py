"""Measures how long the steps of a run take, from outside the session."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edged import STEP_S

STEP_MS = STEP_S * 1000


@dataclass
class RunStats:
    """Wall time of each step, and the CPU time of the process since the start of the run.

    step_ms: milliseconds, four bytes each: 10 hours of audio take 1.8 MB.
    """

    step_ms: array[float] = field(default_factory=lambda: array("f"))
    _cpu_start: float = field(default_factory=time.process_time)

    def add(self, seconds: float) -> None:
        self.step_ms.append(seconds * 1000)

    @property
    def audio_s(self) -> float:
        return len(self.step_ms) * STEP_S

    @property
    def cpu_s(self) -> float:
        """CPU seconds, user and system, of all threads."""
        return time.process_time() - self._cpu_start


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which `percent` of the values lie; None if there are no values."""
    return float(np.percentile(values, percent)) if len(values) else None


def summary(stats: RunStats) -> str:
    """One line of text for people."""
    if not stats.step_ms:
        return "0 steps"
    p50, p99 = (percentile(stats.step_ms, p) for p in (50, 99))
    return (
        f"{len(stats.step_ms)} steps, {stats.audio_s:.1f} s of audio, "
        f"{stats.cpu_s:.2f} s of CPU ({stats.cpu_s / stats.audio_s:.3f} per second of audio); "
        f"step p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(stats.step_ms):.1f} ms "
        f"of {STEP_MS:.0f}"
    )
