"""One stream of audio through the door: a client's bytes in, a Session's events out.

The loop puts commands in, the crew's threads take them out. What waits is counted in bytes, and
whoever feeds a stream stops while it is full: nothing is dropped, the client is held back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeAlias

from edged import STEP_S
from edged.audio.source import Frame
from edged.audio.stream_decoders import Decoder
from edged.engine.background_worker import ConditionalExecutor
from edged.engine.session import Session
from edged.errors import RequestError
from edged.events import EndOfStream, Error, Event
from edged.server.gradium_messages import Audio, End, Flush
from edged.server.metrics import Metrics
from edged.server.realtime_detector import Pace

MAX_WAITING = 1 << 20  # bytes that wait; one message may go beyond
MAX_WAITING_S = 10.0  # and what they last, as far as that is known
ROOM = 0.9  # of these: read on soon, for a client's pings wait behind its audio
OF_COMMAND = 256  # bytes that a command takes beside its audio: many small ones fill it too
BACKLOG_STEPS = 4  # steps of a live stream that wait: the recogniser then updates in larger chunks
OURS = 1011  # the code of an `error` that the client did not cause

Command: TypeAlias = Audio | Flush | End

_log = logging.getLogger(__name__)


def size_of(command: Command) -> int:
    """Bytes that it takes while it waits."""
    return OF_COMMAND + (len(command.data) if isinstance(command, Audio) else 0)


class Client(Protocol):
    """Who is at the other end. Called on the crew's threads; must not block."""

    def events(self, events: Sequence[Event]) -> None:
        """The last one of a stream is EndOfStream or Error."""

    def is_full(self) -> bool:
        """True while the client does not read: the stream rests until it is woken."""

    def room(self) -> None:
        """The stream takes audio again."""


class Stream:
    """Goes from `submit` to `submit` until `done`."""

    def __init__(
        self,
        make_session: Callable[[Executor], Session],
        decoder: Decoder,
        client: Client,
        wake: Callable[[Stream], None],
        executor: Executor,
        metrics: Metrics,
        whole: bool = False,
    ) -> None:
        """`make_session` is called on the first step, with an executor for long work. `wake` tells
        the crew that there is something to do. `whole`: it is a file, however it comes."""
        self.done = False
        self._make_session = make_session
        self._decoder = decoder
        self._client = client
        self._wake = wake
        self._executor = ConditionalExecutor(executor, self._is_file)
        self._metrics = metrics
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Command, float]] = deque()  # and when it came
        self._waiting_bytes = 0  # of audio
        self._received = 0  # bytes of audio
        self._was_full = False
        self._pace = Pace()
        self._whole = whole
        self._frames: Iterator[Frame] = iter(())
        self._next: deque[tuple[Frame | Flush | End, float]] = deque()  # decoded: a few steps
        self._came_at = 0.0  # the audio that is being decoded
        self._at_work = False

    # -- from the loop

    def submit(self, command: Command) -> None:
        now = time.monotonic()
        with self._lock:
            if self.done:
                return
            if isinstance(command, Audio):
                self._waiting_bytes += len(command.data)
                self._received += len(command.data)
                self._pace.came(self._received_s, now)
            self._waiting.append((command, now))
        self._wake(self)

    @property
    def is_full(self) -> bool:
        """No more should be submitted until `Client.room`."""
        with self._lock:
            self._was_full = not self.done and self._load() > 1
            if self._was_full:
                self._pace.held(time.monotonic())
            return self._was_full

    @property
    def waits(self) -> bool:
        """Something is still to be done or, once `done`, to be told. Asked in the order in which
        a command goes through them, so that none is between two."""
        return bool(self._waiting) or self._at_work or bool(self._next) or self.done

    @property
    def waiting_s(self) -> float:
        """Audio that was received and not yet heard, as far as it is known."""
        return self._waiting_bytes * self._decoder.seconds_per_byte + len(self._next) * STEP_S

    def abandon(self) -> None:
        """The client is gone: nothing more is done or said."""
        self.done = True

    # -- on a thread of the crew

    def work(self) -> bool:
        """At most one step."""
        if self.done or self._client.is_full():
            return False
        self._at_work = True
        try:
            return self._step()
        except RequestError as problem:
            self._fail(str(problem), problem.code)
        except Exception as problem:
            _log.exception("a stream failed", extra={"EDGED_CODE": "api-stream-failed"})
            self._fail(f"the recogniser failed ({type(problem).__name__})", OURS)
        finally:
            self._at_work = False
        return False

    def _step(self) -> bool:
        self._decode()
        if not self._next:
            return False
        if self._session is None:
            self._session = self._make_session(self._executor)
        item, came_at = self._next.popleft()
        match item:
            case Flush(flush_id):
                events = self._session.flush(flush_id)
                self._metrics.flush_seconds.observe(time.monotonic() - came_at)
                self._tell(events)
            case End():
                self._tell(self._session.end())
            case frame:
                is_file = self._is_file()
                backlog = (
                    is_file or len(self._next) >= BACKLOG_STEPS
                )  # as edged.cli.transcribe has it
                started = time.monotonic()
                events = self._session.push(frame, backlog)
                now = time.monotonic()
                self._metrics.step_seconds.observe(now - started)
                if not is_file:
                    self._metrics.answer_seconds.observe(now - came_at)
                self._tell(events)  # counted before: who has heard it may look at once
        return not self.done

    def _decode(self) -> None:
        """Keeps a few frames ready, so that it is known whether more wait."""
        while len(self._next) <= BACKLOG_STEPS:
            frame = next(self._frames, None)
            if frame is not None:
                self._next.append((frame, self._came_at))
                continue
            taken = self._take()
            if taken is None:
                return
            command, self._came_at = taken
            match command:
                case Audio(data):
                    self._frames = self._decoder.push(data)
                case End():
                    self._next.extend((frame, self._came_at) for frame in self._decoder.finish())
                    self._next.append((command, self._came_at))
                case Flush():
                    self._next.append((command, self._came_at))

    def _take(self) -> tuple[Command, float] | None:
        with self._lock:
            if not self._waiting:
                return None
            taken = self._waiting.popleft()
            if isinstance(taken[0], Audio):
                self._waiting_bytes -= len(taken[0].data)
            room = self._was_full and self._load() < ROOM
            if room:
                self._was_full = False
        if room:
            self._client.room()
        return taken

    def _load(self) -> float:
        """1: as much waits as may."""
        size = self._waiting_bytes + OF_COMMAND * len(self._waiting)
        seconds = self._waiting_bytes * self._decoder.seconds_per_byte
        return max(size / MAX_WAITING, seconds / MAX_WAITING_S)

    @property
    def _received_s(self) -> float:
        return self._received * self._decoder.seconds_per_byte

    def _is_file(self) -> bool:
        with self._lock:
            self._pace.is_worth(self._received_s)  # what its header says may be known by now
            return self._whole or self._pace.is_file

    def _tell(self, events: list[Event]) -> None:
        if self.done or not events:
            return
        if isinstance(events[-1], EndOfStream):
            self._close()
        self._client.events(events)

    def _fail(self, sentence: str, code: int) -> None:
        if not self.done:
            self._close()
            self._client.events([Error(sentence, code)])

    def _close(self) -> None:
        self.done = True
        self._session = None
