"""The engine thread: takes audio from the ring, pushes it through a Session, hands on the events.

A Session lasts as long as the microphone hears without a break: muting it, losing it or a failure
inside ends it (what was said is finished first), and the next audio starts a new one. To those who
follow, the stream is one: times and step numbers go on, also while the recogniser cannot be had,
and `end_of_stream` comes when we stop.

Commands come through one bounded queue and are done in order between two steps. A flush first
pushes the audio that was heard before it, so that its answer stands after all of its texts.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio.ring import Gap, Ring
from edged.engine.realtime_factor import RealtimeFactor
from edged.engine.session import Session
from edged.events import EndOfStream, EndText, Error, Event, Flushed, Step, Text, Turn
from edged.logs import log_event
from edged.models.loader import Models
from edged.options import Options

BATCH = 25  # steps taken at once: 2 s of audio, so that commands wait no longer when late
BACKLOG_STEPS = 4  # steps that wait: from here on the recogniser updates in larger chunks
MAX_FLUSHES = 64  # that wait; the daemon's own commands always find room behind them
TURN_S = 5.0  # longest wait for a turn's second pass when the microphone goes
END_S = 1.0  # of the time to stop, kept for the last words and their turn
_IDLE_S = 1.0  # longest wait for audio: the heartbeat
_BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # after failures in a row
_SETTLED_S = 30.0  # without a failure, after which the next one is a first one again
_ANNOUNCE_S = 10.0  # least time between two announcements of lost audio

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Takes the events of one push, in order. Called on the engine thread: must not block."""

    def __call__(self, events: Sequence[Event]) -> None: ...


@dataclass(frozen=True, slots=True)
class Flush:
    """`done` is called on the engine thread after `flushed` was handed on."""

    flush_id: int | str
    done: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Configure:
    """New options; other models if given, with a new recogniser."""

    options: Options
    models: Models | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The microphone went: finish what was said and forget the audio."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A new recogniser."""


Command: TypeAlias = Flush | Configure | End | Restart


