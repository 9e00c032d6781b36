"""The engine thread with a scripted session: order, stream time, failures, the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edged import STEP_SAMPLES
from edged.audio.ring import Ring
from edged.engine import engine_thread as module
from edged.engine.engine_thread import Command, Configure, End, Engine, Flush, Restart, in_stream
from edged.events import EndOfStream, EndText, Error, Event, Flushed, Step, Text, Turn, Word
from edged.options import Options
from tests.support.mosquitto import until

SAMPLES = 24_000


@dataclass
class Script:
    """What the sessions do, and what was done to them."""

    fail_at: set[int] = field(default_factory=set)  # frames, over all sessions
    hold: threading.Event | None = None
    second_pass: threading.Event | None = None  # what `end` waits for
    push_s: float = 0.0
    made: list[Any] = field(default_factory=list)
    backlog: list[bool] = field(default_factory=list)
    frames: int = 0
    loud: bool = False


class Scripted:
    """One word per frame, named by its own step; as the real one, pure."""

    script: Script

    def __init__(self, models: object, options: Options, beside: object) -> None:
        self.models, self.options = models, options
        self.step_idx = 0
        self.speaking = False
        self.dropped: Counter[str] = Counter()
        self.script.made.append(self)

    def push(self, frame: np.ndarray, backlog: bool = False) -> list[Event]:
        script = self.script
        if script.hold is not None:
            script.hold.wait(10)
        script.frames += 1
        time.sleep(script.push_s)
        if script.frames in script.fail_at:
            raise RuntimeError("scripted")
        script.backlog.append(backlog)
        self.speaking = script.loud
        self.dropped["noise"] += 1
        self.step_idx += 1
        at = (self.step_idx - 1) * 0.08
        return [Text(f"w{self.step_idx - 1}", at), EndText(at + 0.08), Step(self.step_idx - 1)]

    def gap(self, samples: int) -> list[Event]:
        steps = samples // STEP_SAMPLES
        self.step_idx += steps
        return [Step(self.step_idx - steps + i) for i in range(steps)]

    def flush(self, flush_id: int | str) -> list[Event]:
        return [Text("flushed", 0.0), Flushed(flush_id)]

    def finish(self) -> list[Event]:
        return [Text("last", 0.0)]

    def end(self, timeout_s: float) -> list[Event]:
        at = self.step_idx * 0.08
        if self.script.second_pass is not None and not self.script.second_pass.wait(timeout_s):
            return [EndOfStream()]
        return [Turn("turn", 0.0, at, (Word("turn", 0.0, at),)), EndOfStream()]

    def configure(self, options: Options) -> None:
        self.options = options


class Bench:
    """A running engine over a ring that the test fills."""

    def __init__(self) -> None:
        self.ring = Ring()
        self.events: list[Event] = []
        self.speaking: list[bool] = []
        self.engine = Engine(
            self.ring,
            "models",
            Options(),
            self.events.extend,
            self.speaking.append,  # type: ignore[arg-type]
        )

    def hear(self, steps: int) -> None:
        self.ring.write(np.zeros(steps * STEP_SAMPLES, np.int16))

    def order(self, command: Command) -> None:
        """Submits it and waits until it is done: a flush behind it is answered."""
        done = threading.Event()
        assert self.engine.submit(command)
        assert self.engine.submit(Flush("done", done.set))
        assert done.wait(5)

    def of(self, kind: type) -> list[Any]:
        return [e for e in list(self.events) if isinstance(e, kind)]

    def stepped(self, count: int) -> None:
        until(lambda: len(self.of(Step)) >= count, f"{count} steps: {len(self.of(Step))}")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(Scripted, "script", made, raising=False)
    monkeypatch.setattr(module, "Session", Scripted)
    return made


@pytest.fixture
def bench(script: Script) -> Iterator[Bench]:
    found = Bench()
    found.engine.start()
    yield found
    if script.hold is not None:
        script.hold.set()
    found.engine.stop(5)


def test_every_step_is_given_in_order_and_the_end_comes_last(bench: Bench) -> None:
    bench.hear(30)
    bench.stepped(30)
    assert bench.engine.stop(5)
    assert [s.step_idx for s in bench.of(Step)] == list(range(30))
    assert isinstance(bench.events[-2], Turn)
    assert isinstance(bench.events[-1], EndOfStream)
    assert len(bench.of(EndOfStream)) == 1


def test_a_flush_is_answered_after_all_audio_heard_before_it(bench: Bench, script: Script) -> None:
    script.hold = threading.Event()
    bench.hear(40)
    done = threading.Event()
    assert bench.engine.submit(Flush("ab", done.set))
    script.hold.set()
    assert done.wait(5)
    before = bench.events[: bench.events.index(Flushed("ab"))]
    assert len([e for e in before if isinstance(e, Step)]) == 40
    assert bench.of(Flushed) == [Flushed("ab")]


def test_a_flush_without_any_audio_is_answered_at_once(bench: Bench) -> None:
    done = threading.Event()
    bench.engine.submit(Flush(7, done.set))
    assert done.wait(5)
    assert bench.events == [Flushed(7)]


def test_a_stalled_engine_catches_up_in_larger_chunks_with_true_times(bench, script) -> None:
    """Inference stalls for 3 s: nothing is lost, and the words' times are those of the audio."""
    script.hold = threading.Event()
    for _ in range(38):  # 3 s come in while it hangs
        bench.hear(1)
    script.hold.set()
    bench.stepped(38)
    assert bench.ring.dropped == 0
    assert any(script.backlog)
    assert not script.backlog[-1]
    assert [t.start_s for t in bench.of(Text)] == [i * 0.08 for i in range(38)]


