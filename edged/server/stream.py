"""One stream of audio: bytes of a client in, events of a Session out.

The event loop queues commands, the threads of the worker pool process them. What waits is counted
in bytes, and whoever feeds a stream pauses while it is full: the client is held back, and nothing
is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edged import STEP_S
from edged.audio.source import Frame
from edged.engine.background_worker import ConditionalExecutor
from edged.engine.session import Session
from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event, Flushed
from edged.logs import log_exception
from edged.server.metrics import Metrics
from edged.server.realtime_detector import RealtimeDetector

MAX_WAITING = 1 << 20  # bytes that wait; one message may exceed it
MAX_WAITING_S = 10.0  # and their duration, as far as it is known
RESUME_BELOW = 0.9  # of these; reading resumes early, because pings wait behind audio
COMMAND_BYTES = 256  # what a command counts beside its audio, so that small ones are bounded too
MAX_UNREAD_S = 5.0  # audio that waits for the recogniser; with 10 s a Session would give it up
MAX_FLUSHES = 64  # flushes that wait for the recogniser; more of them wait before the session
BACKLOG_STEPS = 4  # waiting steps of a live stream from which the recogniser uses larger chunks
SERVER_FAULT = 1011  # code of an `error` that the client did not cause

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Audio:
    data: bytes


@dataclass(frozen=True, slots=True)
class _Flush:
    flush_id: int | str


@dataclass(frozen=True, slots=True)
class _End:
    pass


@dataclass(frozen=True, slots=True)
class _Failure:
    """The decoder gave up, or something before the end could not be decoded."""

    message: str
    code: int


_Command: TypeAlias = _Audio | _Flush | _End


class AudioDecoder(Protocol):
    """Decodes the bytes of one client. Both methods decode lazily, and raise RequestError."""

    @property
    def seconds_per_byte(self) -> float:
        """Seconds of audio in one byte, as far as it is known; 0 before that."""

    def push(self, data: bytes) -> Iterator[Frame]:
        """Decodes what `data` completes."""

    def finish(self) -> Iterator[Frame]:
        """Decodes what is left."""


class StreamClient(Protocol):
    """The other end of a stream. Called on the worker threads; must not block."""

    def on_events(self, events: Sequence[Event]) -> None:
        """Receives events in order. The last event of a stream is EndOfStream or Error."""

    def is_full(self) -> bool:
        """True while the client does not read: the stream pauses until it is woken."""

    def on_room(self) -> None:
        """The stream was full and accepts audio again."""


class Stream:
    """Commands are queued on the event loop and processed by `work` until `done`.

    model: its name. language: of the session, a code or `auto`. keyterms: how many of them are
    active in the session.
    """

    def __init__(
        self,
        make_session: Callable[..., Session],
        decoder: AudioDecoder,
        client: StreamClient,
        wake: Callable[[Stream], None],
        background: Executor,
        recogniser: Executor,
        metrics: Metrics,
        whole_file: bool = False,
        on_speaking: Callable[[bool, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            make_session: called at the first step, with the keyword arguments `executor`,
                `recogniser_executor` and `on_result` of `Session`.
            wake: tells the worker pool that there is something to do.
            background, recogniser: the executors of the session, while it is not a file.
            whole_file: the audio is a file, however it arrives. Its long work is done at once, so
                that its text is always the same.
            on_speaking: called on a worker thread, with the stream time in seconds, when somebody
                begins or stops to speak.
        """
        self.done = False
        self.model = ""
        self.language = ""
        self.keyterms = 0
        self._make_session = make_session
        self._decoder = decoder
        self._client = client
        self._wake = wake
        self._background = ConditionalExecutor(background, self._is_file)
        self._recogniser = ConditionalExecutor(recogniser, self._is_file)
        self._metrics = metrics
        self._session: Session | None = None
        self._flushed_at: deque[float] = deque()  # arrival of the flushes that are not answered
        self._finishing = False  # the audio has ended, its last words are not known yet
        self._failure: _Failure | None = None  # why it ended
        self._lock = threading.Lock()
        self._waiting: deque[tuple[_Command, float]] = deque()  # with the time of arrival
        self._waiting_bytes = 0  # of audio
        self._received = 0  # bytes of audio
        self._was_full = False
        self._realtime = RealtimeDetector()
        self._whole_file = whole_file
        self._on_speaking = on_speaking
        self._speaking = False
        self._ending = False
        self._clock = clock
        self._frames: Iterator[Frame] = iter(())
        self._decoded: deque[tuple[Frame | _Flush | _End | _Failure, float]] = (
            deque()
        )  # a few steps
        self._arrived_at = 0.0  # of the audio that is being decoded
        self._working = False

    # -- on the event loop

    def push(self, data: bytes) -> None:
        """Queues audio, in the input format of the stream."""
        self._submit(_Audio(data))

    def flush(self, flush_id: int | str) -> None:
        """Queues a flush, which is answered with `Flushed`."""
        self._submit(_Flush(flush_id))

    def end(self) -> None:
        """Queues the end of the audio, which is answered with `EndOfStream`."""
        self._submit(_End())

    @property
    def is_full(self) -> bool:
        """No more should be queued until `StreamClient.on_room`."""
        with self._lock:
            self._was_full = not self.done and self._load() > 1
            if self._was_full:
                self._realtime.reading_paused(self._clock())
            return self._was_full

    @property
    def is_busy(self) -> bool:
        """Whether something is still to be processed or, once `done`, to be sent. The stages are
        checked in the order in which a command passes through them, so that none is missed."""
        return (
            bool(self._waiting)
            or self._working
            or bool(self._decoded)
            or self._ending
            or bool(self._flushed_at)
            or self._finishing
            or self.done
        )

    @property
    def is_file(self) -> bool:
        """Whether the audio is a file, and not spoken live."""
        return self._is_file()

    @property
    def queued(self) -> int:
        """The number of commands that wait."""
        return len(self._waiting)

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that were received and not yet processed, as far as it is known."""
        session = self._session
        unread_s = 0.0 if session is None else session.lag_s
        waiting_s = self._waiting_bytes * self._decoder.seconds_per_byte
        return waiting_s + len(self._decoded) * STEP_S + unread_s

    @property
    def step_idx(self) -> int:
        """The number of steps that were processed."""
        return self._session.step_idx if self._session is not None else 0

    def abandon(self) -> None:
        """The client is gone: nothing more is processed or sent."""
        self.done = True

    def wait_idle(self, timeout_s: float = 5.0) -> None:
        """Waits until no worker thread is in a step, which may use the decoder. Blocks."""
        until = time.monotonic() + timeout_s
        while self._working and time.monotonic() < until:
            time.sleep(0.005)

    def _submit(self, command: _Command) -> None:
        now = self._clock()
        with self._lock:
            if self.done:
                return
            if isinstance(command, _Audio):
                self._waiting_bytes += len(command.data)
                self._received += len(command.data)
                self._realtime.audio_arrived(self._received_s, now)
            self._waiting.append((command, now))
        self._wake(self)

    # -- on a worker thread

    def work(self) -> bool:
        """Processes at most one step. Returns True if there may be more to do."""
        if self.done:
            self._close()
        if self.done or self._client.is_full():
            return False
        self._working = True
        try:
            return self._step()
        except Exception as problem:
            log_exception(_log, "api-stream-failed", "the recogniser failed in an API stream")
            self._fail(f"the recogniser failed ({type(problem).__name__})", SERVER_FAULT)
        finally:
            self._working = False
        return False

    def _step(self) -> bool:
        if self._finishing:
            self._collect()
            return False
        self._decode()
        if not self._decoded or self._must_wait_for_recogniser():
            self._collect()
            return False
        item, arrived_at = self._decoded.popleft()
        if isinstance(item, _Failure):
            if self._session is None:
                self._fail(item.message, item.code)
                return False
            # the client gets the text of what could be decoded, as from edged.cli.transcribe
            self._failure, item = item, _End()
        if self._session is None:
            self._session = self._make_session(
                executor=self._background,
                recogniser_executor=self._recogniser,
                on_result=lambda: self._wake(self),
            )
        match item:
            case _Flush(flush_id):
                self._flushed_at.append(arrived_at)
                self._deliver(self._session.flush(flush_id))
            case _End():
                self._finishing = True
                self._deliver(self._session.finish(0.0))
                self._collect()
            case frame:
                is_file = self._is_file()
                # Files are processed in larger chunks, as in edged.cli.transcribe.
                backlog = is_file or len(self._decoded) >= BACKLOG_STEPS
                started = self._clock()
                events = self._session.push(frame, backlog)
                now = self._clock()
                self._metrics.step_seconds.observe(now - started)
                if not is_file:
                    self._metrics.answer_seconds.observe(now - arrived_at)
                self._report_speaking()
                self._deliver(events)
        return not self.done

    def _must_wait_for_recogniser(self) -> bool:
        """Whether so much is unread that nothing should be pushed until a job is done."""
        if self._session is None or not self._is_far_behind(self._session):
            return False
        self._deliver(self._session.collect())  # the session learns from it what has been read
        return self._session is not None and self._is_far_behind(self._session)

    def _is_far_behind(self, session: Session) -> bool:
        return session.lag_s > MAX_UNREAD_S or len(self._flushed_at) >= MAX_FLUSHES

    def _report_speaking(self) -> None:
        if self._on_speaking is None or self._session is None:
            return
        if self._session.speaking is not self._speaking:
            self._speaking = self._session.speaking
            self._on_speaking(self._speaking, self._session.step_idx * STEP_S)

    def _collect(self) -> None:
        """Delivers what the recogniser has given in the meantime; ends a stream that has it all."""
        if self._session is None:
            return
        self._deliver(self._session.collect())
        if not self._finishing or not self._session.is_finished:
            return
        events = self._session.end()
        if self._failure is None:
            self._deliver(events)
        else:
            self._deliver([event for event in events if not isinstance(event, EndOfStream)])
            self._fail(self._failure.message, self._failure.code)

    def _decode(self) -> None:
        """Keeps a few frames decoded, so that it is known whether more wait."""
        try:
            self._decode_some()
        except RequestError as problem:
            self._frames, self._ending = iter(()), False
            self._decoded.append((_Failure(str(problem), problem.code), self._arrived_at))

    def _decode_some(self) -> None:
        while len(self._decoded) <= BACKLOG_STEPS:
            frame = next(self._frames, None)
            if frame is not None:
                self._decoded.append((frame, self._arrived_at))
                continue
            if self._ending:
                self._ending = False
                self._decoded.append((_End(), self._arrived_at))
            taken = self._take()
            if taken is None:
                return
            command, self._arrived_at = taken
            match command:
                case _Audio(data):
                    self._frames = self._decoder.push(data)
                case _End():
                    self._frames = self._decoder.finish()
                    self._ending = True
                case _Flush():
                    self._decoded.append((command, self._arrived_at))

    def _take(self) -> tuple[_Command, float] | None:
        with self._lock:
            if not self._waiting:
                return None
            taken = self._waiting.popleft()
            if isinstance(taken[0], _Audio):
                self._waiting_bytes -= len(taken[0].data)
            has_room = self._was_full and self._load() < RESUME_BELOW
            if has_room:
                self._was_full = False
        if has_room:
            self._client.on_room()
        return taken

    def _load(self) -> float:
        """How much waits, as a share of what may wait."""
        size = self._waiting_bytes + COMMAND_BYTES * len(self._waiting)
        seconds = self._waiting_bytes * self._decoder.seconds_per_byte
        return max(size / MAX_WAITING, seconds / MAX_WAITING_S)

    @property
    def _received_s(self) -> float:
        return self._received * self._decoder.seconds_per_byte

    def _is_file(self) -> bool:
        with self._lock:
            self._realtime.set_total(self._received_s)  # a header may have been decoded by now
            return self._whole_file or self._realtime.is_file

    def _deliver(self, events: list[Event]) -> None:
        if self.done or not events:
            return
        for event in events:
            if isinstance(event, Flushed):
                waited_s = self._clock() - self._flushed_at.popleft()
                self._metrics.flush_seconds.observe(waited_s)
        if isinstance(events[-1], EndOfStream):
            self._close()
        self._client.on_events(events)

    def _fail(self, message: str, code: int) -> None:
        if not self.done:
            self._close()
            self._client.on_events([Error(message, code)])

    def _close(self) -> None:
        self.done = True
        self._flushed_at.clear()
        self._finishing = False
        if self._session is not None:
            self._session.close()
        self._session = None
