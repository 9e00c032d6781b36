"""A session whose recogniser runs on an executor: the same words and the same contract, however its
jobs and the session's calls are interleaved."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged import STEP_S, STEP_SAMPLES
from edged.audio.sample_history import SampleHistory
from edged.engine.background_worker import BackgroundWorker, InlineExecutor
from edged.engine.recogniser_queue import RecogniserQueue
from edged.engine.session import KEPT_LAG_S, MAX_LAG_S, Session
from edged.events import EndOfStream, EndText, Event, Flushed, Step, Text, Turn, Word
from edged.options import Options
from edged.stt.decoder import DecodedText
from edged.stt.family import RATE, EncoderOutput, LanguageTraits
from edged.stt.recogniser import FinishedSegment
from edged.stt.second_pass import Transcript
from edged.vad.inactivity import FEATURES, Weights
from tests.support.executors import FailingExecutor, ManualExecutor
from tests.support.fake_recogniser import FakeRecogniser, ScriptedVoice
from tests.support.mosquitto import until
from tests.support.toy_speech_model import PROMPTS, ToySpeechModel, script, sentence

FRAME = np.zeros(STEP_SAMPLES, np.int16)
# After 1 s of silence the turn model of these tests finds an end likely.
WEIGHTS = np.zeros((3, len(FEATURES)))
WEIGHTS[:, FEATURES.index("bias")] = -6.0
WEIGHTS[:, FEATURES.index("silence_1")] = 12.0

Spans = Sequence[tuple[float, float]]
Speech = st.lists(st.tuples(st.floats(0.7, 4.0), st.floats(0.3, 2.5)), min_size=1, max_size=4)


def spans_of(durations: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(speech, silence) durations as spans of speech, in seconds, after 0.5 s of silence."""
    spans, now = [], 0.5
    for speech_s, silence_s in durations:
        spans.append((now, now + speech_s))
        now += speech_s + silence_s
    return spans


def words_in(spans: Spans) -> list[Word]:
    """A word each 0.3 s of speech, numbered."""
    words: list[Word] = []
    for start, stop in spans:
        at = start + 0.05
        while at + 0.25 < stop:
            words.append(Word(f"w{len(words)}", at, at + 0.2))
            at += 0.3
    return words


@dataclass
class CountingModel(ToySpeechModel):
    """encoded: how often it encoded a whole segment."""

    encoded: int = 0

    def encode(self, samples: NDArray[np.float32]) -> EncoderOutput | None:
        self.encoded += 1
        return super().encode(samples)


class Stream:
    """A session with a fake recogniser; keeps all its events."""

    def __init__(
        self,
        spans: Spans,
        recogniser_executor: Executor,
        executor: Executor | None = None,
        decoded: DecodedText | None = None,
        turns: bool = True,
    ) -> None:
        self.words = words_in(spans)
        self.recogniser = FakeRecogniser(self.words, decoded)
        models = SimpleNamespace(
            smart_turn=None,
            inactivity=Weights(WEIGHTS),
            second_opinion=None,
            recogniser=SimpleNamespace(
                languages={"en": LanguageTraits()},
                vocabulary=SimpleNamespace(text=lambda tokens: "and so."),
            ),
        )
        self.session = Session(
            models,  # type: ignore[arg-type]
            Options(turns=turns),
            executor,
            voice_detector=ScriptedVoice(spans),
            recogniser=self.recogniser,
            second_pass=self.recogniser.second_pass,
            recogniser_executor=recogniser_executor,
        )
        self.events: list[Event] = []
        self.keep_up: ManualExecutor | None = None  # runs a job when the recogniser is far behind
        self.seconds = spans[-1][1] + 2.0

    def push(self, steps: int = 1) -> None:
        for _ in range(steps):
            before = len(self.events)
            self.events += self.session.push(FRAME)
            if self.keep_up is not None and self.session.lag_s > 5:
                self.keep_up.run_next()
            assert sum(isinstance(e, Step) for e in self.events[before:]) == 1

    def push_rest(self) -> None:
        self.push(max(0, round(self.seconds / STEP_S) - self.session.step_idx))

    def of(self, kind: type[Any]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    @property
    def said(self) -> list[str]:
        return [e.text for e in self.of(Text)]


def check_contract(stream: Stream) -> None:
    """What every stream of events keeps to."""
    steps = [e.step_idx for e in stream.of(Step)]
    assert steps == list(range(len(steps))), "one step for each frame, in order"
    assert len(stream.said) == len(set(stream.said)), "nothing is said twice"
    spoken = [type(e) for e in stream.events if isinstance(e, Text | EndText)]
    assert spoken == [Text, EndText] * len(stream.said)
    for position, event in enumerate(stream.events):
        if isinstance(event, Flushed):
            flushed_at_s = float(event.flush_id)
            later = stream.events[position:]
            late = [e for e in later if isinstance(e, Text) and e.start_s < flushed_at_s - 1e-6]
            assert not late, "no text for the audio before a flush follows its `flushed`"


Action = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 12)),
    st.tuples(st.just("run"), st.integers(1, 3)),
    st.tuples(st.just("collect"), st.just(0)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("gap"), st.integers(1, 4 * STEP_SAMPLES)),
    st.tuples(st.just("configure"), st.sampled_from([7, 10, 48])),
    st.tuples(st.just("finish"), st.just(0)),
)


