"""Keys and values of all layers in preallocated memory."""

from __future__ import annotations

from math import prod

import numpy as np

from edged.stt.graphs import HEAD_DIM, HEADS, KV, Floats


class Cache:
    """Twelve tensors [8 heads, length, 36], each packed at the front of its own buffer.

    A graph reads them in place. Growing moves each head's rows within the buffer, so that
    memory is bounded by `capacity` positions (13.8 kB each) and touched only as it fills.
    """

    def __init__(self, capacity: int) -> None:
        # one block, so that the system has it back at once when the segment ends
        self._buffers = np.empty((len(KV), HEADS * capacity * HEAD_DIM), np.float32)
        self.length = 0

    def arrays(self) -> list[Floats]:
        """Views of the content: valid until the next `splice`."""
        return [_packed(buffer, self.length) for buffer in self._buffers]

    def splice(self, keep: int, new: list[Floats], count: int) -> None:
        """Content becomes its first `keep` positions and the first `count` of `new`'s."""
        length = keep + count
        for buffer, addition in zip(self._buffers, new, strict=True):
            old, grown = _packed(buffer, self.length), _packed(buffer, length)
            # heads move up in memory when it grows, down when it shrinks: go from the far end
            heads = reversed(range(HEADS)) if length >= self.length else range(HEADS)
            for head in heads:
                grown[head, :keep] = old[head, :keep]
            grown[:, keep:] = addition[:, :count]
        self.length = length

    def truncate(self, keep: int) -> None:
        """Forgets all positions from `keep` on."""
        if keep < self.length:
            nothing = [np.empty((HEADS, 0, HEAD_DIM), np.float32)] * len(KV)
            self.splice(keep, nothing, 0)


def _packed(buffer: Floats, length: int) -> Floats:
    shape = (HEADS, length, HEAD_DIM)
    return buffer[: prod(shape)].reshape(shape)
