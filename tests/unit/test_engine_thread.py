"""The engine thread with a scripted session: order, stream time, failures, the end of stream."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edged import STEP_SAMPLES
from edged.audio.ring import Ring
from edged.engine import engine_thread as module
from edged.engine.engine_thread import (
    ConfigureCommand,
    EndCommand,
    Engine,
    EngineCommand,
    FlushCommand,
    RestartCommand,
    in_stream,
)
from edged.engine.load_level import LAST_LEVEL, LoadLevel
from edged.events import EndOfStream, EndText, Error, Event, Flushed, Step, Text, Turn, Word
from edged.options import Options
from tests.support.mosquitto import until

SAMPLES = 24_000
MODELS: Any = SimpleNamespace(name="tiny-en", load_level=0, second_opinion=None)
OTHER: Any = SimpleNamespace(name="other", load_level=2, second_opinion=None)


@dataclass
class Script:
    """What the sessions do, and what was done to them."""

    fail_at: set[int] = field(default_factory=set)  # frames, over all sessions
    hold: threading.Event | None = None
    answers_late: bool = False  # flushes, and the words of `finish`, come with `collect`
    lost: int = 0
    use: float = 0.0  # seconds of work for a second of audio
    lag_s: float = 0.0
    second_pass: threading.Event | None = None  # what `end` waits for
    push_s: float = 0.0
    made: list[Any] = field(default_factory=list)
    backlog: list[bool] = field(default_factory=list)
    frames: int = 0
    loud: bool = False


class ScriptedSession:
    """Gives one word for each frame, named after its step."""

    script: Script
    is_recognising = True

    def __init__(
        self,
        models: object,
        options: Options,
        executor: object,
        recogniser_executor: object,
        on_result: Callable[[], None],
    ) -> None:
        self.models, self.options = models, options
        self.on_result = on_result
        self.known: list[Event] = []
        self.lost = self.script.lost
        self.closed = False
        self.load_level = LoadLevel.FULL
        self.step_idx = 0
        self.speaking = False
        self.dropped: Counter[str] = Counter()
        self.smart_turn_failures = 0
        self.script.made.append(self)

    @property
    def lag_s(self) -> float:
        return self.script.lag_s

    @property
    def recogniser_busy_s(self) -> float:
        return self.script.use * self.step_idx * 0.08

    def set_load_level(self, level: LoadLevel) -> None:
        self.load_level = level

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
        self.smart_turn_failures += 1
        self.step_idx += 1
        at = (self.step_idx - 1) * 0.08
        return [Text(f"w{self.step_idx - 1}", at), EndText(at + 0.08), Step(self.step_idx - 1)]

    def gap(self, samples: int) -> list[Event]:
        steps = samples // STEP_SAMPLES
        self.step_idx += steps
        return [Step(self.step_idx - steps + i) for i in range(steps)]

    def flush(self, flush_id: int | str) -> list[Event]:
        answer: list[Event] = [Text("flushed", 0.0), Flushed(flush_id)]
        if not self.script.answers_late:
            return answer
        self.known += answer
        return []

    def collect(self) -> list[Event]:
        known, self.known = self.known, []
        return known

    def close(self) -> None:
        self.closed = True

    def finish(self, timeout_s: float) -> list[Event]:
        return [*self.collect(), Text("last", 0.0)]

    def end(self, timeout_s: float) -> list[Event]:
        at = self.step_idx * 0.08
        if self.script.second_pass is not None and not self.script.second_pass.wait(timeout_s):
            return [EndOfStream()]
        return [Turn("turn", 0.0, at, (Word("turn", 0.0, at),)), EndOfStream()]

    def configure(self, options: Options) -> None:
        self.options = options


class RunningEngine:
    """An engine over a ring that the test fills."""

    def __init__(self) -> None:
        self.ring = Ring()
        self.events: list[Event] = []
        self.speaking: list[bool] = []
        self.engine = Engine(
            self.ring,
            MODELS,
            Options(),
            self.events.extend,
            self.speaking.append,
            session_factory=ScriptedSession,  # type: ignore[arg-type]
        )

    def write(self, steps: int) -> None:
        self.ring.write(np.zeros(steps * STEP_SAMPLES, np.int16))

    def submit(self, command: EngineCommand) -> None:
        """Submits it and waits until it is done: a flush behind it is answered."""
        done = threading.Event()
        assert self.engine.submit(command)
        assert self.engine.submit(FlushCommand("done", done.set))
        assert done.wait(5)

    def of(self, kind: type) -> list[Any]:
        return [e for e in list(self.events) if isinstance(e, kind)]

    def stepped(self, count: int) -> None:
        until(lambda: len(self.of(Step)) >= count, f"{count} steps: {len(self.of(Step))}")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(ScriptedSession, "script", made, raising=False)
    return made


@pytest.fixture
def running(script: Script) -> Iterator[RunningEngine]:
    found = RunningEngine()
    found.engine.start()
    yield found
    if script.hold is not None:
        script.hold.set()
    found.engine.stop(5)


def test_every_step_is_given_in_order_and_the_end_comes_last(running: RunningEngine) -> None:
    running.write(30)
    running.stepped(30)
    assert running.engine.stop(5)
    assert [s.step_idx for s in running.of(Step)] == list(range(30))
    assert isinstance(running.events[-2], Turn)
    assert isinstance(running.events[-1], EndOfStream)
    assert len(running.of(EndOfStream)) == 1


def test_a_flush_is_answered_after_all_audio_heard_before_it(
    running: RunningEngine, script: Script
) -> None:
    script.hold = threading.Event()
    running.write(40)
    done = threading.Event()
    assert running.engine.submit(FlushCommand("ab", done.set))
    script.hold.set()
    assert done.wait(5)
    before = running.events[: running.events.index(Flushed("ab"))]
    assert len([e for e in before if isinstance(e, Step)]) == 40
    assert running.of(Flushed) == [Flushed("ab")]


def test_a_flush_is_answered_when_the_recogniser_is_done_and_steps_go_on_before(
    running: RunningEngine, script: Script
) -> None:
    """A flush waited for the recogniser: on a slow device no step came in the meantime."""
    script.answers_late = True
    running.write(5)
    running.stepped(5)
    done = threading.Event()
    assert running.engine.submit(FlushCommand("late", done.set))
    running.write(5)
    running.stepped(10)
    until(lambda: done.is_set() or not script.made[0].known, "collected")
    script.made[0].on_result()
    assert done.wait(5)
    assert running.of(Flushed) == [Flushed("late")]
    assert len(running.of(Step)) == 10


def test_flushes_that_wait_for_the_recogniser_are_bounded(
    running: RunningEngine, script: Script
) -> None:
    """Only flushes that waited for the engine were counted. While the recogniser hung, the engine
    took any number of them."""
    script.answers_late = True
    running.write(1)
    running.stepped(1)
    script.made[0].collect = list
    answered: list[int] = []
    accepted = 0
    for n in range(3 * module.MAX_FLUSHES):
        accepted += running.engine.submit(FlushCommand(n, lambda: answered.append(1)))
        until(lambda: running.engine._commands.empty(), "the engine has taken it")
    assert accepted <= module.MAX_FLUSHES + 1
    assert running.engine.submit(EndCommand()), "the daemon's own commands find room"
    until(lambda: len(answered) == accepted, "all are answered")
    assert running.engine.submit(FlushCommand("again", lambda: None))


def test_words_are_emitted_when_they_are_known_and_not_at_the_next_step(
    running: RunningEngine, script: Script
) -> None:
    running.write(1)
    running.stepped(1)
    script.made[0].known.append(Text("between", 0.0))
    script.made[0].on_result()
    until(lambda: "between" in [t.text for t in running.of(Text)], "the word", 0.9)
    assert len(running.of(Step)) == 1


def test_a_flush_whose_session_fails_is_answered(running: RunningEngine, script: Script) -> None:
    script.answers_late = True
    script.fail_at = {2}
    running.write(1)
    running.stepped(1)
    script.made[0].collect = list
    done = threading.Event()
    assert running.engine.submit(FlushCommand("x", done.set))
    running.write(1)
    assert done.wait(5)
    kinds = [type(e) for e in running.events]
    assert kinds.index(Error) < kinds.index(Flushed)
    assert script.made[0].closed


def test_audio_that_the_session_gave_up_is_reported(running: RunningEngine, script: Script) -> None:
    script.lost = SAMPLES
    running.write(1)
    until(lambda: running.of(Error), "an error")
    assert "1.0 s of audio were lost" in running.of(Error)[0].message
    assert running.engine.lost_s == 1.0
    running.submit(EndCommand())
    assert running.engine.lost_s == 1.0


def test_a_slow_device_steps_down_and_says_once_that_it_is_too_slow(
    running: RunningEngine, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.use, script.lag_s = 1.2, 1.5
    for count in range(1, 9):
        running.write(25)
        running.stepped(25 * count)
    until(lambda: running.engine.too_slow, "too slow")
    assert running.engine.load_level == LAST_LEVEL
    assert script.made[0].load_level == LAST_LEVEL
    (error,) = running.of(Error)
    assert "too slow for the model tiny-en" in error.message
    assert "EDGED_MODEL" in error.message
    codes = [record.EDGED_CODE for record in caplog.records if hasattr(record, "EDGED_CODE")]
    assert codes == ["load-level"] * int(LAST_LEVEL) + ["too-slow"]


def test_the_load_level_goes_on_in_the_next_session_and_other_models_have_their_own(
    running: RunningEngine, script: Script
) -> None:
    script.use, script.lag_s = 1.2, 0.5
    running.write(60)
    running.stepped(60)
    running.submit(RestartCommand())
    level = running.engine.load_level
    assert level == LoadLevel.GREEDY, "two windows of two seconds"
    script.use = 0.6
    running.write(1)
    running.stepped(61)
    assert script.made[1].load_level == level
    running.submit(ConfigureCommand(Options(), OTHER))
    running.write(1)
    running.stepped(62)
    assert script.made[2].load_level == running.engine.load_level == LoadLevel.GREEDY


def test_a_flush_without_any_audio_is_answered_at_once(running: RunningEngine) -> None:
    done = threading.Event()
    running.engine.submit(FlushCommand(7, done.set))
    assert done.wait(5)
    assert running.events == [Flushed(7)]


def test_a_stalled_engine_catches_up_in_larger_chunks_with_true_times(
    running: RunningEngine, script: Script
) -> None:
    """Inference stalls for 3 s: nothing is lost, and the words' times are those of the audio."""
    script.hold = threading.Event()
    for _ in range(38):  # 3 s come in while it hangs
        running.write(1)
    script.hold.set()
    running.stepped(38)
    assert running.ring.dropped == 0
    assert any(script.backlog)
    assert not script.backlog[-1]
    assert [t.start_s for t in running.of(Text)] == [i * 0.08 for i in range(38)]


