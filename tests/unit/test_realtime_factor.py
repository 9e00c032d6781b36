"""The real-time factor of the recogniser."""

from __future__ import annotations

import pytest

from edged.engine.realtime_factor import RealtimeFactor


def test_the_real_time_factor_follows_the_last_half_minute() -> None:
    factor = RealtimeFactor()
    assert factor.rtf is None
    factor.add(0.04, 0.08)
    assert factor.rtf == pytest.approx(0.5)
    for _ in range(2000):
        factor.add(0.008, 0.08)
    assert factor.rtf == pytest.approx(0.1, abs=0.01)
