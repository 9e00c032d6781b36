"""Runs the recogniser of one stream on an executor, so that a step never waits for it."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from edged.audio.sample_history import SampleHistory
from edged.events import Word
from edged.options import Options
from edged.stt.decoder import DecodedText
from edged.stt.family import RATE
from edged.stt.recogniser import FinishedSegment

# The most audio (seconds) that one update reads when audio has piled up. A segment has room for 3 s
# more than the age at which it is cut.
MAX_UPDATE_S = 2.7
MIN_SKIP_S = 4.0  # less audio is not worth it that a sentence is cut


class StreamRecogniser(Protocol):
    """What the queue needs of `edged.stt.recogniser.Recogniser`. One thread at a time calls it."""

    options: Options
    expected_language: str | None
    greedy: bool
    dropped: Counter[str]
    finished: list[FinishedSegment]
    runs: int

    @property
    def is_open(self) -> bool: ...

    @property
    def start(self) -> int | None: ...

    @property
    def age_s(self) -> float: ...

    @property
    def decoded(self) -> DecodedText | None: ...

    def begin(self, start: int) -> None: ...

    def advance(
        self,
        history: SampleHistory,
        until: int,
        backlog: bool = False,
        pause: bool = False,
        voice_uncertainty: float = 0.0,
    ) -> list[Word]: ...

    def finish(
        self, history: SampleHistory, until: int, voice_uncertainty: float = 0.0
    ) -> list[Word]: ...

    def set_earliest_start(self, seconds: float) -> None: ...

    def discard(self) -> None: ...


# ---- requests, in the order in which the recogniser has to see them ------------------------------
@dataclass(frozen=True, slots=True)
class _Begin:
    start: int
    segment: int


@dataclass(frozen=True, slots=True)
class _Advance:
    until: int
    backlog: bool
    pause: bool
    voice_uncertainty: float


@dataclass(frozen=True, slots=True)
class _Finish:
    until: int
    voice_uncertainty: float


@dataclass(frozen=True, slots=True)
class _Discard:
    pass


@dataclass(frozen=True, slots=True)
class _EarliestStart:
    seconds: float


@dataclass(frozen=True, slots=True)
class _Configure:
    options: Options
    greedy: bool
    expected_language: str | None


@dataclass(frozen=True, slots=True)
class _Mark:
    marker: object


_Request: TypeAlias = _Begin | _Advance | _Finish | _Discard | _EarliestStart | _Configure | _Mark


# ---- results ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CommittedWords:
    words: list[Word]


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    segment: FinishedSegment


@dataclass(frozen=True, slots=True)
class _State:
    """The recogniser after a job.

    segment: number of the last segment that was begun. start, age_s: of the open segment. read: the
    place up to which audio was read. decoded: text of the open segment when audio had been read up
    to `decoded_until`; also of a segment whose last pause and end were done in one job.
    """

    segment: int = 0
    start: int | None = None
    age_s: float = 0.0
    read: int = 0
    decoded: DecodedText | None = None
    decoded_until: int = 0
    runs: int = 0


@dataclass(frozen=True, slots=True)
class _JobResult:
    outputs: list[object]  # CommittedWords, SegmentEnd and markers
    state: _State


class RecogniserQueue:
    """Hands requests to a recogniser and collects what it gives, in order.

    All methods are called by one thread, that of the session. The recogniser runs in jobs on an
    executor, at most one at a time. A job takes all requests that have arrived since the last one
    was started and merges those to read more audio, so that a slow device updates less often
    instead of falling behind. With an inline executor each request is done before its method
    returns.

    A marker is returned among the results at the place where it was put among the requests.
    """

    def __init__(
        self,
        recogniser: StreamRecogniser,
        history: SampleHistory,
        executor: Executor,
        on_result: Callable[[], None] | None = None,
    ) -> None:
        """history: the audio of the stream; safe to read while the session appends.
        on_result: called on the executor's thread when a job is done: there may be something to
            collect, and less audio waits.
        """
        self._recogniser: StreamRecogniser | None = recogniser  # None: closed before its job ran
        self._history = history
        self._executor = executor
        self._on_result = on_result
        # Shared with the executor's thread:
        self._changed = threading.Condition()
        self._requests: list[_Request] = []
        self._job: Future[_JobResult] | None = None
        self._results: deque[_JobResult] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._busy_s = 0.0
        self._job_started_at: float | None = None
        self._taken = 0  # the place up to which jobs have taken requests to read
        # Only the recogniser's job:
        self._job_state = _State()
        # Only the session's thread:
        self._state = _State()
        self._decoded_was_read = True
        self._segment = 0
        self._start: int | None = None
        self._until = 0
        self._read = 0

    # ---- requests -------------------------------------------------------------------------------
    def begin(self, start: int) -> None:
        """Opens a segment at `start`, a place in the stream at 16 kHz."""
        if self.idle:
            self._read = start
        self._segment += 1
        self._start = self._until = start
        self._request(_Begin(start, self._segment))

    def advance(self, until: int, backlog: bool, pause: bool, voice_uncertainty: float) -> None:
        """Reads audio up to `until`; see `edged.stt.recogniser.Recogniser.advance`."""
        self._until = until
        self._request(_Advance(until, backlog, pause, voice_uncertainty))

    def finish(self, until: int, voice_uncertainty: float) -> None:
        """Closes the open segment at `until`."""
        self._start, self._until = None, until
        self._request(_Finish(until, voice_uncertainty))

    def discard(self) -> None:
        """Closes the open segment without its words."""
        self._start = None
        self._request(_Discard())

    def set_earliest_start(self, seconds: float) -> None:
        """Words that are still to come start at this stream time or later."""
        self._request(_EarliestStart(seconds))

    def configure(
        self, options: Options, greedy: bool, expected_language: str | None = None
    ) -> None:
        """New options count from the next segment on.

        greedy, expected_language: see `edged.stt.recogniser.Recogniser`.
        """
        self._request(_Configure(options, greedy, expected_language))

    def mark(self, marker: object) -> None:
        """Returns `marker` among the results after all that was requested before it."""
        self._request(_Mark(marker))

    def skip_to(self, start: int) -> int:
        """Gives up unread audio: closes the open segment where it was read, opens one at `start`.

        Audio that the running job reads is not given up. Does nothing if less than MIN_SKIP_S more
        waits before `start`. Returns how many samples (16 kHz) will not be read.
        """
        with self._changed:
            lost = start - max(self._read, self._taken)
            if lost < MIN_SKIP_S * RATE:
                return 0
            kept: list[_Request] = []
            for request in self._requests:
                if isinstance(request, _Finish):
                    kept.append(replace(request, until=0))
                elif not isinstance(request, _Advance):
                    kept.append(request)
            self._requests = [*kept, _Finish(0, 0.0)]
        self._segment += 1
        self._start = self._until = self._read = start
        self._request(_Begin(start, self._segment))
        return lost

    # ---- state ----------------------------------------------------------------------------------
    @property
    def is_open(self) -> bool:
        """Whether there is an open segment, all requests done."""
        return self._start is not None

    @property
    def start(self) -> int | None:
        """Where the open segment starts; None without one."""
        known = self._start is not None and self._state.segment == self._segment
        return self._state.start if known and self._state.start is not None else self._start

    @property
    def age_s(self) -> float:
        """Seconds of audio in the open segment, all requests done; 0 without one."""
        if self._start is None:
            return 0.0
        if self._state.segment == self._segment and self._state.start is not None:
            return self._state.age_s + max(0, self._until - self._state.read) / RATE
        return (self._until - self._start) / RATE

    @property
    def until(self) -> int:
        """The place up to which reading was requested."""
        return self._until

    @property
    def decoded(self) -> tuple[DecodedText, int] | None:
        """The last text of the current segment, and the place up to which audio had been read."""
        self._decoded_was_read = True
        if self._state.segment != self._segment or self._state.decoded is None:
            return None
        return self._state.decoded, self._state.decoded_until

    @property
    def idle(self) -> bool:
        """Whether all requests are done."""
        with self._changed:
            return self._job is None and not self._requests

    @property
    def is_drained(self) -> bool:
        """Whether all requests are done and all results were collected."""
        with self._changed:
            return self._job is None and not self._requests and not self._results

    @property
    def lag_s(self) -> float:
        """Seconds of audio between what was requested and what was read; 0 while idle."""
        return 0.0 if self.idle else max(0, self._until - self._read) / RATE

    @property
    def busy_s(self) -> float:
        """Seconds that the recogniser has worked so far, the running job included."""
        with self._changed:
            started_at = self._job_started_at
            running_s = 0.0 if started_at is None else time.monotonic() - started_at
            return self._busy_s + running_s

    @property
    def runs(self) -> int:
        """Decoder runs of finished segments."""
        return self._state.runs

    # ---- results --------------------------------------------------------------------------------
    def collect(self) -> list[object]:
        """Returns `CommittedWords`, `SegmentEnd`s and markers since the last call, in order.

        Raises what the recogniser raised; the queue must not be used any more then.
        """
        outputs: list[object] = []
        with self._changed:
            error = self._error
            results = list(self._results)
            self._results.clear()
        for result in results:
            outputs += result.outputs
            self._set_state(result.state)
            self._read = max(self._read, result.state.read)
        if error is not None and not outputs:
            raise error
        return outputs

    def _set_state(self, state: _State) -> None:
        """Keeps the text of a segment that has ended meanwhile until `decoded` was read once."""
        last = self._state
        if state.decoded is not None:
            self._decoded_was_read = False
        elif state.segment == last.segment and not self._decoded_was_read:
            state = replace(state, decoded=last.decoded, decoded_until=last.decoded_until)
        self._state = state

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until all requests are done; False if that took longer than `timeout_s`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._changed:
                job = self._job
            if job is None:
                return True
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                job.exception(remaining)
            except CancelledError:
                pass
            except TimeoutError:
                return False
            with self._changed:  # the future is done a moment before `_job_done` is called
                while self._job is job:
                    if not self._changed.wait(remaining):
                        return False

    def close(self) -> None:
        """Cancels what is not yet done; nothing more is called."""
        with self._changed:
            self._closed = True
            self._requests.clear()
            self._results.clear()
            job = self._job
        if job is not None and job.cancel():
            # the executor keeps the cancelled job, and with it this queue, until its turn comes
            self._recogniser, self._history = None, SampleHistory(0)

    # ---- jobs -----------------------------------------------------------------------------------
    def _request(self, request: _Request) -> None:
        with self._changed:
            if self._closed or self._error is not None:
                return
            _merge(self._requests, request)
            if self._job is not None:
                return
        self._start_job()

    def _start_job(self) -> None:
        job: Future[_JobResult] = self._executor.submit(self._work)
        with self._changed:
            self._job = job
        job.add_done_callback(self._job_done)

    def _job_done(self, job: Future[_JobResult]) -> None:
        """Keeps the result and starts the next job. On the executor's thread."""
        cancelled = job.cancelled()
        error = RuntimeError("the recogniser's job was cancelled") if cancelled else job.exception()
        with self._changed:
            notify = False
            if self._closed:
                pass
            elif error is not None:
                self._error, notify = error, True
                self._requests.clear()
            else:
                self._results.append(job.result())
                notify = True
            again = bool(self._requests)
            if not again:
                self._job = None
            self._changed.notify_all()
        if again:
            self._start_job()
        if notify and self._on_result is not None:
            self._on_result()

    def _work(self) -> _JobResult:
        """Does all requests that have arrived so far."""
        with self._changed:
            requests, self._requests = self._requests, []
            reads = [r.until for r in requests if isinstance(r, _Advance | _Finish)]
            self._taken = max(self._taken, *reads) if reads else self._taken
            self._job_started_at = started_at = time.monotonic()
        try:
            outputs: list[object] = []
            pause_decoded: DecodedText | None = None
            for request in requests:
                outputs += self._do(request)
                match request:
                    case _Advance(pause=True):
                        pause_decoded = self._job_state.decoded
                    case _Finish():
                        self._job_state = replace(self._job_state, decoded=pause_decoded)
                    case _Begin() | _Discard():
                        pause_decoded = None
            return _JobResult(outputs, self._job_state)
        finally:
            with self._changed:
                self._job_started_at = None
                self._busy_s += time.monotonic() - started_at

    def _do(self, request: _Request) -> Sequence[object]:
        recogniser, state = self._recogniser, self._job_state
        assert recogniser is not None
        outputs: list[object] = []
        words: list[Word] = []
        match request:
            case _Begin(start, segment):
                recogniser.begin(start)
                state = _State(segment, read=start)
            case _Advance(until, backlog, pause, voice_uncertainty):
                outputs += self._read_backlog(until, voice_uncertainty)
                words = recogniser.advance(self._history, until, backlog, pause, voice_uncertainty)
                state = replace(
                    state,
                    read=max(state.read, until),
                    decoded=recogniser.decoded,
                    decoded_until=until,
                )
            case _Finish(until, voice_uncertainty):
                outputs += self._read_backlog(until, voice_uncertainty)
                words = recogniser.finish(self._history, until, voice_uncertainty)
                state = replace(state, read=max(state.read, until), decoded=None)
            case _Discard():
                recogniser.discard()
                state = replace(state, decoded=None)
            case _EarliestStart(seconds):
                recogniser.set_earliest_start(seconds)
            case _Configure(options, greedy, expected_language):
                recogniser.options, recogniser.greedy = options, greedy
                recogniser.expected_language = expected_language
            case _Mark(marker):
                return [marker]
        self._job_state = replace(
            state, start=recogniser.start, age_s=recogniser.age_s, runs=recogniser.runs
        )
        return [*outputs, *self._take_outputs(words)]

    def _read_backlog(self, until: int, voice_uncertainty: float) -> list[object]:
        """Reads audio in updates of MAX_UPDATE_S until no more than that is left before `until`."""
        recogniser, step = self._recogniser, int(MAX_UPDATE_S * RATE)
        assert recogniser is not None
        outputs: list[object] = []
        read = self._job_state.read
        while recogniser.is_open and until - read > step:
            read += step
            words = recogniser.advance(self._history, read, True, False, voice_uncertainty)
            outputs += self._take_outputs(words)
        return outputs

    def _take_outputs(self, words: list[Word]) -> list[object]:
        """The words of one call of the recogniser, then the segments that ended in it."""
        recogniser = self._recogniser
        assert recogniser is not None
        outputs: list[object] = [CommittedWords(words)] if words else []
        outputs += [SegmentEnd(segment) for segment in recogniser.finished]
        recogniser.finished.clear()
        return outputs


def _merge(requests: list[_Request], request: _Request) -> None:
    """Appends a request; merges it with one that only reads audio, which it does as well.

    The end of a segment does not replace an update in its last pause, which decodes the text to its
    end: the turn detector waits for that.
    """
    last = requests[-1] if requests else None
    if isinstance(last, _Advance) and (
        isinstance(request, _Advance) or (isinstance(request, _Finish) and not last.pause)
    ):
        requests.pop()
    requests.append(request)
