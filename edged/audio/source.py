"""What a session reads audio from: the interface of files, of raw PCM and of standard input.

A microphone is no `Source`: it fills the ring (capture.py), and the engine thread empties it.
"""

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
    """Audio that ends, read in constant memory."""

    @property
    def name(self) -> str:
        """What to call it in messages: a path, or "standard input"."""

    @property
    def duration_s(self) -> float | None:
        """Seconds of audio as the header has it, which may be wrong; None: unknown."""

    @property
    def bad_samples(self) -> int:
        """Samples that were NaN or infinite and became silence. Known once the audio has ended."""

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the audio ends. May be called once.

        Raises InputError, after all that could be decoded, if something could not.
        """

    def close(self) -> None:
        """Frees what is held. May be called twice."""