class Engine:
    """Owns the Session. Every public method may be called from any thread."""

    def __init__(
        self,
        ring: Ring,
        models: Models,
        options: Options,
        listener: Listener,
        on_speaking: Callable[[bool], None],
        beside: Executor | None = None,
    ) -> None:
        """`on_speaking` hears of each change of the voice gate, on the engine's thread."""
        self._ring = ring
        self._models = models
        self._options = options
        self._listener = listener
        self._on_speaking = on_speaking
        self._speaking = False
        self._beside = beside
        self._session: Session | None = None
        self._first_step = 0  # of the session, in the stream
        self._steps = 0  # of the stream
        self._taken = 0  # items from the ring that are still to be done
        self._commands: queue.Queue[Command] = queue.Queue(MAX_FLUSHES + 64)
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._speed = RealtimeFactor()
        self._retry_at = 0.0
        self._failed_at = 0.0
        self._failures_in_a_row = 0
        self._dropped_told = 0
        self._announced_at = -_ANNOUNCE_S
        self.failures = 0
        self._rejected: Counter[str] = Counter()  # by sessions that are over
        self.heartbeat = time.monotonic()

    # -- from any thread

    def start(self) -> None:
        self.heartbeat = time.monotonic()
        self._thread.start()

    def submit(self, command: Command) -> bool:
        """False if too many wait: the command is not done, and its sender must be told."""
        if isinstance(command, Flush) and self._commands.qsize() >= MAX_FLUSHES:
            return False
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            return False
        self._ring.wake()
        return True

    def stop(self, timeout_s: float) -> bool:
        """Finish the sentence and end: its words first, then its turn, decoded once more if the
        time allows. False if it did not end; the thread is then left."""
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        self._ring.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def rtf(self) -> float | None:
        """Seconds of work per second of audio; None before the first."""
        return self._speed.rtf

    @property
    def models(self) -> Models:
        return self._models

    @property
    def rejected(self) -> Counter[str]:
        """Texts that the recogniser's guards withheld, by reason."""
        session = self._session
        # Copied in one go: the engine's thread counts on meanwhile.
        return self._rejected + Counter(dict(session.dropped) if session is not None else {})

    @property
    def heard_s(self) -> float:
        """Stream time: seconds of audio so far, gaps included."""
        return self._steps * STEP_S

    @property
    def waiting(self) -> int:
        """Steps that wait to be heard, beside the one being worked on."""
        return self._taken + self._ring.depth

    # -- the engine thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.heartbeat = time.monotonic()
            self._ring.take(0, timeout=_IDLE_S)  # only waits, for audio or a command
            self._do_commands()
            self._work(self._ring.take(BATCH))
            self._tell_dropped()
        while time.monotonic() < self._stop_by - END_S:  # late: the last words matter more
            items = self._ring.take(BACKLOG_STEPS)
            if not items:
                break
            self._work(items)
        self._do_commands()
        self._end(max(0.1, self._stop_by - END_S / 2 - time.monotonic()))
        self._hand_on([EndOfStream()])

    def _work(self, items: Sequence[NDArray[np.int16] | Gap]) -> None:
        waiting = self._ring.depth
        for done, item in enumerate(items, 1):
            self.heartbeat = started = time.monotonic()
            self._taken = len(items) - done
            due = self._steps + (item.samples // STEP_SAMPLES if isinstance(item, Gap) else 1)
            if started < self._retry_at:
                pass  # the recogniser rests after a failure
            elif isinstance(item, Gap):
                self._do(partial(Session.gap, samples=item.samples))
            else:
                backlog = len(items) - done + waiting > BACKLOG_STEPS
                self._do(partial(Session.push, frame=item, backlog=backlog))
                self._speed.worked(time.monotonic() - started, STEP_S)
            if self._session is None and self._steps < due:
                self._pass(due - self._steps)

    def _pass(self, steps: int) -> None:
        """Time goes by and nobody listens: steps without an opinion."""
        self._hand_on([Step(self._steps + n) for n in range(steps)])
        self._steps += steps

    def _tell_dropped(self) -> None:
        lost = self._ring.dropped - self._dropped_told
        now = time.monotonic()
        if lost and now - self._announced_at >= _ANNOUNCE_S:
            self._announced_at = now
            self._dropped_told += lost
            message = f"the recogniser was too slow: {lost / SAMPLE_RATE:.1f} s of audio were lost"
            log_event(_log, logging.WARNING, "audio-dropped", message, samples=lost)
            self._hand_on([Error(message)])

    def _do_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            match command:
                case Flush():
                    self._flush(command)
                case Configure(options, models):
                    self._options = options
                    if models is not None:
                        self._restart(models)
                    elif self._session is not None:
                        self._session.configure(options)
                case End():
                    self._end()
                case Restart():
                    self._restart(self._models)

    def _flush(self, command: Flush) -> None:
        waiting = self._ring.depth
        while waiting > 0 and not self._stopping.is_set():
            items = self._ring.take(min(waiting, BATCH))
            if not items:
                break
            self._work(items)
            waiting -= sum(i.samples // STEP_SAMPLES if isinstance(i, Gap) else 1 for i in items)
        events = self._do(partial(Session.flush, flush_id=command.flush_id), start=False)
        if not any(isinstance(event, Flushed) for event in events):
            self._hand_on([Flushed(command.flush_id)])
        command.done()

    def _restart(self, models: Models) -> None:
        self._end()
        self._models = models
        self._retry_at = self._failed_at = 0.0

    def _end(self, turn_s: float = TURN_S) -> None:
        self._do(Session.finish, start=False)  # its words do not wait for the second pass
        self._do(partial(Session.end, timeout_s=turn_s), start=False)
        self._forget()  # and with it all audio that it held

    def _do(self, work: Callable[[Session], list[Event]], start: bool = True) -> list[Event]:
        """`work` on the session, its events handed on in stream time.

        Without a session one is started, or nothing is done. A failure inside becomes an `error`
        1011, the session goes, and the next is started after a pause that grows.
        """
        try:
            if self._session is None:
                if not start:
                    return []
                self._session = Session(self._models, self._options, self._beside)
                self._first_step = self._steps
            events = work(self._session)
        except Exception as problem:
            self._forget()
            events = [self._failed(problem)]
        events = [
            in_stream(event, self._first_step)
            for event in events
            if not isinstance(event, EndOfStream)
        ]
        self._steps += sum(isinstance(event, Step) for event in events)
        self._hand_on(events)
        self._tell_speaking()
        return events

    def _forget(self) -> None:
        if self._session is not None:
            self._rejected = self._rejected + self._session.dropped
        self._session = None
        self._tell_speaking()

    def _tell_speaking(self) -> None:
        speaking = self._session is not None and self._session.speaking
        if speaking != self._speaking:
            self._speaking = speaking
            self._on_speaking(speaking)

    def _failed(self, problem: Exception) -> Error:
        now = time.monotonic()
        self.failures += 1
        settled = now - self._failed_at > _SETTLED_S
        self._failures_in_a_row = 1 if settled else self._failures_in_a_row + 1
        self._failed_at = now
        pause = _BACK_OFF_S[min(self._failures_in_a_row, len(_BACK_OFF_S)) - 1]
        self._retry_at = now + pause
        name = type(problem).__name__
        message = f"the recogniser failed ({name}) and starts again in {pause:g} s"
        if self._failures_in_a_row == 1:
            _log.error(message, exc_info=problem, extra={"EDGED_CODE": "engine-failed"})
        return Error(message)

    def _hand_on(self, events: Sequence[Event]) -> None:
        if not events:
            return
        try:
            self._listener(events)
        except Exception:
            _log.exception("events could not be handed on", extra={"EDGED_CODE": "engine-listener"})


def in_stream(event: Event, first_step: int) -> Event:
    """A session's event as one of the stream in which the session began at `first_step`."""
    if first_step == 0:
        return event
    late = first_step * STEP_S
    match event:
        case Step(step_idx):
            return replace(event, step_idx=step_idx + first_step)
        case Text(_, start):
            return replace(event, start_s=start + late)
        case EndText(stop):
            return replace(event, stop_s=stop + late)
        case Turn(_, start, stop, words):
            moved = tuple(
                replace(w, start_s=w.start_s + late, stop_s=w.stop_s + late) for w in words
            )
            return replace(event, start_s=start + late, stop_s=stop + late, words=moved)
        case _:
            return event
