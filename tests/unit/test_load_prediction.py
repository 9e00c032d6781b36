"""Which load level is predicted from measurements of a device."""

from __future__ import annotations

import pytest

from edged.engine.load_level import LAST_LEVEL, LoadLevel
from edged.engine.load_prediction import MAX_PREDICTED_USE, LoadPrediction, choose


class Device:
    """Measurements by level: (recogniser, background); the last one holds for those behind it."""

    def __init__(self, *use: tuple[float, float]) -> None:
        self.use = use
        self.measured: list[LoadLevel] = []

    def __call__(self, level: LoadLevel) -> LoadPrediction:
        self.measured.append(level)
        recogniser, background = self.use[min(level, len(self.use) - 1)]
        fits = max(recogniser, background) <= MAX_PREDICTED_USE
        return LoadPrediction(level, fits, recogniser, background)


def test_a_fast_device_is_measured_once() -> None:
    device = Device((0.1, 0.05))
    assert choose(device) == LoadPrediction(LoadLevel.FULL, True, 0.1, 0.05)
    assert device.measured == [LoadLevel.FULL]


@pytest.mark.parametrize(
    ("use", "level"),
    [
        ([(1.0, 0.1), (0.7, 0.1)], LoadLevel.LARGER_UPDATES),
        ([(1.4, 0.1), (0.9, 0.1), (0.7, 0.1)], LoadLevel.GREEDY),
        ([(0.5, 1.2), (0.4, 1.2), (0.3, 1.2), (0.3, 0.7)], LoadLevel.NO_SMART_TURN),
    ],
)
def test_the_first_level_that_fits_is_chosen(
    use: list[tuple[float, float]], level: LoadLevel
) -> None:
    found = choose(Device(*use))
    assert (found.level, found.fits) == (level, True)


def test_a_recogniser_that_is_too_slow_for_one_hypothesis_is_not_measured_further() -> None:
    """The levels behind relieve only the background, and each costs a slow device seconds."""
    device = Device((3.0, 1.0))
    assert choose(device) == LoadPrediction(LAST_LEVEL, False, 3.0, 1.0)
    assert device.measured == [LoadLevel.FULL, LoadLevel.GREEDY]
