"""A stream of the API server whose recogniser runs in the background: flushes and ends wait for it
without holding a thread, and a client that leaves leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from edged import STEP_S, STEP_SAMPLES
from edged.audio.source import Frame
from edged.audio.stream_decoders import decoder
from edged.engine.session import MAX_LAG_S, Session
from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event, Flushed, Step, Text
from edged.server.metrics import Metrics
from edged.server.stream import MAX_FLUSHES, AudioDecoder, Stream
from tests.support.executors import ManualExecutor


class BackgroundSession:
    """A session whose words are known when the test says so."""

    def __init__(self, on_result: Callable[[], None]) -> None:
        self.on_result = on_result
        self.known: list[Event] = []
        self.calls: list[str] = []
        self.is_finished = False
        self.lag_s = 0.0
        self.reads = True  # whether the recogniser reads what is pushed
        self.step_idx = 0
        self.speaking = False

    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        self.calls.append("push")
        self.step_idx += 1
        self.lag_s += 0.0 if self.reads else STEP_S
        return [*self.collect(), Step(self.step_idx - 1)]

    def collect(self) -> list[Event]:
        known, self.known = self.known, []
        return known

    def flush(self, flush_id: int | str) -> list[Event]:
        self.calls.append("flush")
        return []

    def finish(self, timeout_s: float) -> list[Event]:
        self.calls.append(f"finish {timeout_s}")
        return self.collect()

    def end(self) -> list[Event]:
        assert self.is_finished, "the end would wait"
        self.calls.append("end")
        return [*self.collect(), EndOfStream()]

    def close(self) -> None:
        self.calls.append("close")


class Rig:
    """A live stream; `woken` counts what the worker pool was told."""

    def __init__(self, audio: AudioDecoder | None = None) -> None:
        self.now = 0.0
        self.woken = 0
        self.full = False
        self.events: list[Event] = []
        self.metrics = Metrics()
        self.sessions: list[BackgroundSession] = []
        self.stream = Stream(
            self._session,
            audio or decoder("pcm"),
            self,
            self._wake,
            ManualExecutor(),
            ManualExecutor(),
            self.metrics,
            clock=lambda: self.now,
        )

    def _session(self, on_result: Callable[[], None], **_: object) -> Session:
        self.sessions.append(BackgroundSession(on_result))
        return cast(Session, self.sessions[-1])

    def _wake(self, _: Stream) -> None:
        self.woken += 1

    def on_events(self, events: Sequence[Event]) -> None:
        self.events += events

    def is_full(self) -> bool:
        return self.full

    def on_room(self) -> None: ...

    def push(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.now += 0.08
            self.stream.push(np.zeros(STEP_SAMPLES, np.int16).tobytes())
        self.work()

    def work(self) -> None:
        while self.stream.work():
            pass

    @property
    def session(self) -> BackgroundSession:
        return self.sessions[0]


def flushes_observed(metrics: Metrics) -> float:
    (metric,) = metrics.flush_seconds.collect()
    return next(s.value for s in metric.samples if s.name.endswith("_count"))


def test_a_flush_is_answered_when_its_words_are_known_although_no_more_audio_comes() -> None:
    rig = Rig()
    rig.push(3)
    rig.stream.flush("f")
    rig.work()
    assert not [e for e in rig.events if isinstance(e, Flushed)]
    assert rig.stream.is_busy, "an answer is due"
    assert flushes_observed(rig.metrics) == 0
    rig.session.known += [Text("word", 0.0), Flushed("f")]
    woken = rig.woken
    rig.session.on_result()
    assert rig.woken == woken + 1
    rig.work()
    assert rig.events[-2:] == [Text("word", 0.0), Flushed("f")]
    assert not rig.stream.is_busy
    assert flushes_observed(rig.metrics) == 1


def test_steps_go_on_while_a_flush_waits() -> None:
    rig = Rig()
    rig.push()
    rig.stream.flush(1)
    rig.push(4)
    assert len([e for e in rig.events if isinstance(e, Step)]) == 5


def test_the_end_of_a_stream_does_not_hold_the_thread() -> None:
    """Two clients that ended at once held both threads for as long as the recogniser took, and all
    others waited."""
    rig = Rig()
    rig.push()
    rig.stream.end()
    rig.work()
    assert rig.session.calls[-1] == "finish 0.0"
    assert rig.stream.is_busy
    rig.session.known.append(Text("last", 0.0))
    rig.work()
    assert rig.events[-1:] == [Text("last", 0.0)]
    rig.session.is_finished = True
    rig.work()
    assert rig.events[-1:] == [EndOfStream()]
    assert rig.session.calls[-2:] == ["end", "close"]
    assert rig.stream.done


def test_a_client_that_leaves_closes_its_session() -> None:
    rig = Rig()
    rig.push()
    rig.stream.abandon()
    rig.work()
    assert rig.session.calls[-1] == "close"


def test_words_wait_while_the_client_does_not_read() -> None:
    rig = Rig()
    rig.push()
    rig.full = True
    rig.session.known.append(Text("word", 0.0))
    rig.work()
    assert rig.events[-1:] == [Step(0)]
    rig.full = False
    rig.work()
    assert rig.events[-1:] == [Text("word", 0.0)]


def test_audio_that_comes_at_once_waits_for_the_recogniser_and_none_of_it_is_given_up() -> None:
    """After a network had stalled for 25 s, all that audio came at once. The session took it faster
    than the recogniser read it, and gave up 18 s of the words because they had waited too long."""
    rig = Rig()
    rig.push(10)
    rig.session.reads = False
    rig.now += 25.0
    for _ in range(310):
        rig.stream.push(np.zeros(STEP_SAMPLES, np.int16).tobytes())
    assert not rig.stream.is_file, "the client is live"
    jobs = 0
    while rig.session.step_idx < 320:
        rig.work()
        assert rig.session.lag_s < MAX_LAG_S, "the session would skip audio"
        waiting_s = (320 - rig.session.step_idx) * STEP_S + rig.session.lag_s
        assert rig.stream.waiting_s == pytest.approx(waiting_s)
        rig.session.lag_s = 0.0  # a job of the recogniser is done
        jobs += 1
    assert jobs > 1
    assert len([e for e in rig.events if isinstance(e, Step)]) == 320


def test_flushes_that_wait_for_the_recogniser_are_bounded() -> None:
    """A client could queue any number of them while the recogniser was busy: only those that waited
    for the session counted as load."""
    rig = Rig()
    rig.push()
    for n in range(200):
        rig.stream.flush(n)
    rig.work()
    assert rig.session.calls.count("flush") == MAX_FLUSHES
    for n in range(200):
        rig.session.known.append(Flushed(n))
        rig.work()
    assert [e for e in rig.events if isinstance(e, Flushed)] == [Flushed(n) for n in range(200)]
    assert not rig.stream.is_busy


def test_a_stream_that_cannot_be_decoded_gives_its_words_without_holding_the_thread() -> None:
    """One client's broken audio held a thread of all until the recogniser had read what was before
    it."""

    class BreaksDown:
        seconds_per_byte = 0.0

        def push(self, data: bytes) -> Iterator[Frame]:
            if not data:
                raise RequestError("broken")
            yield np.zeros(STEP_SAMPLES, np.int16)

        def finish(self) -> Iterator[Frame]:
            yield from ()

    rig = Rig(BreaksDown())
    for data in (b"1", b"2", b"", b"3"):
        rig.stream.push(data)
    rig.work()
    assert rig.session.calls == ["push", "push", "finish 0.0"]
    assert rig.stream.is_busy
    rig.session.known.append(Text("last", 0.0))
    rig.session.is_finished = True
    rig.work()
    assert rig.events[-2:] == [Text("last", 0.0), Error("broken", RequestError.code)]
    assert rig.stream.done
