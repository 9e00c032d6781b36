"""Keys and values in preallocated memory: content is what plain joining would give."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.stt.kv_cache import KVCache

TENSORS, HEADS, HEAD_DIM = 12, 8, 36


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 3)), max_size=12),
    st.sampled_from([1, 2, 6]),
)
def test_a_cache_holds_what_plain_joining_would(
    splices: list[tuple[int, int, int]], parts: int
) -> None:
    cache, random = KVCache(TENSORS, HEADS, HEAD_DIM, 200), np.random.default_rng(0)
    expected = [np.empty((HEADS, 0, HEAD_DIM), np.float32) for _ in range(TENSORS)]
    for keep, count, unused in splices:
        keep = min(keep, cache.length)
        new = random.standard_normal((TENSORS * HEADS, count + unused, HEAD_DIM), np.float32)
        cache.splice(keep, np.split(new, parts), count)
        expected = [
            np.concatenate((old[:, :keep], add[:, :count]), 1)
            for old, add in zip(expected, np.split(new, TENSORS), strict=True)
        ]
        assert cache.length == keep + count
        for view, wanted in zip(cache.arrays(), expected, strict=True):
            assert view.flags.c_contiguous
            np.testing.assert_array_equal(view, wanted)


@settings(deadline=None)
@given(st.lists(st.integers(0, 19), unique=True))
def test_a_cache_keeps_the_positions_it_is_told_to(positions: list[int]) -> None:
    cache = KVCache(TENSORS, HEADS, HEAD_DIM, 30)
    flat = np.arange(TENSORS * HEADS * 20 * HEAD_DIM, dtype=np.float32)
    content = flat.reshape(TENSORS * HEADS, 20, HEAD_DIM)
    cache.splice(0, [content], 20)
    cache.keep(positions)
    assert cache.length == len(positions)
    for view, array in zip(cache.arrays(), np.split(content, TENSORS), strict=True):
        np.testing.assert_array_equal(view, array[:, positions])
