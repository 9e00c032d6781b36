"""The last seconds of a stream, addressed by their position."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edged.audio.sample_history import SampleHistory


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(-5, 700), st.integers(-5, 700))
def test_history_returns_the_samples_at_the_positions_asked_for(
    sizes: list[int], start: int, stop: int
) -> None:
    history, total = SampleHistory(100), 0
    for size in sizes:
        history.append(np.arange(total, total + size, dtype=np.float32))
        total += size
    assert history.end == total
    assert history.start <= max(0, total - 100)
    wanted = np.arange(max(start, history.start), min(stop, total), dtype=np.float32)
    np.testing.assert_array_equal(history.read(start, stop), wanted)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(-5, 700), st.integers(0, 100))
def test_samples_that_are_kept_can_be_replaced(sizes: list[int], start: int, count: int) -> None:
    history, total = SampleHistory(100), 0
    for size in sizes:
        history.append(np.arange(total, total + size, dtype=np.float32))
        total += size
    history.overwrite(start, np.full(count, -1, np.float32))
    wanted = np.arange(history.start, total, dtype=np.float32)
    wanted[(wanted >= start) & (wanted < start + count)] = -1
    np.testing.assert_array_equal(history.read(0, total), wanted)