def test_audio_dropped_by_the_ring_is_told_once_and_time_stays_true(bench, script) -> None:
    script.hold = threading.Event()
    bench.hear(1)
    until(lambda: script.made, "the first frame is taken")
    seconds = 40
    for _ in range(seconds):
        bench.ring.write(np.zeros(SAMPLES, np.int16))
    script.hold.set()
    total = 1 + round(seconds / 0.08)
    bench.stepped(total)
    assert [s.step_idx for s in bench.of(Step)] == list(range(total))
    (error,) = bench.of(Error)
    assert "too slow" in error.message
    assert bench.ring.dropped > 0


def test_a_failure_inside_is_an_error_and_the_next_session_goes_on_in_stream_time(
    bench: Bench, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the recogniser once ended the thread of a peer: deaf, but "running"."""
    monkeypatch.setattr(module, "_BACK_OFF_S", (0.2,))
    script.fail_at = {5}
    bench.hear(10)
    until(lambda: bench.of(Error), "an error")
    time.sleep(0.3)
    bench.hear(5)
    bench.stepped(15)
    assert len(script.made) == 2
    assert bench.of(Error)[0].code == 1011
    assert bench.engine.failures == 1
    assert [s.step_idx for s in bench.of(Step)] == list(range(15))
    assert len(bench.of(Text)) == 4 + 5
    assert bench.of(Text)[-1].start_s == pytest.approx(14 * 0.08)
    assert not bench.of(EndOfStream)


def test_failures_in_a_row_wait_longer_and_never_end_the_thread(
    bench: Bench, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BACK_OFF_S", (0.05, 0.1, 60.0))
    script.fail_at = set(range(1, 1000))
    deadline = time.monotonic() + 0.6
    while time.monotonic() < deadline:
        bench.hear(1)
        time.sleep(0.01)
    assert bench.engine.failures == 3
    assert bench.engine.submit(Restart())
    script.fail_at = set()
    until(lambda: (bench.hear(1), bench.of(Text))[1], "it hears again after a restart")


def test_the_end_of_hearing_finishes_the_sentence_and_the_stream_goes_on(bench, script) -> None:
    bench.hear(10)
    bench.stepped(10)
    bench.engine.submit(End())
    until(lambda: bench.of(Turn), "the turn")
    bench.hear(10)
    bench.stepped(20)
    assert len(script.made) == 2
    assert [s.step_idx for s in bench.of(Step)] == list(range(20))
    assert not bench.of(EndOfStream)


def test_new_options_reach_the_open_session_and_the_next_one(bench, script) -> None:
    bench.hear(1)
    bench.stepped(1)
    bench.order(Configure(Options(temp=0.5)))
    bench.hear(1)
    bench.stepped(2)
    assert script.made[0].options.temp == 0.5
    bench.order(End())
    bench.hear(1)
    bench.stepped(3)
    assert script.made[1].options.temp == 0.5


def test_other_models_are_used_them_from_the_next_session(bench, script) -> None:
    bench.hear(1)
    bench.stepped(1)
    bench.order(Configure(Options(temp=0.5), "other"))
    bench.hear(1)
    bench.stepped(2)
    assert [s.models for s in script.made] == ["models", "other"]
    assert script.made[1].options.temp == 0.5
    assert bench.engine.rejected["noise"] == 2


def test_speaking_is_told_on_a_change_only_and_ends_with_the_session(bench, script) -> None:
    script.loud = True
    bench.hear(5)
    bench.stepped(5)
    bench.engine.submit(End())
    until(lambda: len(bench.speaking) == 2, "speaking ends")
    assert bench.speaking == [True, False]


def test_a_listener_that_fails_does_not_stop_the_engine(script: Script) -> None:
    bench = Bench()
    calls: list[int] = []

    def listener(events: object) -> None:
        calls.append(1)
        raise ValueError

    bench.engine = Engine(bench.ring, "m", Options(), listener, bench.speaking.append)  # type: ignore[arg-type]
    bench.engine.start()
    bench.hear(3)
    until(lambda: len(calls) >= 3, "three calls")
    assert bench.engine.stop(5)


def test_commands_beyond_the_bound_are_refused_not_queued(bench, script) -> None:
    script.hold = threading.Event()
    bench.hear(1)
    until(lambda: script.made, "the engine is busy")
    taken = [bench.engine.submit(Flush(n, list)) for n in range(100)]
    assert taken.count(True) == module.MAX_FLUSHES
    assert bench.engine.submit(End())  # the daemon's own always find room


def test_an_idle_engine_beats(bench: Bench) -> None:
    before = bench.engine.heartbeat
    until(lambda: bench.engine.heartbeat > before, "a heartbeat", 3)


def test_stopping_gives_up_on_a_hanging_recogniser_in_time(bench, script) -> None:
    script.hold = threading.Event()
    bench.hear(1)
    until(lambda: script.made, "the engine hangs")
    started = time.monotonic()
    assert not bench.engine.stop(0.3)
    assert time.monotonic() - started < 2


def test_the_last_words_do_not_wait_for_the_second_pass(bench, script) -> None:
    """On a busy machine "the recogniser did not end in time" was seen at Ctrl-C: it waited for the
    second pass without a limit, and the words of the unfinished sentence, which had been there at
    once, were lost with it."""
    script.second_pass = threading.Event()
    bench.hear(1)
    bench.stepped(1)
    assert bench.engine.stop(2.0), "it ended in time"
    assert [t.text for t in bench.of(Text)][-1] == "last"
    assert isinstance(bench.events[-1], EndOfStream)


def test_a_late_engine_stops_in_time_and_says_what_it_has_heard(bench, script) -> None:
    script.push_s = 0.05
    bench.hear(300)  # 15 s of work
    bench.stepped(1)
    assert bench.engine.submit(Flush("mine", list))
    assert bench.engine.stop(2.0)
    assert [t.text for t in bench.of(Text)][-1] == "last"
    assert [f.flush_id for f in bench.of(Flushed)] == ["mine"]


def test_events_are_moved_to_stream_time_whole() -> None:
    turn = Turn("a", 1.0, 2.0, (Word("a", 1.0, 2.0),))
    assert in_stream(turn, 100) == Turn("a", 9.0, 10.0, (Word("a", 9.0, 10.0),))
    assert in_stream(Step(3), 100) == Step(103)
    assert in_stream(Text("a", 1.0), 100) == Text("a", 9.0)
    assert in_stream(EndText(1.0), 100) == EndText(9.0)
    assert in_stream(Flushed("x"), 100) == Flushed("x")
