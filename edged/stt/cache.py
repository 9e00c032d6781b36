"""Keys and values of all layers in preallocated memory."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from math import prod

import numpy as np

from edged.stt.graphs import HEAD_DIM, HEADS, KV, Floats


class Cache:
    """Twelve tensors [8 heads, length, 36], each packed at the front of its own buffer.

    A graph reads them in place. Growing moves each head's rows within the buffer, so that
    memory is bounded by `capacity` positions (13.8 kB each) and touched only as it fills.
    """

    def __init__(self, capacity: int) -> None:
        self._buffers = untouched(len(KV), HEADS * capacity * HEAD_DIM)
        self.length = 0

    def arrays(self) -> list[Floats]:
        """Views of the content: valid until the next `splice`."""
        return [_packed(buffer, self.length) for buffer in self._buffers]

    def splice(self, keep: int, new: list[Floats], count: int) -> None:
        """Content becomes its first `keep` positions and the first `count` of `new`'s."""
        length = keep + count
        for buffer, addition in zip(self._buffers, new, strict=True):
            grown = _packed(buffer, length)
            if length != self.length:  # rows move within the buffer: numpy minds the overlap
                grown[:, :keep] = _packed(buffer, self.length)[:, :keep]
            grown[:, keep:] = addition[:, :count]
        self.length = length

    def keep(self, positions: Sequence[int]) -> None:
        """Content becomes these positions, in this order; the rest is forgotten."""
        length = len(positions)
        if length == self.length and list(positions) == list(range(length)):
            return
        for buffer in self._buffers:
            kept = _packed(buffer, self.length)[:, positions]  # a copy: it may overlap
            _packed(buffer, length)[:] = kept
        self.length = length


def untouched(rows: int, columns: int) -> Floats:
    """Zeros, resident only where written, and given back to the system at once when let go.

    Not numpy's own memory: numpy asks for huge pages, which make the whole resident (2 x 13 MB for
    a segment of a few seconds).
    """
    memory = mmap.mmap(
        -1,
        rows * columns * np.dtype(np.float32).itemsize,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    )
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(rows, columns)


def _packed(buffer: Floats, length: int) -> Floats:
    shape = (HEADS, length, HEAD_DIM)
    return buffer[: prod(shape)].reshape(shape)
