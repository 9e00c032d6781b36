"""A check that fails is reported once and stops nothing."""

from __future__ import annotations

import pytest

from edged.daemon.supervisor import Supervisor


def test_a_failing_check_is_reported_once_an_episode_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error of the file system ended the main loop, and with it the daemon."""
    outcomes = iter([OSError("one"), OSError("two"), None, OSError("three"), None])
    others: list[float] = []

    def check(_: float) -> None:
        error = next(outcomes)
        if error is not None:
            raise error

    supervisor = Supervisor(check, others.append)
    for now in range(5):
        supervisor.run(now)
    assert others == [0, 1, 2, 3, 4]
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [str(error) for error in errors] == ["one", "three"]
