"""Keys and values of all layers in preallocated memory."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence

import numpy as np

from edged.stt.moonshine.graphs import HEAD_DIM, HEADS, KV, Floats


class Cache:
    """Twelve tensors [8 heads, length, 36], each packed in a slot of its own: as graphs read them.

    As they grow their rows move apart, each tensor's to the slot in front of its own, for which
    there is one more than tensors (within a slot numpy would copy them twice). Memory is bounded by
    `capacity` positions (15 kB each) and touched only as it fills.
    """

    def __init__(self, capacity: int) -> None:
        self._memory = untouched(len(KV) + 1, HEADS * capacity * HEAD_DIM)
        self._first = 0  # slot of the first tensor; the others follow it round
        self.length = 0

    def arrays(self) -> list[Floats]:
        """Views of the content: valid until the next `splice` or `keep`."""
        slots = self._slots(self.length)
        return [slots[n] for n in self._order()]

    def splice(self, keep: int, new: Sequence[Floats], count: int) -> None:
        """Content becomes its first `keep` positions and the first `count` of `new`'s, which are
        [8 heads of each of the next tensors, any, 36]."""
        length = keep + count
        slots = self._slots(length)
        if length != self.length:
            old = self._slots(self.length)
            for n in self._order():
                slots[n - 1, :, :keep] = old[n, :, :keep]
            self._moved()
            self.length = length
        order = self._order()
        for part in new:
            tensors = len(part) // HEADS
            each = part.reshape(tensors, HEADS, part.shape[1], HEAD_DIM)
            slots[order[:tensors], :, keep:] = each[:, :, :count]
            del order[:tensors]

    def keep(self, positions: Sequence[int]) -> None:
        """Content becomes these positions, in this order; the rest is forgotten."""
        length = len(positions)
        if length == self.length and list(positions) == list(range(length)):
            return
        slots, old = self._slots(length), self._slots(self.length)
        for n in self._order():
            slots[n - 1] = old[n][:, positions]
        self._moved()
        self.length = length

    def _slots(self, length: int) -> Floats:
        """All slots as they are with that many positions."""
        packed: Floats = self._memory[:, : HEADS * length * HEAD_DIM]
        return packed.reshape(len(KV) + 1, HEADS, length, HEAD_DIM)

    def _order(self) -> list[int]:
        """The tensors' slots; -1 is the last one, too."""
        return [(self._first + n) % (len(KV) + 1) for n in range(len(KV))]

    def _moved(self) -> None:
        self._first = (self._first - 1) % (len(KV) + 1)


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
