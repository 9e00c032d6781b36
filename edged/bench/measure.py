"""Clips through fresh sessions, as fast as they go, and what came out when."""

from __future__ import annotations

import random
import resource
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from edged import STEP_S
from edged.audio.files import open_audio
from edged.audio.source import Frame
from edged.bench.manifest import NO_SPEECH, Clip
from edged.engine.run_stats import RunStats
from edged.engine.session import Session
from edged.events import EndText, Event, Text, Turn, Word
from edged.models.loader import Models
from edged.options import Options

P = ParamSpec("P")
T = TypeVar("T")
WARM_UP_S = 3.0
MIN_FLUSH_S = 0.8  # of audio before a flush

Progress = Callable[[float], None]
"""Called with the seconds of audio that have been done since the last call."""


class BackgroundWorker(Executor):
    """Runs at once what a session would run beside its steps, and keeps its time apart.

    On a device that work has a thread of its own. Here it must not distort the steps' times, and
    its result must not depend on how much faster than real time the clips are fed.
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
class Heard:
    """What one clip gave: words as committed, and those of its turns. Seconds of the clip."""

    clip: Clip
    words: list[Word] = field(default_factory=list)
    turn_words: list[Word] = field(default_factory=list)
    text_events: int = 0

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def turn_text(self) -> str:
        return " ".join(word.text for word in self.turn_words)


@dataclass
class Measured:
    """All clips at one setting. Times in seconds, memory in bytes. cpu_s: of the sessions alone, as
    the peer's is of its calls; on a device no file is decoded."""

    options: Options
    joined: bool = False
    heard: list[Heard] = field(default_factory=list)
    steps: RunStats = field(default_factory=RunStats)
    cpu_s: float = 0.0
    lags_s: list[float] = field(default_factory=list)
    beside_s: list[float] = field(default_factory=list)
    flushes_s: list[float] = field(default_factory=list)
    peak_rss: int = 0
    rss_growth: int | None = None
    dropped: Counter[str] = field(default_factory=Counter)


def warm_up(models: Models, clip: Clip, options: Options) -> None:
    """The first runs of each graph are slower: not part of what is measured."""
    session = Session(models, options, BackgroundWorker())
    for _, frame in zip(range(round(WARM_UP_S / STEP_S)), frames(clip.file), strict=False):
        session.push(frame)
    session.end()


def measure(
    models: Models,
    clips: Sequence[Clip],
    options: Options,
    progress: Progress,
    joined: bool = False,
) -> Measured:
    """Each clip through a session of its own: all frames pushed, then the end. `joined`: all of
    them through one, without a break, as a microphone would bring them."""
    result = Measured(options, joined)
    early_rss: int | None = None
    stream = _Stream(models, result, progress)
    for number, clip in enumerate(clips):
        stream.hear(clip)
        if not joined or number == len(clips) - 1:
            stream.end()
            stream = _Stream(models, result, progress)
        if number == len(clips) // 4:
            early_rss = rss()
    result.peak_rss = peak_rss()
    if early_rss is not None and len(clips) > 1:
        result.rss_growth = rss() - early_rss
    return result


class _Stream:
    """One session, and whose words it gave: those of the clip that was heard at their time."""

    def __init__(self, models: Models, result: Measured, progress: Progress) -> None:
        self._result, self._progress = result, progress
        self._beside = BackgroundWorker()
        self._session = Session(models, result.options, self._beside)
        self._steps = 0
        self._first_steps: list[int] = []
        self._heard: list[Heard] = []
        self._open: Heard | None = None  # has the word whose end is still to be told
        self._said_at = 0.0

    def hear(self, clip: Clip) -> None:
        """Raises InputError."""
        self._heard.append(Heard(clip))
        self._first_steps.append(self._steps)
        for frame in frames(clip.file):
            so_far = sum(self._beside.seconds)
            started, cpu_before = time.perf_counter(), time.process_time()
            events = self._session.push(frame)
            self._result.cpu_s += time.process_time() - cpu_before
            took = time.perf_counter() - started - (sum(self._beside.seconds) - so_far)
            self._steps += 1
            self._result.steps.add(took)
            self._note(events)
            stops = [event.stop_s for event in events if isinstance(event, EndText)]
            self._result.lags_s += [self._steps * STEP_S + took - stop for stop in stops]
            self._progress(STEP_S)

    def end(self) -> None:
        cpu_before = time.process_time()
        events = self._session.end()
        self._result.cpu_s += time.process_time() - cpu_before
        self._note(events)
        self._result.heard += self._heard
        self._result.beside_s += self._beside.seconds
        self._result.dropped.update(self._session.dropped)

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Text(text=text, start_s=start):
                    heard, origin = self._at(start)
                    heard.text_events += 1
                    heard.words.append(Word(text, start - origin, start - origin))
                    self._open, self._said_at = heard, start
                case EndText(stop_s=stop) if self._open is not None:
                    word = self._open.words[-1]
                    length = stop - self._said_at
                    self._open.words[-1] = Word(word.text, word.start_s, word.start_s + length)
                case Turn(words=words):
                    for word in words:
                        heard, origin = self._at(word.start_s)
                        moved = Word(word.text, word.start_s - origin, word.stop_s - origin)
                        heard.turn_words.append(moved)

    def _at(self, seconds: float) -> tuple[Heard, float]:
        """The clip that was heard then, and when it began."""
        index = max(0, bisect_right(self._first_steps, seconds / STEP_S) - 1)
        return self._heard[index], self._first_steps[index] * STEP_S


def flush_times(
    models: Models, clips: Sequence[Clip], options: Options, count: int, seed: int = 0
) -> list[float]:
    """Seconds from `flush` to `flushed`, each at a random moment within a clip with speech."""
    chance = random.Random(seed)
    spoken = [clip for clip in clips if clip.kind not in NO_SPEECH]
    times = []
    for clip in chance.sample(spoken, min(count, len(spoken))):
        beside = BackgroundWorker()
        session = Session(models, options, beside)
        audio = list(frames(clip.file))
        earliest = min(len(audio), round(MIN_FLUSH_S / STEP_S))
        for frame in audio[: chance.randint(earliest, len(audio))]:
            session.push(frame)
        so_far = sum(beside.seconds)
        started = time.perf_counter()
        session.flush("bench")
        times.append(time.perf_counter() - started - (sum(beside.seconds) - so_far))
    return times


def frames(path: Path) -> Iterator[Frame]:
    """Raises InputError."""
    with closing(open_audio(str(path))) as source:
        yield from source.frames()


def peak_rss() -> int:
    """The most resident bytes this process has had (Linux).

    Not `ru_maxrss`: that one is inherited from whoever started the process.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def rss() -> int:
    """Resident bytes of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
