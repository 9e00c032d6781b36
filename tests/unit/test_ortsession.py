"""The variable that makes model runs slower."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edged.errors import ConfigError
from edged.ortsession import SLOWDOWN, _SlowSession, slowdown


class BusySession:
    """A session whose runs take some CPU time."""

    name = "busy"

    def __init__(self, cpu_s: float) -> None:
        self.cpu_s = cpu_s

    def run(self, *arguments: Any) -> Any:
        end = time.thread_time() + self.cpu_s
        while time.thread_time() < end:
            pass
        return arguments


def test_without_the_variable_nothing_is_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SLOWDOWN, raising=False)
    assert slowdown() == 1.0


@pytest.mark.parametrize("text", ["0.5", "0", "-1", "fast", "nan", "1e9", ""])
def test_a_factor_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(SLOWDOWN, text)
    with pytest.raises(ConfigError, match=f"{SLOWDOWN} must be a number from 1 to 1000"):
        slowdown()


def test_a_run_takes_so_many_times_its_own_cpu_time() -> None:
    session: Any = _SlowSession(BusySession(0.02), 5.0, 1)
    started, cpu = time.monotonic(), time.thread_time()
    assert session.run("a", 2) == ("a", 2)
    assert time.monotonic() - started >= 0.1
    assert time.thread_time() - cpu < 0.08, "it sleeps"
    assert session.name == "busy"
