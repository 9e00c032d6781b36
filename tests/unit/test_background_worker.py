"""The thread beside the steps: order, failures, its bound, and the end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading

from edged.daemon.health import Heartbeats
from edged.engine.background_worker import BackgroundWorker
from tests.support.mosquitto import until


def test_jobs_are_done_in_order_and_a_failure_is_the_jobs_own() -> None:
    beside, done = BackgroundWorker(), []
    assert beside.idle
    first = beside.submit(done.append, 1)
    failed = beside.submit(lambda: 1 / 0)
    last = beside.submit(done.append, 2)
    assert last.result(5) is None
    assert first.done()
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert done == [1, 2]
    until(lambda: beside.idle, "idle again")


def test_more_jobs_than_a_turn_can_have_mean_that_one_hangs() -> None:
    """Each holds a megabyte of audio: a second pass that hangs must not fill the memory. The 33rd
    job raised inside the step that gave it, and the recogniser started again and again."""
    beside, go = BackgroundWorker(waiting=2), threading.Event()
    beside.submit(go.wait)
    until(lambda: beside._jobs.empty(), "the first is being done")
    beside.submit(list)
    beside.submit(list)
    assert not beside.idle
    refused = beside.submit(list)
    assert "stuck" in str(refused.exception(0))
    go.set()
    until(lambda: beside.idle, "the rest is done")
    beside.submit(list).result(5)


def test_a_job_that_never_returns_is_seen_by_its_age() -> None:
    """Nobody watched this thread: after a second pass that hung there was no turn any more, and
    nothing was said."""
    beside, go = BackgroundWorker(), threading.Event()
    beats = Heartbeats(stale_s=1000)
    beats.watch("second pass", lambda: beside.age_s, 0.05)
    assert beside.age_s == 0
    beside.submit(go.wait)
    until(beats.stale, "it is said to hang")
    go.set()
    until(lambda: beside.idle, "idle")
    assert beside.age_s == 0
    assert beats.stale() == []


def test_a_job_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """A ThreadPoolExecutor's thread is waited for at the end, however long."""
    code = "import threading; from edged.engine.background_worker import BackgroundWorker; "
    code += "BackgroundWorker().submit(threading.Event().wait)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
