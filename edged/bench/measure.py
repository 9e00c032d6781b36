"""Runs recordings through sessions, as fast as possible, and collects what came out when."""

from __future__ import annotations

import random
import resource
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from edged import SAMPLE_RATE, STEP_S
from edged.audio.files import open_audio
from edged.audio.source import Frame
from edged.bench.manifest import NO_SPEECH, Clip
from edged.bench.simulated_device import SimulatedStream, TimedEvent
from edged.engine.load_level import LoadController
from edged.engine.run_stats import RunStats
from edged.engine.session import Session
from edged.events import EndText, Event, Text, Turn, Word
from edged.models.loader import Models
from edged.options import Options

P = ParamSpec("P")
T = TypeVar("T")
WARM_UP_S = 3.0  # seconds of audio
MIN_FLUSH_S = 0.8  # least audio before a flush, seconds

ReportAudio = Callable[[float], None]
"""Called with the seconds of audio processed since the last call."""


class TimedInlineExecutor(Executor):
    """Runs a session's background work at once and measures its time separately.

    On a device that work has a thread of its own. Here it must not count as step time, and its
    result must not depend on how much faster than real time the audio is fed.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        started = time.perf_counter()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        self.seconds.append(time.perf_counter() - started)
        return future


@dataclass
class ClipResult:
    """Recognised words of one clip. Times are seconds from the start of the clip.

    words: as committed, live.
    turn_words: those of the turns.
    text_events: number of `text` messages.
    """

    clip: Clip
    words: list[Word] = field(default_factory=list)
    turn_words: list[Word] = field(default_factory=list)
    text_events: int = 0

    @property
    def text(self) -> str:
        """The live text."""
        return " ".join(word.text for word in self.words)

    @property
    def turn_text(self) -> str:
        """The text of the turns."""
        return " ".join(word.text for word in self.turn_words)


@dataclass
class RunResult:
    """Measurements of all clips with one model and one set of options.

    cpu_s: CPU seconds of the sessions alone, without reading and resampling files.
    lags_s: from each word's end to its text, seconds.
    background_s: run times of background work, seconds.
    flushes_s: run times of flushes, seconds.
    peak_rss, rss_growth: resident memory, bytes; growth since a quarter of the clips was done.
    dropped: number of dropped texts by reason.
    slow: the factor by which a simulated device is slower; None for this machine.
    load_s: seconds of audio at each load level, on a simulated device.
    lost_s: seconds of audio that a simulated device gave up.
    """

    options: Options
    joined: bool = False
    clips: list[ClipResult] = field(default_factory=list)
    steps: RunStats = field(default_factory=RunStats)
    cpu_s: float = 0.0
    lags_s: list[float] = field(default_factory=list)
    background_s: list[float] = field(default_factory=list)
    flushes_s: list[float] = field(default_factory=list)
    peak_rss: int = 0
    rss_growth: int | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    slow: float | None = None
    load_s: dict[int, float] = field(default_factory=dict)
    lost_s: float = 0.0


def options_for(clip: Clip, options: Options) -> Options:
    """The options of a run, in the language of a clip."""
    return options if clip.language is None else replace(options, language=clip.language)


def warm_up(models: Models, clip: Clip, options: Options) -> None:
    """Runs some audio, because the first runs of each graph are slower than the rest."""
    session = Session(models, options_for(clip, options), TimedInlineExecutor())
    for _, frame in zip(range(round(WARM_UP_S / STEP_S)), frames(clip.file), strict=False):
        session.push(frame)
    session.end()


def measure(
    models: Models,
    clips: Sequence[Clip],
    options: Options,
    progress: ReportAudio,
    joined: bool = False,
    slow: float | None = None,
) -> RunResult:
    """Pushes each clip through a session of its own and ends the session.

    joined: push all clips through one session without a break, as from a microphone.
    slow: simulate a device that is so many times slower, in real time.
    """
    result = RunResult(options, joined, slow=slow)
    early_rss: int | None = None
    controller = LoadController()
    stream: _ClipFeed | None = None
    for number, clip in enumerate(clips):
        stream = stream or _ClipFeed(models, result, clip, progress, controller)
        stream.push_clip(clip)
        if not joined or number == len(clips) - 1:
            stream.end()
            stream = None
        if number == len(clips) // 4:
            early_rss = rss()
    result.peak_rss = peak_rss()
    if early_rss is not None and len(clips) > 1:
        result.rss_growth = rss() - early_rss
    return result


class _InlineStream:
    """A session that does everything in `push`, on this machine. step_s: run time of the last push
    without its background work, seconds."""

    levels: tuple[int, ...] = ()

    def __init__(self, models: Models, options: Options) -> None:
        self._background = TimedInlineExecutor()
        self.session = Session(models, options, self._background)
        self.step_s = 0.0

    @property
    def background_s(self) -> list[float]:
        """Run times of background jobs, seconds."""
        return self._background.seconds

    def push(self, frame: Frame) -> list[TimedEvent]:
        before = sum(self._background.seconds)
        started = time.perf_counter()
        events = self.session.push(frame)
        background_s = sum(self._background.seconds) - before
        self.step_s = time.perf_counter() - started - background_s
        at_s = self.session.step_idx * STEP_S + self.step_s
        return [(at_s, event) for event in events]

    def end(self) -> list[TimedEvent]:
        at_s = self.session.step_idx * STEP_S
        return [(at_s, event) for event in self.session.end()]


class _ClipFeed:
    """One session. Assigns each word to the clip that was playing at the word's time."""

    def __init__(
        self,
        models: Models,
        result: RunResult,
        first: Clip,
        progress: ReportAudio,
        controller: LoadController,
    ) -> None:
        """first: the clip whose language the session has."""
        options = options_for(first, result.options)
        self._result, self._progress = result, progress
        self._stream: _InlineStream | SimulatedStream
        if result.slow is None:
            self._stream = _InlineStream(models, options)
        else:
            self._stream = SimulatedStream(models, options, result.slow, controller)
        self._steps = 0
        self._first_steps: list[int] = []
        self._clips: list[ClipResult] = []
        self._open: ClipResult | None = None  # the clip of the word whose end is still to come
        self._word_start_s = 0.0

    def push_clip(self, clip: Clip) -> None:
        """Pushes a clip. Raises InputError."""
        self._clips.append(ClipResult(clip))
        self._first_steps.append(self._steps)
        for frame in frames(clip.file):
            cpu_before = time.process_time()
            emitted = self._stream.push(frame)
            self._result.cpu_s += time.process_time() - cpu_before
            self._steps += 1
            self._result.steps.add(self._stream.step_s)
            self._collect([event for _, event in emitted])
            self._result.lags_s += [
                at_s - event.stop_s for at_s, event in emitted if isinstance(event, EndText)
            ]
            self._progress(STEP_S)

    def end(self) -> None:
        """Ends the session and stores the results."""
        cpu_before = time.process_time()
        emitted = self._stream.end()
        self._result.cpu_s += time.process_time() - cpu_before
        self._collect([event for _, event in emitted])
        self._result.clips += self._clips
        self._result.background_s += self._stream.background_s
        self._result.dropped.update(self._stream.session.dropped)
        self._result.lost_s += self._stream.session.lost / SAMPLE_RATE
        for level in self._stream.levels:
            self._result.load_s[level] = self._result.load_s.get(level, 0.0) + STEP_S

    def _collect(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Text(text=text, start_s=start):
                    result, origin = self._clip_at(start)
                    result.text_events += 1
                    result.words.append(Word(text, start - origin, start - origin))
                    self._open, self._word_start_s = result, start
                case EndText(stop_s=stop) if self._open is not None:
                    word = self._open.words[-1]
                    length = stop - self._word_start_s
                    self._open.words[-1] = Word(word.text, word.start_s, word.start_s + length)
                case Turn(words=words):
                    for word in words:
                        result, origin = self._clip_at(word.start_s)
                        moved = Word(word.text, word.start_s - origin, word.stop_s - origin)
                        result.turn_words.append(moved)

    def _clip_at(self, seconds: float) -> tuple[ClipResult, float]:
        """Returns the clip that was playing at that time, and when it began."""
        index = max(0, bisect_right(self._first_steps, seconds / STEP_S) - 1)
        return self._clips[index], self._first_steps[index] * STEP_S


def flush_times(
    models: Models,
    clips: Sequence[Clip],
    options: Options,
    count: int,
    slow: float | None = None,
    seed: int = 0,
) -> list[float]:
    """Returns the run times of `flush` (seconds), each at a random time in a clip with speech.

    slow: on a simulated device, from the flush to its answer.
    """
    chance = random.Random(seed)
    spoken = [clip for clip in clips if clip.kind not in NO_SPEECH]
    times = []
    for clip in chance.sample(spoken, min(count, len(spoken))):
        audio = list(frames(clip.file))
        earliest = min(len(audio), round(MIN_FLUSH_S / STEP_S))
        spoken_so_far = audio[: chance.randint(earliest, len(audio))]
        if slow is not None:
            stream = SimulatedStream(models, options_for(clip, options), slow, LoadController())
            for frame in spoken_so_far:
                stream.push(frame)
            times.append(stream.flush())
            continue
        background = TimedInlineExecutor()
        session = Session(models, options_for(clip, options), background)
        for frame in spoken_so_far:
            session.push(frame)
        before = sum(background.seconds)
        started = time.perf_counter()
        session.flush("bench")
        times.append(time.perf_counter() - started - (sum(background.seconds) - before))
    return times


def frames(path: Path) -> Iterator[Frame]:
    """Yields the frames of a file. Raises InputError."""
    with closing(open_audio(str(path))) as source:
        yield from source.frames()


def peak_rss() -> int:
    """Returns the peak resident memory of this process in bytes (Linux).

    `ru_maxrss` would not do: it is inherited from the parent process.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def rss() -> int:
    """Returns the resident memory of this process in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