def test_audio_dropped_by_the_ring_is_told_once_and_time_stays_true(
    running: RunningEngine, script: Script
) -> None:
    script.hold = threading.Event()
    running.write(1)
    until(lambda: script.made, "the first frame is taken")
    seconds = 40
    for _ in range(seconds):
        running.ring.write(np.zeros(SAMPLES, np.int16))
    script.hold.set()
    total = 1 + round(seconds / 0.08)
    running.stepped(total)
    assert [s.step_idx for s in running.of(Step)] == list(range(total))
    (error,) = running.of(Error)
    assert "too slow" in error.message
    assert running.ring.dropped > 0


def test_a_failure_inside_is_an_error_and_the_next_session_goes_on_in_stream_time(
    running: RunningEngine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the recogniser once ended the thread of a peer: deaf, but "running"."""
    monkeypatch.setattr(module, "_BACKOFF_S", (0.2,))
    script.fail_at = {5}
    running.write(10)
    until(lambda: running.of(Error), "an error")
    time.sleep(0.3)
    running.write(5)
    running.stepped(15)
    assert len(script.made) == 2
    assert running.of(Error)[0].code == 1011
    assert running.engine.failures == 1
    assert [s.step_idx for s in running.of(Step)] == list(range(15))
    assert len(running.of(Text)) == 4 + 5
    assert running.of(Text)[-1].start_s == pytest.approx(14 * 0.08)
    assert not running.of(EndOfStream)


def test_failures_in_a_row_wait_longer_and_never_end_the_thread(
    running: RunningEngine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BACKOFF_S", (0.05, 0.1, 60.0))
    script.fail_at = set(range(1, 1000))
    deadline = time.monotonic() + 0.6
    while time.monotonic() < deadline:
        running.write(1)
        time.sleep(0.01)
    assert running.engine.failures == 3
    assert running.engine.submit(RestartCommand())
    script.fail_at = set()
    until(lambda: (running.write(1), running.of(Text))[1], "it hears again after a restart")


def test_the_end_of_hearing_finishes_the_sentence_and_the_stream_goes_on(
    running: RunningEngine, script: Script
) -> None:
    running.write(10)
    running.stepped(10)
    running.engine.submit(EndCommand())
    until(lambda: running.of(Turn), "the turn")
    running.write(10)
    running.stepped(20)
    assert len(script.made) == 2
    assert [s.step_idx for s in running.of(Step)] == list(range(20))
    assert not running.of(EndOfStream)


def test_new_options_reach_the_open_session_and_the_next_one(
    running: RunningEngine, script: Script
) -> None:
    running.write(1)
    running.stepped(1)
    running.submit(ConfigureCommand(Options(temp=0.5)))
    running.write(1)
    running.stepped(2)
    assert script.made[0].options.temp == 0.5
    running.submit(EndCommand())
    running.write(1)
    running.stepped(3)
    assert script.made[1].options.temp == 0.5


def test_other_models_are_used_them_from_the_next_session(
    running: RunningEngine, script: Script
) -> None:
    running.write(1)
    running.stepped(1)
    running.submit(ConfigureCommand(Options(temp=0.5), OTHER))
    running.write(1)
    running.stepped(2)
    assert [s.models for s in script.made] == [MODELS, OTHER]
    assert script.made[1].options.temp == 0.5
    assert running.engine.rejected["noise"] == 2
    assert running.engine.smart_turn_failures == 2


def test_models_and_options_are_those_that_were_asked_for_although_a_turn_is_still_ended(
    running: RunningEngine, script: Script
) -> None:
    """`info` was published with the model and the language before the change, and kept them: the
    engine was still ending the open turn."""
    script.second_pass = threading.Event()
    running.write(1)
    running.stepped(1)
    running.engine.submit(ConfigureCommand(Options(language="de"), OTHER))
    assert running.engine.models is OTHER
    assert running.engine.options.language == "de"
    running.engine.submit(ConfigureCommand(Options(language="fr")))
    assert running.engine.models is OTHER
    assert running.engine.options.language == "fr"
    script.second_pass.set()


def test_speaking_is_told_on_a_change_only_and_ends_with_the_session(
    running: RunningEngine, script: Script
) -> None:
    script.loud = True
    running.write(5)
    running.stepped(5)
    running.engine.submit(EndCommand())
    until(lambda: len(running.speaking) == 2, "speaking ends")
    assert running.speaking == [True, False]


def test_a_listener_that_fails_does_not_stop_the_engine(script: Script) -> None:
    running = RunningEngine()
    calls: list[int] = []

    def listener(events: object) -> None:
        calls.append(1)
        raise ValueError

    running.engine = Engine(
        running.ring,
        MODELS,
        Options(),
        listener,
        running.speaking.append,
        session_factory=ScriptedSession,  # type: ignore[arg-type]
    )
    running.engine.start()
    running.write(3)
    until(lambda: len(calls) >= 3, "three calls")
    assert running.engine.stop(5)


def test_commands_beyond_the_bound_are_refused_not_queued(
    running: RunningEngine, script: Script
) -> None:
    script.hold = threading.Event()
    running.write(1)
    until(lambda: script.made, "the engine is busy")
    taken = [running.engine.submit(FlushCommand(n, list)) for n in range(100)]
    assert taken.count(True) == module.MAX_FLUSHES
    assert running.engine.submit(EndCommand())  # the daemon's own always find room


def test_an_idle_engine_beats(running: RunningEngine) -> None:
    before = running.engine.heartbeat
    until(lambda: running.engine.heartbeat > before, "a heartbeat", 3)


def test_stopping_gives_up_on_a_hanging_recogniser_in_time(
    running: RunningEngine, script: Script
) -> None:
    script.hold = threading.Event()
    running.write(1)
    until(lambda: script.made, "the engine hangs")
    started = time.monotonic()
    assert not running.engine.stop(0.3)
    assert time.monotonic() - started < 2


def test_the_last_words_do_not_wait_for_the_second_pass(
    running: RunningEngine, script: Script
) -> None:
    """On a busy machine "the recogniser did not end in time" was seen at Ctrl-C: it waited for the
    second pass without a limit, and the words of the unfinished sentence, which had been there at
    once, were lost with it."""
    script.second_pass = threading.Event()
    running.write(1)
    running.stepped(1)
    assert running.engine.stop(2.0), "it ended in time"
    assert [t.text for t in running.of(Text)][-1] == "last"
    assert isinstance(running.events[-1], EndOfStream)


def test_a_late_engine_stops_in_time_and_says_what_it_has_heard(
    running: RunningEngine, script: Script
) -> None:
    script.push_s = 0.05
    running.write(300)  # 15 s of work
    running.stepped(1)
    assert running.engine.submit(FlushCommand("mine", list))
    assert running.engine.stop(2.0)
    assert [t.text for t in running.of(Text)][-1] == "last"
    assert [f.flush_id for f in running.of(Flushed)] == ["mine"]


def test_an_engine_that_is_slower_than_the_audio_stops_in_time_too(
    running: RunningEngine, script: Script
) -> None:
    """It finished two seconds of waiting audio before it saw that it was to stop, under load for
    longer than there was time, and the last words of the sentence were lost."""
    script.push_s = 0.15
    running.write(300)
    running.stepped(1)
    assert running.engine.stop(2.0)
    assert [t.text for t in running.of(Text)][-1] == "last"


def test_events_are_moved_to_stream_time_whole() -> None:
    turn = Turn("a", 1.0, 2.0, (Word("a", 1.0, 2.0),))
    assert in_stream(turn, 100) == Turn("a", 9.0, 10.0, (Word("a", 9.0, 10.0),))
    assert in_stream(Step(3), 100) == Step(103)
    assert in_stream(Text("a", 1.0), 100) == Text("a", 9.0)
    assert in_stream(EndText(1.0), 100) == EndText(9.0)
    assert in_stream(Flushed("x"), 100) == Flushed("x")