def play(
    stream: Stream, actions: Sequence[tuple[str, int]], executor: ManualExecutor | None
) -> None:
    """Does the actions, then pushes the rest of the audio and ends the session."""
    stream.keep_up = executor
    for name, number in actions:
        match name:
            case "push":
                stream.push(number)
            case "run" if executor is not None:
                for _ in range(number):
                    executor.run_next()
            case "collect":
                stream.events += stream.session.collect()
            case "flush":
                at_s = stream.session.step_idx * STEP_S
                stream.events += stream.session.flush(f"{at_s:.2f}")
            case "gap":
                stream.events += stream.session.gap(number)
            case "configure":
                stream.session.configure(Options(delay_in_frames=number))
            case "finish":
                stream.events += stream.session.finish()
    stream.push_rest()
    stream.events += stream.session.finish()
    if executor is not None:
        executor.run_all()  # second passes, for which `end` waits
    stream.events += stream.session.end()


@settings(deadline=None, max_examples=30)
@given(Speech, st.lists(Action, max_size=40))
def test_whatever_the_interleaving_the_words_are_those_of_an_inline_run(
    durations: Sequence[tuple[float, float]], actions: list[tuple[str, int]]
) -> None:
    spans = spans_of(durations)
    inline = Stream(spans, InlineExecutor())
    play(inline, actions, None)
    executor = ManualExecutor()
    background = Stream(spans, executor)
    play(background, actions, executor)
    for stream in (inline, background):
        check_contract(stream)
        assert stream.events[-1] == EndOfStream()
    assert background.said == inline.said
    assert [e.flush_id for e in background.of(Flushed)] == [e.flush_id for e in inline.of(Flushed)]
    assert [t.text for t in background.of(Turn)] == [t.text for t in inline.of(Turn)]


@settings(deadline=None, max_examples=30)
@given(Speech, st.lists(Action, max_size=40), st.booleans())
def test_text_evidence_that_comes_late_costs_no_word_and_no_turn(
    durations: Sequence[tuple[float, float]], actions: list[tuple[str, int]], shared: bool
) -> None:
    """The evidence depends on when jobs are done, and so does where turns end; their words do not.
    The second pass may run on any executor."""
    spans = spans_of(durations)
    sure_end = DecodedText([1], [1], [0.99], p_eos=0.99)
    executor = ManualExecutor()
    stream = Stream(spans, executor, executor if shared else None, sure_end)
    play(stream, actions, executor)
    check_contract(stream)
    in_turns = [word.text for turn in stream.of(Turn) for word in turn.words]
    assert in_turns == stream.said


def test_a_push_does_not_wait_for_the_recogniser_and_one_job_covers_what_arrived_since() -> None:
    executor = ManualExecutor()
    stream = Stream([(0.5, 4.0)], executor)
    stream.push(30)
    assert len(executor.jobs) == 1
    assert stream.recogniser.updates == []
    assert len(stream.of(Step)) == 30
    executor.run_next()
    assert len(stream.recogniser.updates) == 1
    executor.run_all()
    stream.push(5)
    assert len(executor.jobs) == 1, "one job at a time"
    executor.run_next()
    assert len(stream.recogniser.updates) == 2
    reads = stream.recogniser.updates
    assert reads[0][1] == reads[1][0]
    assert reads[1][1] - reads[1][0] == pytest.approx(5 * 1280, abs=100)


