"""A device that is so many times slower than this machine, in simulated time.

Work is done here at full speed, one job after the other, and its CPU time, multiplied by a factor,
is what the clock of the simulated device advances by. It has a core for each thread of the daemon:
engine, recogniser and second pass. So neither other programs nor the speed of this machine's cores
together change the result, and nothing waits in real time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from edged import STEP_S
from edged.audio.source import Frame
from edged.engine.load_level import LoadController, LoadLevel
from edged.engine.session import Session
from edged.events import Event
from edged.models.loader import Models
from edged.options import Options

TimedEvent: TypeAlias = tuple[float, Event]
"""When an event was emitted, in seconds from the first sample of the stream, and the event."""


class SimulatedDevice:
    """A clock and the threads of one stream. now: seconds since the stream began."""

    def __init__(self, factor: float, cpu_time: Callable[[], float] = time.process_time) -> None:
        self.factor = factor
        self.cpu_time = cpu_time
        self.now = 0.0
        self._threads: list[SimulatedThread] = []

    def thread(self) -> SimulatedThread:
        """A new thread with a core of its own."""
        thread = SimulatedThread(self)
        self._threads.append(thread)
        return thread

    def run_until(self, end: float) -> None:
        """Lets the threads work until `end`; the clock then stands there."""
        while (thread := self._next()) is not None and thread.next_at <= end:
            self.now = max(self.now, thread.next_at)
            thread.proceed()
        self.now = max(self.now, end)

    def run_until_done(self, future: Future[Any]) -> None:
        """Lets the threads work until a job is done."""
        while not future.done() and self.run_next():
            pass

    def run_all(self) -> None:
        """Lets the threads work until they have nothing to do."""
        while self.run_next():
            pass

    def run_next(self) -> bool:
        """Lets the time pass until a job starts or ends; False if there is none."""
        thread = self._next()
        if thread is not None:
            self.run_until(thread.next_at)
        return thread is not None

    def _next(self) -> SimulatedThread | None:
        busy = [thread for thread in self._threads if thread.has_work]
        return min(busy, key=lambda thread: thread.next_at, default=None)


@dataclass(slots=True)
class _SimulatedJob:
    future: Future[Any]
    work: Callable[[], Any]
    submitted_at: float


class SimulatedThread(Executor):
    """Runs jobs in order. A job's result is known when its simulated time is over.

    busy_s: simulated seconds of work so far. durations: of each job.
    """

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._jobs: deque[_SimulatedJob] = deque()
        self._running: _SimulatedJob | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._free_at = 0.0
        self.busy_s = 0.0
        self.durations: list[float] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = _SimulatedFuture(self._device)
        self._jobs.append(_SimulatedJob(future, lambda: fn(*args, **kwargs), self._device.now))
        return future

    @property
    def has_work(self) -> bool:
        return self._running is not None or bool(self._jobs)

    @property
    def next_at(self) -> float:
        """When the running job ends, or the next one starts."""
        return self._free_at if self._running else max(self._free_at, self._jobs[0].submitted_at)

    def proceed(self) -> None:
        """Ends the running job or starts the next one, now."""
        if self._running is not None:
            job, self._running = self._running, None
            if self._error is None:
                job.future.set_result(self._result)
            else:
                job.future.set_exception(self._error)
            return
        job = self._jobs.popleft()
        if not job.future.set_running_or_notify_cancel():
            return
        self._error = None
        started = self._device.cpu_time()
        try:
            self._result = job.work()
        except Exception as error:
            self._error = error
        took = (self._device.cpu_time() - started) * self._device.factor
        self.busy_s += took
        self.durations.append(took)
        self._running, self._free_at = job, self._device.now + took


class _SimulatedFuture(Future[Any]):
    """Whoever waits for it lets the device work."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self._device = device

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done() and timeout != 0:
            self._device.run_until_done(self)
        return super().exception(0)


class SimulatedStream:
    """A session on a simulated device, fed and supervised as the daemon's engine does it.

    controller: shared by the streams of one run, as by the sessions of one daemon.
    """

    def __init__(
        self, models: Models, options: Options, factor: float, controller: LoadController
    ) -> None:
        self._device = SimulatedDevice(factor)
        self._recogniser = self._device.thread()
        self._background = self._device.thread()
        self._controller = controller
        self._carried_s = [controller.recogniser_busy_s, controller.background_busy_s]
        self._free_at = 0.0  # when the engine's thread has done its last step
        self._emitted: list[TimedEvent] = []
        self.session = Session(
            models,
            options,
            self._background,
            recogniser_executor=self._recogniser,
            on_result=self._collect,
        )
        self.session.set_load_level(controller.level)
        self.step_s = 0.0
        self.levels: list[LoadLevel] = []

    @property
    def background_s(self) -> list[float]:
        """Run times of background jobs, seconds."""
        return self._background.durations

    def push(self, frame: Frame) -> list[TimedEvent]:
        """Takes the next step; returns the events emitted since the last one, with their times.

        `step_s` is then how long after its last sample the step was emitted.
        """
        arrives = (self.session.step_idx + 1) * STEP_S
        self._device.run_until(max(arrives, self._free_at))
        start, cpu = self._device.now, self._device.cpu_time()
        events = self.session.push(frame)
        self._free_at = start + (self._device.cpu_time() - cpu) * self._device.factor
        self._emitted += [(self._free_at, event) for event in events]
        self.step_s = self._free_at - arrives
        self._control()
        return self._take()

    def flush(self) -> float:
        """Flushes; returns the seconds until all words were known."""
        start = max(self._device.now, self._free_at)
        self._device.run_until(start)
        self.session.flush("bench")
        self.session.collect()
        while not self.session.is_drained and self._device.run_next():
            self.session.collect()
        return self._device.now - start

    def end(self) -> list[TimedEvent]:
        """Ends the session."""
        self._device.run_until(self._free_at)
        events = self.session.finish()
        self._device.run_all()  # second passes
        self._emitted += [(self._device.now, event) for event in events + self.session.end()]
        return self._take()

    def _collect(self) -> None:
        """The engine's thread is woken: at once, or when it has done its step."""
        at = max(self._device.now, self._free_at)
        self._emitted += [(at, event) for event in self.session.collect()]

    def _control(self) -> None:
        self.levels.append(self._controller.level)
        changed = self._controller.step(
            STEP_S,
            self.session.is_recognising,
            self._carried_s[0] + self._recogniser.busy_s,
            self._carried_s[1] + self._background.busy_s,
            self.session.lag_s,
        )
        if changed:
            self.session.set_load_level(self._controller.level)

    def _take(self) -> list[TimedEvent]:
        emitted, self._emitted = self._emitted, []
        return emitted
