"""Which load level is chosen: down when a device does not keep up, up again with hysteresis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged import STEP_S
from edged.engine.load_level import (
    BACKGROUND_WINDOW_S,
    LAST_LEVEL,
    RAISE_AFTER_S,
    LoadController,
    LoadLevel,
)


class Device:
    """A device whose recogniser needs `cost[level]` seconds for a second of speech."""

    def __init__(self, *cost: float, level: LoadLevel = LoadLevel.FULL) -> None:
        self.cost = [*cost, *[cost[-1]] * (len(LoadLevel) - len(cost))]
        self.controller = LoadController(level)
        self.busy_s = self.background_s = self.lag_s = 0.0
        self.background_cost = 0.0
        self.seconds = 0.0
        self.changes: list[tuple[float, LoadLevel]] = []

    def speak(self, seconds: float, speech: bool = True) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.seconds += STEP_S
            self.lag_s += STEP_S * speech
            if self.lag_s > 0:
                cost = self.cost[self.controller.level]
                worked_s = min(STEP_S, self.lag_s * cost)
                self.busy_s += worked_s
                self.lag_s = max(0.0, self.lag_s - worked_s / cost)
            self.background_s += STEP_S * speech * self.background_cost
            if self.controller.step(STEP_S, speech, self.busy_s, self.background_s, self.lag_s):
                self.changes.append((self.seconds, self.controller.level))

    @property
    def level(self) -> LoadLevel:
        return self.controller.level


def test_a_fast_device_stays_at_the_full_level() -> None:
    device = Device(0.3)
    device.speak(600)
    assert device.changes == []


def test_a_slow_device_steps_down_until_it_keeps_up_and_stays_there() -> None:
    device = Device(1.6, 1.1, 0.7)
    device.speak(120)
    assert [level for _, level in device.changes] == [LoadLevel.LARGER_UPDATES, LoadLevel.GREEDY]
    assert device.changes[-1][0] < 10
    assert device.lag_s < 0.5


def test_a_device_that_is_too_slow_for_every_level_says_so_within_ten_seconds() -> None:
    device = Device(3.0)
    device.speak(10)
    assert device.level == LAST_LEVEL
    device.speak(5)
    assert device.controller.too_slow
    count = len(device.changes)
    device.speak(60)
    assert len(device.changes) == count, "it is reported once"


def test_when_other_work_has_ended_the_level_rises_again() -> None:
    device = Device(1.6, 1.1, 0.7)
    device.speak(20)
    device.cost = [0.3] * len(LoadLevel)
    device.speak(3 * RAISE_AFTER_S + 5)
    assert device.level == LoadLevel.FULL
    assert not device.controller.too_slow


def test_a_level_that_does_not_fit_is_tried_less_and_less_often() -> None:
    """Up and down each half minute, words would come now soon and now late."""
    device = Device(1.2, 0.4)
    device.speak(3600)
    changes = len(device.changes)
    assert changes < 30
    device.speak(3600)
    assert len(device.changes) - changes < 15


def test_silence_changes_nothing() -> None:
    device = Device(1.6, 1.1, 0.7)
    device.speak(20)
    before = device.level
    device.speak(3600, speech=False)
    assert device.level == before


def test_a_busy_background_thread_counts_like_a_busy_recogniser() -> None:
    device = Device(0.2)
    device.background_cost = 1.1
    device.speak(2 * BACKGROUND_WINDOW_S)
    assert device.level > LoadLevel.FULL


def test_background_work_that_never_fits_is_reported_once() -> None:
    device = Device(0.2)
    device.background_cost = 1.5
    device.speak(7 * BACKGROUND_WINDOW_S)
    assert device.controller.too_slow
    count = len(device.changes)
    device.speak(3 * BACKGROUND_WINDOW_S)
    assert len(device.changes) == count


def test_a_burst_of_second_passes_is_no_reason_to_save_work() -> None:
    """At the end of a long turn the second pass works for longer than a window."""
    device = Device(0.2)
    for _ in range(20):
        device.speak(10)
        device.background_s += 4.0
    assert device.changes == []


def test_the_level_that_was_predicted_is_the_first() -> None:
    assert LoadController(LoadLevel.GREEDY).level == LoadLevel.GREEDY


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0, 0.2), st.floats(0, 0.2), st.floats(0, 20)),
        max_size=300,
    )
)
def test_levels_change_one_at_a_time_within_their_range(
    steps: list[tuple[bool, float, float, float]],
) -> None:
    controller, busy_s, background_s = LoadController(), 0.0, 0.0
    for speech, recogniser, background, lag_s in steps:
        before = controller.level
        busy_s, background_s = busy_s + recogniser, background_s + background
        controller.step(STEP_S, speech, busy_s, background_s, lag_s)
        assert abs(controller.level - before) <= 1
        assert LoadLevel.FULL <= controller.level <= LAST_LEVEL
        assert controller.level == LAST_LEVEL or not controller.too_slow


@pytest.mark.parametrize("level", list(LoadLevel))
def test_every_level_has_a_label_for_people(level: LoadLevel) -> None:
    assert level.label


def test_work_that_was_done_before_the_first_step_does_not_count() -> None:
    """After another model was chosen the level started anew, took all work since the start of the
    process for that of the first two seconds of speech, and stepped down."""
    controller = LoadController()
    for n in range(100):
        controller.step(STEP_S, True, 1000.0 + 0.01 * n, 500.0, 0.1)
    assert controller.level == LoadLevel.FULL
