"""Self-attention keys and values of all decoder or encoder layers, in preallocated memory."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence

import numpy as np

from edged.stt.family import Floats


class KVCache:
    """`tensors` arrays float32[heads, length, head_dim], each contiguous, as graphs read them.

    Each array is packed in a slot of its own. When the length changes, rows move apart or together:
    each array moves to the slot in front of its own, for which there is one slot more than arrays
    (within one slot numpy would copy twice). Memory is bounded by `capacity` positions and resident
    only as far as it was filled.
    """

    def __init__(self, tensors: int, heads: int, head_dim: int, capacity: int) -> None:
        """tensors: how many arrays, usually the keys and the values of each layer in turn.
        capacity: most positions."""
        self._tensors, self._heads, self._head_dim = tensors, heads, head_dim
        self._memory = lazy_zeros(tensors + 1, heads * capacity * head_dim)
        self._first = 0  # slot of the first array; the others follow it, around the end
        self.length = 0

    def arrays(self) -> list[Floats]:
        """Views of the content: valid until the next `splice` or `keep`."""
        slots = self._slots(self.length)
        return [slots[n] for n in self._order()]

    def splice(self, keep: int, new: Sequence[Floats], count: int) -> None:
        """Content becomes its own first `keep` positions and the first `count` positions of `new`.

        new: arrays float32[heads of the next few tensors, any, head_dim], which together hold all
        tensors in order.
        """
        length = keep + count
        slots = self._slots(length)
        if length != self.length:
            old = self._slots(self.length)
            for n in self._order():
                slots[n - 1, :, :keep] = old[n, :, :keep]
            self._rotate()
            self.length = length
        order = self._order()
        for part in new:
            tensors = len(part) // self._heads
            each = part.reshape(tensors, self._heads, part.shape[1], self._head_dim)
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
        self._rotate()
        self.length = length

    def _slots(self, length: int) -> Floats:
        """All slots as they are laid out with that many positions."""
        packed: Floats = self._memory[:, : self._heads * length * self._head_dim]
        return packed.reshape(self._tensors + 1, self._heads, length, self._head_dim)

    def _order(self) -> list[int]:
        """The slot of each array; slot -1 is the last one."""
        return [(self._first + n) % (self._tensors + 1) for n in range(self._tensors)]

    def _rotate(self) -> None:
        self._first = (self._first - 1) % (self._tensors + 1)


def lazy_zeros(rows: int, columns: int) -> Floats:
    """float32[rows, columns] of zeros, resident only where it was written.

    The memory goes back to the system as soon as the array is freed. It is not numpy's own, because
    numpy asks for huge pages, which would make all of it resident.
    """
    memory = mmap.mmap(
        -1,
        rows * columns * np.dtype(np.float32).itemsize,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    )
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(rows, columns)
