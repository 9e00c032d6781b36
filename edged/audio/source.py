"""Where audio comes from: the one shape that a file, a pipe and a microphone share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = NDArray[np.int16]
"""int16[1920]: one step of 80 ms, 24 kHz mono."""

Block: TypeAlias = NDArray[np.float32]
"""float32[n, channels], full scale 1.0, at the source's own rate."""


class Source(Protocol):
    """Audio as a session takes it, in constant memory."""

    @property
    def name(self) -> str:
        """What to call it in messages: a path, or a device."""

    @property
    def duration_s(self) -> float | None:
        """Seconds of audio as the header has it, which may be wrong; None: unknown."""

    @property
    def bad_samples(self) -> int:
        """Samples that were not numbers and became silence, known once the audio has ended."""

    def frames(self) -> Iterator[Frame]:
        """Frames until the audio ends, once. Raises an EdgedError saying what went wrong."""

    def close(self) -> None:
        """Frees what is held. May be called twice."""
