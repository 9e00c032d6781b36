"""The last seconds of a stream, addressed by their place in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class SampleHistory:
    """Keeps at least the last `capacity` samples of everything that was appended."""

    def __init__(self, capacity: int) -> None:
        self._buffer = np.zeros(2 * capacity, np.float32)  # moved down once each `capacity`
        self._capacity = capacity
        self._filled = 0
        self.end = 0  # samples so far: the place of the next one

    @property
    def start(self) -> int:
        """The oldest place that is still here."""
        return self.end - self._filled

    def append(self, samples: Floats) -> None:
        """samples: float32[n], n <= capacity."""
        n = len(samples)
        if self._filled + n > len(self._buffer):
            keep = self._capacity
            self._buffer[:keep] = self._buffer[self._filled - keep : self._filled].copy()
            self._filled = keep
        self._buffer[self._filled : self._filled + n] = samples
        self._filled += n
        self.end += n

    def read(self, start: int, stop: int) -> Floats:
        """Samples [start, stop), as far as they are still here: a view, copy it to keep it."""
        offset = self._filled - self.end
        first = max(start, self.start) + offset
        last = min(stop, self.end) + offset
        return self._buffer[first : max(first, last)]
