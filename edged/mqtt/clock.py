"""The two clocks of a system, as a value that tests replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Functions that return seconds.

    Attributes:
        monotonic: never jumps; its zero means nothing.
        wall: since 1970; it jumps when the system learns the time.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


SYSTEM_CLOCK = Clock()
