"""The engine thread: takes audio from the ring, pushes it through a Session, hands the events on.

A Session lasts as long as the microphone delivers audio. Muting it, losing it or a failure inside
ends the session, after what was said has been finished, and the next audio starts a new one. For
subscribers the stream is one: times and step numbers go on, even while the recogniser restarts
after a failure, and `end_of_stream` comes only when the engine stops.

The recogniser runs on a thread of its own, so that steps never wait for it. It wakes this thread
when it has words.

Commands come through one bounded queue and are done in order between two steps. A flush first
pushes the audio that was heard before it, so that `flushed` follows all of its texts.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio.ring import Gap, Ring
from edged.engine.background_worker import BackgroundWorker
from edged.engine.load_level import LoadController, LoadLevel
from edged.engine.realtime_factor import RealtimeFactor
from edged.engine.session import Session
from edged.events import EndOfStream, EndText, Error, Event, Flushed, Step, Text, Turn
from edged.logs import log_event, log_exception
from edged.models.loader import Models
from edged.options import Options

BATCH = 25  # steps taken from the ring at once (2 s): a late engine still does commands that often
BACKLOG_STEPS = 4  # from this many waiting steps on, the recogniser updates in larger chunks
# Flushes that wait, for the engine or the recogniser. The daemon's own commands always find room.
MAX_FLUSHES = 64
TURN_TIMEOUT_S = 5.0  # longest wait for a turn's second pass when the microphone stops
END_S = 1.0  # of the time to stop, kept for the last words and their turn
WORDS_TIMEOUT_S = 4.0  # longest wait for the last words when the microphone stops
PRIORITY_LAG_S = 0.3  # more than the recogniser needs for an update on a device that keeps up
REMEDY = (
    "choose a smaller model (EDGED_MODEL), stop other programs, set EDGED_THREADS=2, or use a"
    " faster board; `edged doctor` tells what this one can do"
)
_IDLE_S = 1.0  # longest wait for audio, so that the heartbeat goes on
_BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # pause after each of several failures in a row
_FAILURE_MEMORY_S = 30.0  # after this time without a failure the next one counts as the first
_DROPPED_REPORT_S = 10.0  # least time between two reports of lost audio

_log = logging.getLogger(__name__)


class EventSink(Protocol):
    """Takes the events of one push, in order. Called on the engine thread; must not block."""

    def __call__(self, events: Sequence[Event]) -> None: ...


@dataclass(frozen=True, slots=True)
class FlushCommand:
    """Flush the stream. `done` is called on the engine thread after `flushed` was handed on."""

    flush_id: int | str
    done: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ConfigureCommand:
    """Use new options and, if `models` is given, a new session with these models."""

    options: Options
    models: Models | None = None


@dataclass(frozen=True, slots=True)
class EndCommand:
    """The microphone stopped: finish what was said and forget the audio."""


@dataclass(frozen=True, slots=True)
class RestartCommand:
    """Replace the session by a new one with the same models."""


EngineCommand: TypeAlias = FlushCommand | ConfigureCommand | EndCommand | RestartCommand


class Engine:
    """Runs a Session on a thread of its own. Every public method may be called from any thread.

    failures: how often a session failed.
    heartbeat: `time.monotonic()` of the thread's last sign of life.
    """

    def __init__(
        self,
        ring: Ring,
        models: Models,
        options: Options,
        sink: EventSink,
        on_speaking: Callable[[bool], None],
        executor: BackgroundWorker | None = None,
        recogniser_executor: Executor | None = None,
        session_factory: Callable[..., Session] = Session,
    ) -> None:
        """sink: takes all events.
        on_speaking: called on the engine thread whenever the voice gate opens or closes.
        executor, recogniser_executor: see `edged.engine.session.Session`.
        session_factory: makes the sessions, with the arguments of `Session`.
        """
        self._ring = ring
        self._models = models
        self._options = options
        self._asked = (models, options)
        self._sink = sink
        self._on_speaking = on_speaking
        self._speaking = False
        self._executor = executor
        self._recogniser_executor = recogniser_executor
        self._session_factory = session_factory
        self._flushes: deque[FlushCommand] = deque()  # whose `flushed` is yet to come
        self._session: Session | None = None
        self._first_step = 0  # index in the stream of the session's first step
        self._steps = 0  # steps of the stream so far
        self._taken = 0  # items that were taken from the ring and are not yet done
        self._commands: queue.Queue[EngineCommand] = queue.Queue(MAX_FLUSHES + 64)
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._realtime_factor = RealtimeFactor()
        self._load = LoadController(_load_level(models))
        self._recogniser_busy_s = 0.0  # of all sessions
        self._retry_at = 0.0
        self._failed_at = 0.0
        self._failures_in_a_row = 0
        self._lost = 0  # samples that sessions which are over gave up
        self._dropped_reported_s = 0.0
        self._busy_s = 0.0  # of the session's recogniser, at the last step
        self._too_slow = False  # and it was reported
        self._dropped_reported_at = -_DROPPED_REPORT_S
        self._rejected: Counter[str] = Counter()  # by sessions that are over
        self._smart_turn_failures = 0  # likewise
        self.failures = 0
        self.heartbeat = time.monotonic()

    # -- from any thread

    def start(self) -> None:
        """Starts the thread."""
        self.heartbeat = time.monotonic()
        if self.load_level:
            message = f"the recogniser starts at load level {self.load_level:d}: "
            message += f"{self.load_level.label}"
            level = int(self.load_level)
            log_event(_log, logging.WARNING, "load-level", message, load_level=level)
        self._thread.start()

    def submit(self, command: EngineCommand) -> bool:
        """Queues a command. False if too many wait: it will not be done; tell its sender."""
        flushes = self._commands.qsize() + len(self._flushes)
        if isinstance(command, FlushCommand) and flushes >= MAX_FLUSHES:
            return False
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            return False
        if isinstance(command, ConfigureCommand):
            self._asked = (command.models or self.models, command.options)
        self._ring.wake()
        return True

    def stop(self, timeout_s: float) -> bool:
        """Finishes the sentence and ends the thread.

        The words come first, then their turn, with a second pass if the time allows. False if the
        thread did not end in time; it is then left alone.
        """
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        self._ring.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def rtf(self) -> float | None:
        """Seconds of work per second of audio; None before the first audio."""
        return self._realtime_factor.rtf

    @property
    def load_level(self) -> LoadLevel:
        """How much work is saved because the device is slow."""
        return self._load.level

    @property
    def too_slow(self) -> bool:
        """Whether the device does not keep up even at the last load level."""
        return self._load.too_slow

    @property
    def has_second_opinion(self) -> bool:
        """Whether a second model is asked about the text of turns now."""
        return self._models.second_opinion is not None and self.load_level == LoadLevel.FULL

    @property
    def models(self) -> Models:
        """The models in use, or those that will be once what was said before is done."""
        return self._asked[0]

    @property
    def options(self) -> Options:
        """The session options in use, or those that will be."""
        return self._asked[1]

    @property
    def rejected(self) -> Counter[str]:
        """How many words the recogniser's guards withheld, by reason."""
        session = self._session
        # dict() copies in one go, while the engine thread goes on counting
        return self._rejected + Counter(dict(session.dropped) if session is not None else {})

    @property
    def smart_turn_failures(self) -> int:
        """How often the turn model failed; the ends of those turns were found without it."""
        session = self._session
        now = session.smart_turn_failures if session is not None else 0
        return self._smart_turn_failures + now

    @property
    def heard_s(self) -> float:
        """Stream time: seconds of audio so far, gaps included."""
        return self._steps * STEP_S

    @property
    def waiting(self) -> int:
        """Steps that wait to be pushed, without the one that is being pushed."""
        return self._taken + self._ring.depth

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait: to be pushed, and for the recogniser."""
        session = self._session
        return self.waiting * STEP_S + (0.0 if session is None else session.lag_s)

    @property
    def is_behind(self) -> bool:
        """Whether audio waits so long that streams of less importance should stand back."""
        return self.waiting > 0 or self.lag_s > PRIORITY_LAG_S

    @property
    def lost_s(self) -> float:
        """Seconds of audio that nobody recognised because the device was too slow."""
        session = self._session
        given_up = self._lost + (0 if session is None else session.lost)
        return (self._ring.dropped + given_up) / SAMPLE_RATE

    # -- on the engine thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.heartbeat = time.monotonic()
            self._ring.take(0, timeout=_IDLE_S)  # only waits, for audio or a command
            self._do_commands()
            self._collect()
            self._push_items(self._ring.take(BATCH))
            self._report_dropped()
        while time.monotonic() < self._stop_by - END_S:  # if late, the last words matter more
            items = self._ring.take(BACKLOG_STEPS)
            if not items:
                break
            self._push_items(items)
        self._do_commands()
        self._end_session(self._stop_by - END_S / 2)
        self._emit([EndOfStream()])

    def _collect(self) -> None:
        """Emits what the recogniser has given since the last step."""
        self._with_session(lambda session: session.collect(), start=False)

    def _push_items(self, items: Sequence[NDArray[np.int16] | Gap]) -> None:
        waiting = self._ring.depth
        for done, item in enumerate(items, 1):
            self.heartbeat = started = time.monotonic()
            if self._stopping.is_set() and started >= self._stop_by - END_S:
                break  # the last words matter more than the audio that waits
            self._taken = len(items) - done
            due = self._steps + (item.samples // STEP_SAMPLES if isinstance(item, Gap) else 1)
            if started < self._retry_at:
                pass  # the recogniser pauses after a failure
            elif isinstance(item, Gap):
                self._with_session(partial(_gap, item.samples))
            else:
                backlog = len(items) - done + waiting > BACKLOG_STEPS
                self._with_session(partial(_push, item, backlog))
                self._add_work(time.monotonic() - started)
            if self._session is None and self._steps < due:
                self._emit_empty_steps(due - self._steps)

    def _emit_empty_steps(self, steps: int) -> None:
        """Emits steps without an opinion for audio that no session hears."""
        self._emit([Step(self._steps + n) for n in range(steps)])
        self._steps += steps

    def _add_work(self, step_s: float) -> None:
        """Counts the work of one step: the push, and what the recogniser did in the meantime."""
        session = self._session
        if session is None:
            return
        worked_s = max(0.0, session.recogniser_busy_s - self._busy_s)
        self._busy_s += worked_s
        self._realtime_factor.add(step_s + worked_s, STEP_S)
        self._recogniser_busy_s += worked_s
        background_s = self._executor.busy_s if self._executor is not None else 0.0
        if self._load.step(
            STEP_S, session.is_recognising, self._recogniser_busy_s, background_s, session.lag_s
        ):
            self._load_changed(session)

    def _load_changed(self, session: Session) -> None:
        level = self._load.level
        if level != session.load_level:
            lower = level > session.load_level
            session.set_load_level(level)
            how = "steps down" if lower else "steps up"
            message = f"the recogniser {how} to load level {level:d}: {level.label}"
            log_event(
                _log,
                logging.WARNING if lower else logging.INFO,
                "load-level",
                message,
                load_level=int(level),
            )
        if self._load.too_slow and not self._too_slow:
            message = f"this device is too slow for the model {self._models.name}: {REMEDY}"
            log_event(_log, logging.ERROR, "too-slow", message)
            self._emit([Error(message)])
        self._too_slow = self._load.too_slow

    def _report_dropped(self) -> None:
        lost_s = self.lost_s - self._dropped_reported_s
        now = time.monotonic()
        if lost_s > 0 and now - self._dropped_reported_at >= _DROPPED_REPORT_S:
            self._dropped_reported_at = now
            self._dropped_reported_s += lost_s
            message = f"the recogniser was too slow: {lost_s:.1f} s of audio were lost"
            samples = round(lost_s * SAMPLE_RATE)
            log_event(_log, logging.WARNING, "audio-dropped", message, samples=samples)
            self._emit([Error(message)])

    def _do_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            match command:
                case FlushCommand():
                    self._flush(command)
                case ConfigureCommand(options, models):
                    self._options = options
                    if models is not None:
                        self._restart(models)
                        self._load = LoadController(_load_level(models))
                        self._too_slow = False
                    elif self._session is not None:
                        self._session.configure(options)
                case EndCommand():
                    self._end_session()
                case RestartCommand():
                    self._restart(self._models)

    def _flush(self, command: FlushCommand) -> None:
        waiting = self._ring.depth
        while waiting > 0 and not self._stopping.is_set():
            items = self._ring.take(min(waiting, BATCH))
            if not items:
                break
            self._push_items(items)
            waiting -= sum(i.samples // STEP_SAMPLES if isinstance(i, Gap) else 1 for i in items)
        self._flushes.append(command)
        if self._session is None:
            self._answer_flushes()
        else:
            self._with_session(lambda session: session.flush(command.flush_id))

    def _answer_flushes(self) -> None:
        """Answers all flushes: no session has words for them."""
        for command in list(self._flushes):
            self._emit([Flushed(command.flush_id)])
            self._flush_done()

    def _flush_done(self) -> None:
        self._flushes.popleft().done()

    def _restart(self, models: Models) -> None:
        self._end_session()
        self._models = models
        self._retry_at = self._failed_at = 0.0

    def _end_session(self, by: float | None = None) -> None:
        """Finishes what was said. by: `time.monotonic()` at which to stop waiting for it."""
        left_s = None if by is None else max(0.1, by - time.monotonic())
        words_s = min(WORDS_TIMEOUT_S, left_s or WORDS_TIMEOUT_S)
        # words do not wait for the second pass
        self._with_session(lambda session: session.finish(words_s), start=False)
        self.heartbeat = time.monotonic()
        turn_s = TURN_TIMEOUT_S if by is None else max(0.1, by - time.monotonic())
        self._with_session(lambda session: session.end(turn_s), start=False)
        self._forget_session()  # and with it all audio that it held

    def _with_session(self, call: Callable[[Session], list[Event]], start: bool = True) -> None:
        """Calls the session and emits its events in stream time.

        start: without a session start one; otherwise nothing is done. If the session fails, it is
        forgotten, an `error` 1011 is emitted, and the next session starts after a pause that grows
        with each failure in a row.
        """
        failed = False
        try:
            if self._session is None:
                if not start:
                    return
                self._session = self._new_session()
                self._first_step = self._steps
            events = call(self._session)
        except Exception as error:
            failed = True
            events = [self._failed(error)]
        events = [
            in_stream(event, self._first_step)
            for event in events
            if not isinstance(event, EndOfStream)
        ]
        self._steps += sum(isinstance(event, Step) for event in events)
        self._emit(events)
        for event in events:
            if isinstance(event, Flushed):
                self._flush_done()
        if failed:
            self._forget_session()
        self._notify_speaking()

    def _new_session(self) -> Session:
        self._busy_s = 0.0
        session = self._session_factory(
            self._models,
            self._options,
            self._executor,
            recogniser_executor=self._recogniser_executor,
            on_result=self._ring.wake,
        )
        session.set_load_level(self._load.level)
        return session

    def _forget_session(self) -> None:
        if self._session is not None:
            self._rejected = self._rejected + self._session.dropped
            self._smart_turn_failures += self._session.smart_turn_failures
            self._lost += self._session.lost
            self._session.close()
        self._session = None
        self._answer_flushes()
        self._notify_speaking()

    def _notify_speaking(self) -> None:
        speaking = self._session is not None and self._session.speaking
        if speaking != self._speaking:
            self._speaking = speaking
            self._on_speaking(speaking)

    def _failed(self, error: Exception) -> Error:
        now = time.monotonic()
        self.failures += 1
        is_first = now - self._failed_at > _FAILURE_MEMORY_S
        self._failures_in_a_row = 1 if is_first else self._failures_in_a_row + 1
        self._failed_at = now
        pause_s = _BACKOFF_S[min(self._failures_in_a_row, len(_BACKOFF_S)) - 1]
        self._retry_at = now + pause_s
        name = type(error).__name__
        message = f"the recogniser failed ({name}) and restarts in {pause_s:g} s"
        if self._failures_in_a_row == 1:
            log_exception(_log, "engine-failed", message, error)
        return Error(message)

    def _emit(self, events: Sequence[Event]) -> None:
        if not events:
            return
        try:
            self._sink(events)
        except Exception:
            log_exception(_log, "engine-listener", "the engine's events could not be handed on")


def _load_level(models: Models) -> LoadLevel:
    return LoadLevel(models.load_level)


def _push(frame: NDArray[np.int16], backlog: bool, session: Session) -> list[Event]:
    return session.push(frame, backlog)


def _gap(samples: int, session: Session) -> list[Event]:
    return session.gap(samples)


def in_stream(event: Event, first_step: int) -> Event:
    """Moves a session's event to the time of the stream in which the session began at that step."""
    if first_step == 0:
        return event
    offset_s = first_step * STEP_S
    match event:
        case Step(step_idx):
            return replace(event, step_idx=step_idx + first_step)
        case Text(_, start):
            return replace(event, start_s=start + offset_s)
        case EndText(stop):
            return replace(event, stop_s=stop + offset_s)
        case Turn(_, start, stop, words):
            moved = tuple(
                replace(w, start_s=w.start_s + offset_s, stop_s=w.stop_s + offset_s) for w in words
            )
            return replace(event, start_s=start + offset_s, stop_s=stop + offset_s, words=moved)
        case _:
            return event
