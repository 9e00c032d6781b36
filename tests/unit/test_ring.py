"""The ring: order, nothing lost unless it overflows, and stream time that never lies."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged import STEP_SAMPLES
from edged.audio import ring as ring_module
from edged.audio.ring import MAX_GAP_STEPS, Gap, Ring
from edged.audio.source import Frame

CAPACITY = 4 * STEP_SAMPLES + 321  # small and odd, so that it wraps often


class Producer:
    """Writes the numbers 1, 2, 3...: a sample tells its own place. Zero is a lost sample."""

    def __init__(self, ring: Ring) -> None:
        self.ring, self.position = ring, 0

    def write(self, count: int) -> None:
        here = np.arange(self.position, self.position + count)
        self.ring.write((here % 30_000 + 1).astype(np.int16))
        self.position += count

    def lose(self, count: int) -> None:
        self.ring.mark_gap(count)
        self.position += count


def frames_of(items: list[Frame | Gap]) -> list[Frame]:
    return [item for item in items if not isinstance(item, Gap)]


def expand(items: list[Frame | Gap]) -> np.ndarray:
    parts = [np.zeros(i.samples, np.int16) if isinstance(i, Gap) else i for i in items]
    return np.concatenate([np.zeros(0, np.int16), *parts])


writes = st.tuples(st.just("write"), st.integers(0, 2 * CAPACITY))
gaps = st.tuples(st.just("lose"), st.integers(0, 3 * STEP_SAMPLES))
takes = st.tuples(st.just("take"), st.integers(0, 6))
actions = st.lists(st.one_of(writes, gaps, takes), max_size=60)


@given(actions)
@settings(deadline=None)
def test_every_sample_comes_out_at_its_own_stream_time_or_as_a_gap(
    plan: list[tuple[str, int]],
) -> None:
    ring = Ring(CAPACITY)
    producer, out, lost_on_purpose = Producer(ring), [], 0
    for action, amount in plan:
        if action == "take":
            out += ring.take(amount)
        else:
            getattr(producer, action)(amount)
            lost_on_purpose += amount if action == "lose" else 0
    out += ring.take(10**9)

    assert all(isinstance(i, Gap) or i.shape == (STEP_SAMPLES,) for i in out)
    assert all(i.samples > 0 and i.samples % STEP_SAMPLES == 0 for i in out if isinstance(i, Gap))
    heard = expand(out)
    assert 0 <= producer.position - len(heard) < STEP_SAMPLES  # all whole steps are out
    expected = (np.arange(len(heard)) % 30_000 + 1).astype(np.int16)
    lost = heard == 0
    np.testing.assert_array_equal(heard[~lost], expected[~lost])  # in order, in place
    pending = producer.position - len(heard)
    assert lost.sum() <= ring.dropped + lost_on_purpose <= lost.sum() + pending


@given(st.lists(st.integers(0, 3 * STEP_SAMPLES), max_size=40))
@settings(deadline=None)
def test_nothing_is_lost_while_the_consumer_keeps_up(sizes: list[int]) -> None:
    ring = Ring(CAPACITY)
    producer, out = Producer(ring), []
    for size in sizes:
        producer.write(size)
        out += ring.take(10)
    heard = expand(out)
    np.testing.assert_array_equal(heard, np.arange(len(heard)) % 30_000 + 1)
    assert ring.dropped == 0
    assert not any(isinstance(i, Gap) for i in out)


def test_an_overflow_drops_the_oldest_counts_it_and_marks_its_place() -> None:
    ring = Ring(4 * STEP_SAMPLES)
    producer = Producer(ring)
    for _ in range(6):
        producer.write(STEP_SAMPLES)
    first, *rest = ring.take(100)
    assert first == Gap(2 * STEP_SAMPLES)
    assert ring.dropped == 2 * STEP_SAMPLES
    assert [int(frame[0]) for frame in frames_of(rest)] == [
        1 + n * STEP_SAMPLES for n in (2, 3, 4, 5)
    ]


def test_an_overrun_keeps_its_place_between_the_words_around_it() -> None:
    ring = Ring()
    producer = Producer(ring)
    producer.write(STEP_SAMPLES + 100)
    producer.lose(5 * STEP_SAMPLES)
    producer.write(STEP_SAMPLES)
    items = ring.take(100)
    frame, edge, after = frames_of(items)
    gap = items[2]
    assert frame[0] == 1
    assert edge[99] == STEP_SAMPLES + 100
    assert not edge[100:].any()
    assert gap == Gap(4 * STEP_SAMPLES)
    assert not after[:100].any()
    assert after[100] == 6 * STEP_SAMPLES + 101


def test_more_gaps_than_it_can_hold_apart_become_one_and_time_stays_true(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_module, "MAX_MARKS", 4)
    ring = Ring()
    producer = Producer(ring)
    for _ in range(10):
        producer.write(10)
        producer.lose(STEP_SAMPLES)
    heard = expand(ring.take(100))
    assert producer.position - len(heard) < STEP_SAMPLES
    assert ring.dropped == 70  # the audio before the gaps that had to be joined


def test_a_wiped_ring_keeps_no_sample_in_memory() -> None:
    ring = Ring(CAPACITY)
    Producer(ring).write(CAPACITY)
    ring.wipe()
    assert ring.take(10) == []
    assert not ring._buffer.any()


def test_a_sealed_ring_refuses_what_was_still_on_its_way() -> None:
    ring = Ring(CAPACITY)
    producer = Producer(ring)
    producer.write(STEP_SAMPLES)
    ring.seal(True)
    producer.write(STEP_SAMPLES)
    producer.lose(STEP_SAMPLES)
    assert ring.depth == 0
    ring.seal(False)
    producer.write(STEP_SAMPLES)
    assert ring.depth == 1


def test_what_was_taken_is_the_consumers_own() -> None:
    ring = Ring(2 * STEP_SAMPLES)
    producer = Producer(ring)
    producer.write(STEP_SAMPLES)
    (frame,) = frames_of(ring.take(1))
    kept = frame.copy()
    producer.write(10 * STEP_SAMPLES)
    np.testing.assert_array_equal(frame, kept)


def test_it_holds_at_least_thirty_seconds() -> None:
    ring = Ring()
    ring.write(np.ones(30 * 24_000, np.int16))
    assert ring.dropped == 0
    assert ring.depth == 375


def test_a_waiting_consumer_is_woken_by_a_step_or_by_wake() -> None:
    ring = Ring()
    timer = threading.Timer(0.05, lambda: Producer(ring).write(STEP_SAMPLES))
    timer.start()
    assert len(ring.take(5, timeout=10)) == 1
    threading.Timer(0.05, ring.wake).start()
    assert ring.take(5, timeout=10) == []


def test_two_threads_lose_nothing_between_them() -> None:
    ring = Ring()
    producer, steps = Producer(ring), 300
    out: list[Frame | Gap] = []

    def produce() -> None:
        sizes = np.random.default_rng(0).integers(1, 4000, 1000)
        for size in sizes:
            producer.write(min(int(size), steps * STEP_SAMPLES - producer.position))
            if producer.position >= steps * STEP_SAMPLES:
                break

    thread = threading.Thread(target=produce)
    thread.start()
    deadline = time.monotonic() + 20
    while len(out) < steps and time.monotonic() < deadline:
        out += ring.take(7, timeout=0.1)
    thread.join()
    np.testing.assert_array_equal(expand(out), np.arange(steps * STEP_SAMPLES) % 30_000 + 1)


def test_a_ring_smaller_than_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1920"):
        Ring(100)


def test_a_long_gap_comes_in_parts() -> None:
    """One gap of minutes kept the engine from its heartbeat until the watchdog ended the daemon."""
    ring = Ring()
    ring.mark_gap(60 * MAX_GAP_STEPS * STEP_SAMPLES + STEP_SAMPLES)
    items = ring.take(100)
    assert items == [Gap(MAX_GAP_STEPS * STEP_SAMPLES)] * 60 + [Gap(STEP_SAMPLES)]
