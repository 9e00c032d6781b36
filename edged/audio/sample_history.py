"""The last seconds of a stream, addressed by their position in it."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class SampleHistory:
    """Keeps at least the last `capacity` samples of everything that was appended.

    One thread may append while others read.

    Attributes:
        end: samples so far, which is the position of the next one.
    """

    def __init__(self, capacity: int) -> None:
        self._buffer = np.zeros(2 * capacity, np.float32)  # shifted once in `capacity` samples
        self._capacity = capacity
        self._filled = 0
        self._lock = threading.Lock()
        self.end = 0

    @property
    def start(self) -> int:
        """The oldest position that is still kept."""
        return self.end - self._filled

    def append(self, samples: Floats) -> None:
        """Appends float32[n], n <= capacity."""
        n = len(samples)
        with self._lock:
            if self._filled + n > len(self._buffer):
                keep = self._capacity
                self._buffer[:keep] = self._buffer[self._filled - keep : self._filled].copy()
                self._filled = keep
            self._buffer[self._filled : self._filled + n] = samples
            self._filled += n
            self.end += n

    def overwrite(self, start: int, samples: Floats) -> None:
        """Replaces samples from the position `start` on, as far as they are kept."""
        with self._lock:
            offset = self._filled - self.end
            first, stop = max(start, self.end - self._filled), min(start + len(samples), self.end)
            if first < stop:
                kept = samples[first - start : stop - start]
                self._buffer[first + offset : stop + offset] = kept

    def read(self, start: int, stop: int) -> Floats:
        """Returns a copy of the samples [start, stop), as far as they are kept."""
        with self._lock:
            offset = self._filled - self.end
            first = max(start, self.end - self._filled) + offset
            last = min(stop, self.end) + offset
            return self._buffer[first : max(first, last)].copy()