def test_words_come_before_the_next_step_or_at_once_to_who_collects() -> None:
    executor = ManualExecutor()
    stream = Stream([(0.5, 4.0)], executor)
    stream.push(25)
    executor.run_all()
    assert stream.said == []
    stream.push()
    assert stream.said
    assert isinstance(stream.events[-1], Step)
    assert isinstance(stream.events[-2], EndText)
    stream.push(10)
    executor.run_all()
    known = stream.session.collect()
    assert [type(e) for e in known[:2]] == [Text, EndText]
    assert stream.session.collect() == []


def test_flush_does_not_wait_and_is_answered_after_its_words() -> None:
    executor = ManualExecutor()
    stream = Stream([(0.5, 4.0)], executor)
    stream.push(25)
    assert stream.session.flush(7) == []
    stream.push(3)
    assert not stream.of(Flushed)
    executor.run_all()
    answer = stream.session.collect()
    assert answer[-1] == Flushed(7)
    assert [e.text for e in answer if isinstance(e, Text)] == [
        w.text for w in stream.words if w.start_s < 2.0
    ]


def test_long_unread_audio_is_read_in_several_updates() -> None:
    """A segment has room for so much audio beyond the age at which it is cut."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 9.0)], executor)
    stream.push(100)
    executor.run_all()
    longest = max(stop - start for start, stop in stream.recogniser.updates)
    assert len(stream.recogniser.updates) > 1
    assert longest <= 2.7 * 16000


def test_a_recogniser_that_falls_far_behind_skips_audio_and_counts_it() -> None:
    executor = ManualExecutor()
    stream = Stream([(0.5, 30.0)], executor)
    stream.push(round((MAX_LAG_S + 1.0) / STEP_S))
    assert stream.session.lost == pytest.approx((MAX_LAG_S - KEPT_LAG_S) * 24000, abs=5000)
    assert stream.session.lag_s < KEPT_LAG_S + 1.0
    executor.run_all()
    stream.push(round(5 / STEP_S))
    executor.run_all()
    stream.events += stream.session.end()
    check_contract(stream)
    skipped_to_s = MAX_LAG_S - KEPT_LAG_S
    assert [w for w in stream.said if stream.words[int(w[1:])].start_s > skipped_to_s + 2]


def test_a_recogniser_that_is_just_fast_enough_loses_nothing_of_unbroken_speech() -> None:
    """One job in 1.6 s: each covers all that has arrived since the one before."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 400.0)], executor, turns=False)
    stream.session.turn_detector.push = (  # type: ignore[method-assign]
        lambda *arguments: (0.0, 0.0, 0.0)
    )
    for _ in range(round(400 / STEP_S) // 20):
        stream.push(20)
        executor.run_next()
        stream.events.clear()
    assert stream.session.lost == 0
    assert stream.session.lag_s < 2.0


def test_a_failure_of_the_recogniser_reaches_the_caller_after_the_words_before_it() -> None:
    executor = ManualExecutor()
    stream = Stream([(0.5, 9.0)], executor)
    stream.recogniser.fail_at = 3 * 16000
    stream.push(30)
    executor.run_all()
    stream.push(20)
    executor.run_all()
    with pytest.raises(RuntimeError, match="scripted failure"):
        stream.push(2)
    assert stream.said, "what was known before the failure was given"


def test_an_executor_that_refuses_jobs_fails_the_session_instead_of_losing_words() -> None:
    stream = Stream([(0.5, 9.0)], FailingExecutor())
    with pytest.raises(MemoryError):
        stream.push(30)


def test_a_recogniser_that_hangs_does_not_keep_the_session_from_ending() -> None:
    class Hangs(ManualExecutor):
        def run_next(self) -> bool:
            return False

    stream = Stream([(0.5, 9.0)], Hangs())
    stream.push(50)
    assert stream.session.finish(timeout_s=0.01) == []
    assert stream.session.end(timeout_s=0.01) == [EndOfStream()]


@pytest.mark.parametrize("cut_s", [None, 3.0], ids=["one segment", "another segment before"])
def test_the_end_gives_the_words_of_a_recogniser_that_hangs_as_a_turn(cut_s: float | None) -> None:
    """The turn of a stream that ended while the recogniser hung was missing, or lacked the words of
    its last segment, although they had been given as text."""

    class HangsLater(ManualExecutor):
        hangs = False

        def run_next(self) -> bool:
            return not self.hangs and super().run_next()

    executor = HangsLater()
    stream = Stream([(0.5, 9.0)], executor)
    stream.recogniser.cut_s = cut_s
    for _ in range(20):
        stream.push(4)
        executor.run_all()
    stream.push()
    executor.hangs = True
    stream.events += stream.session.end(timeout_s=0.01)
    (turn,) = stream.of(Turn)
    assert stream.said
    assert [word.text for word in turn.words] == stream.said


def test_a_closed_session_calls_nobody_and_its_job_does_not_run() -> None:
    executor = ManualExecutor()
    stream = Stream([(0.5, 9.0)], executor)
    stream.push(50)
    stream.session.close()
    executor.run_all()
    assert stream.recogniser.updates == []
    assert stream.session.collect() == []


def test_a_closed_session_cancels_the_second_passes_that_wait() -> None:
    """Its audio was kept, and decoded for nobody, before the second passes of other streams."""
    background, recogniser_jobs = ManualExecutor(), ManualExecutor()
    stream = Stream([(0.5, 2.0), (4.0, 5.5)], recogniser_jobs, background)
    for _ in range(100):
        stream.push()
        recogniser_jobs.run_all()
    assert background.jobs
    stream.session.close()
    assert not background.run_next()


def test_the_second_pass_has_the_language_that_its_segment_had() -> None:
    """It took the language in force when it ran: a change met the audio before it."""
    background = ManualExecutor()
    model = ToySpeechModel(script(*sentence("turn the lights off please", 25)))
    models = SimpleNamespace(
        smart_turn=None,
        inactivity=Weights(WEIGHTS),
        recogniser=model,
        second_opinion=None,
    )
    first, second = (Options(language=code) for code in list(PROMPTS)[:2])
    session = Session(
        models,  # type: ignore[arg-type]
        first,
        background,
        voice_detector=ScriptedVoice([(0.5, 3.0)]),
    )
    for _ in range(60):
        session.push(FRAME)
    session.configure(second)
    assert background.jobs, "the second pass"
    background.run_all()
    assert model.asked_prompt == PROMPTS[first.language]


@pytest.mark.parametrize("cut", [False, True], ids=["as it ended", "cut by the recogniser"])
def test_the_second_pass_encodes_while_the_recogniser_reads_the_end(cut: bool) -> None:
    """The encoder waited for the recogniser, which a client felt after its last word."""
    background, recogniser_jobs = ManualExecutor(), ManualExecutor()
    text = "turn the lights in the kitchen off and close the window please"
    model = CountingModel(script(*sentence(text, 25)))
    if cut:
        model.tuned = replace(model.tuned, max_segment_s=2.5)
    models = SimpleNamespace(
        smart_turn=None,
        inactivity=Weights(WEIGHTS),
        recogniser=model,
        second_opinion=None,
    )
    session = Session(
        models,  # type: ignore[arg-type]
        Options(),
        background,
        voice_detector=ScriptedVoice([(0.5, 4.2)]),
        recogniser_executor=recogniser_jobs,
    )
    events: list[Event] = []
    while not background.jobs:
        events += session.push(FRAME)
        assert session.step_idx < 70, "the segment ends"
    background.run_all()
    assert model.encoded == 1, "before the recogniser has read anything"
    events += session.finish()
    background.run_all()
    events += session.end()
    (turn,) = (event for event in events if isinstance(event, Turn))
    assert turn.text == " ".join(e.text for e in events if isinstance(e, Text))
    if not cut:
        assert model.encoded == 1
        assert turn.text == text


class SecondExecutor(Executor):
    """Gives the first job to another executor, and does all others at once."""

    def __init__(self, first: Executor) -> None:
        self.executors = [first]

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        executor = self.executors.pop() if self.executors else InlineExecutor()
        return executor.submit(fn, *args, **kwargs)


@pytest.mark.parametrize("first", [ManualExecutor, FailingExecutor], ids=["waits", "failed"])
def test_a_second_pass_encodes_for_itself_what_was_not_encoded_ahead(
    first: type[Executor],
) -> None:
    """A stream that came faster than it was spoken had its encoder wait behind the work of others,
    and a thread of the streams with it. One that did not fit into the queue any more lost its
    second pass."""
    model = CountingModel(script(*sentence("turn the lights off please", 25)))
    models = SimpleNamespace(
        smart_turn=None, inactivity=Weights(WEIGHTS), recogniser=model, second_opinion=None
    )
    session = Session(
        models,  # type: ignore[arg-type]
        Options(),
        SecondExecutor(first()),
        voice_detector=ScriptedVoice([(0.5, 3.0)]),
    )
    events = [event for _ in range(60) for event in session.push(FRAME)] + session.end()
    (turn,) = (event for event in events if isinstance(event, Turn))
    assert turn.text == "turn the lights off please"
    assert turn.confidence is not None, "its text is that of the second pass"
    assert model.encoded == 1


class WeakOutput(EncoderOutput):
    """An output that a weak reference can be made to."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("ahead", [True, False], ids=["ahead", "in the second pass"])
def test_what_a_second_pass_used_is_free_while_its_turn_goes_on(ahead: bool) -> None:
    """Each segment of an open turn kept the encoder's output of its second pass
    until the turn had ended (tiny-en: 9 MB for 15 s of speech), and its audio."""
    outputs: list[weakref.ref[EncoderOutput]] = []

    class Model(ToySpeechModel):
        def encode(self, samples: NDArray[np.float32]) -> EncoderOutput | None:
            output = WeakOutput(len(samples) // 320, len(samples) // 320)
            outputs.append(weakref.ref(output))
            return output

    background, recogniser_jobs = ManualExecutor(), ManualExecutor()
    model = Model(script(*sentence("turn the lights off please", 25)))
    models = SimpleNamespace(
        smart_turn=None, inactivity=Weights(WEIGHTS), recogniser=model, second_opinion=None
    )
    session = Session(
        models,  # type: ignore[arg-type]
        Options(),
        background,
        voice_detector=ScriptedVoice([(0.5, 3.0)]),
        recogniser_executor=recogniser_jobs,
    )
    session.turn_detector.is_over = lambda _: False  # type: ignore[assignment, method-assign]
    session._turns.hold = not ahead
    while not session._turns._open.segments:
        assert session.step_idx < 70
        session.push(FRAME)
        recogniser_jobs.run_all()
    session._turns.start_held()
    background.run_all()
    assert len(outputs) == 1, "the second pass is done"
    assert session.collect() == [], "its turn goes on"
    assert outputs[0]() is None


def test_on_a_real_thread_all_words_come_in_order() -> None:
    worker = BackgroundWorker("recogniser")
    stream = Stream([(0.5, 6.0), (8.0, 12.0)], worker)
    stream.push_rest()
    until(lambda: worker.idle, "the recogniser is done")
    stream.events += stream.session.flush("12.0")
    stream.events += stream.session.end()
    check_contract(stream)
    assert stream.said == [w.text for w in stream.words]
    assert [w.text for t in stream.of(Turn) for w in t.words] == stream.said


def test_a_cancelled_job_does_not_keep_the_audio_of_its_session() -> None:
    """Clients that came and went while the microphone went first left a cancelled job each."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 9.0)], executor)
    stream.push(50)
    history = weakref.ref(stream.session._history)
    stream.session.close()
    jobs = len(executor.jobs)
    del stream
    gc.collect()
    assert jobs == 1
    assert history() is None


def test_each_job_is_announced_because_less_audio_waits_after_it() -> None:
    """An API stream that waits until less audio is unread has to be woken, words or not."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 9.0)], executor)
    announced: list[float] = []
    stream.session._queue._on_result = lambda: announced.append(stream.session.lag_s)
    stream.push(12)
    executor.run_all()
    assert stream.said == []
    assert announced
    assert stream.session.collect() == []
    assert stream.session.lag_s == 0.0


def test_audio_that_a_running_job_reads_is_not_skipped_and_read_again() -> None:
    """A job took long, and the next one took all audio that had arrived. The session counted what
    that job read as lost, and had its last second recognised a second time."""
    worker = BackgroundWorker("recogniser")
    stream = Stream([(0.5, 40.0)], worker)
    read = stream.recogniser.advance
    slow_jobs = [(threading.Event(), threading.Event()) for _ in range(2)]  # (entered, go on)
    waiting = iter(slow_jobs)

    def read_slowly(*arguments: Any) -> list[Word]:
        entered, go_on = next(waiting, (threading.Event(), None))
        entered.set()
        assert go_on is None or go_on.wait(20)
        return read(*arguments)

    stream.push(30)
    until(lambda: worker.idle, "the recogniser has caught up")
    stream.recogniser.advance = read_slowly  # type: ignore[assignment, method-assign]
    stream.push()
    assert slow_jobs[0][0].wait(5)
    stream.push(round((MAX_LAG_S - 0.3) / STEP_S))
    slow_jobs[0][1].set()
    assert slow_jobs[1][0].wait(5)
    stream.push(10)  # the first job's result is known now, and more than MAX_LAG_S were unread
    slow_jobs[1][1].set()
    until(lambda: worker.idle, "the recogniser has caught up")
    stream.push(100)
    stream.events += stream.session.end()
    check_contract(stream)
    assert stream.session.lost == 0
    end_s = stream.session.step_idx * STEP_S
    assert stream.said == [w.text for w in stream.words if w.start_s < end_s - 0.1]


def test_a_skip_does_not_go_back_before_a_flush() -> None:
    """The recogniser skipped to one second before the end, where a flush was younger than that:
    text of the audio before it followed its `flushed`."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 30.0)], executor)
    stream.push(round((MAX_LAG_S - 0.5) / STEP_S) + 1)
    at_s = stream.session.step_idx * STEP_S
    stream.events += stream.session.flush(f"{at_s:.2f}")
    stream.push(12)
    assert stream.session.lost
    executor.run_all()
    stream.events += stream.session.end()
    position = stream.events.index(Flushed(f"{at_s:.2f}"))
    later = [e.text for e in stream.events[position:] if isinstance(e, Text)]
    assert later
    assert all(stream.words[int(text[1:])].start_s > at_s - 0.1 for text in later)


def test_the_words_of_a_segment_that_was_cut_in_a_backlog_are_not_those_of_the_next() -> None:
    """One job read 9 s in several updates and cut the segment in one of them. All words of the job
    were taken for those of the first segment; where its second pass was not used, the turn said
    them, and those of the second segment again."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 9.5)], executor)
    stream.recogniser.cut_s = 4.0

    def second_pass(samples: NDArray[np.float32], segment: FinishedSegment) -> Transcript:
        if segment.start < 16000:
            raise MemoryError
        return stream.recogniser.second_pass(samples, segment)

    stream.session._second_pass = second_pass
    stream.push(115)
    executor.run_all()
    stream.push_rest()
    stream.events += stream.session.end()
    check_contract(stream)
    (turn,) = stream.of(Turn)
    assert [word.text for word in turn.words] == stream.said == [w.text for w in stream.words]


def test_a_segment_whose_audio_is_gone_has_the_words_of_the_first_pass_in_the_turn() -> None:
    """The second pass got what was left of the audio of a recogniser that was half a minute late,
    and placed its words as if that were the beginning."""
    executor = ManualExecutor()
    stream = Stream([(0.5, 4.0)], executor)
    passes: list[int] = []

    def second_pass(samples: NDArray[np.float32], segment: FinishedSegment) -> Transcript:
        passes.append(len(samples))
        return stream.recogniser.second_pass(samples, segment)

    stream.session._second_pass = second_pass
    stream.push(round(4.5 / STEP_S))
    executor.run_all()  # the results wait while the stream goes on
    queue = stream.session._queue
    collect, queue.collect = queue.collect, list  # type: ignore[method-assign]
    stream.push(round(70 / STEP_S))
    executor.run_all()
    queue.collect = collect  # type: ignore[method-assign]
    stream.events += stream.session.end()
    (turn,) = stream.of(Turn)
    assert passes == []
    assert [word.text for word in turn.words] == stream.said == [w.text for w in stream.words]
    assert stream.session.dropped["failed_in_turn"] == 1


@pytest.mark.parametrize("was_read", [False, True])
def test_text_that_is_decoded_in_a_pause_is_seen_although_the_segment_ended_meanwhile(
    was_read: bool,
) -> None:
    """On a slow device the job of a pause ended after the segment's end had been requested, and the
    job of that was done at once. The turn detector never saw the text, and turns ended late."""
    executor, history = ManualExecutor(), SampleHistory(RATE)
    history.append(np.zeros(RATE, np.float32))
    recogniser = FakeRecogniser([], DecodedText([1], [1], [0.99], p_eos=0.99))
    queue = RecogniserQueue(recogniser, history, executor)
    queue.begin(0)
    queue.advance(RATE, False, True, 0.0)
    executor.run_next()
    if was_read:
        queue.collect()
        assert queue.decoded is not None
    queue.finish(RATE, 0.0)
    executor.run_next()
    queue.collect()
    assert (queue.decoded is None) == was_read
    queue.begin(RATE)
    executor.run_next()
    queue.collect()
    assert queue.decoded is None
