"""Clips through fresh sessions, as fast as they go, and what came out when."""

from __future__ import annotations

import random
import resource
import time
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
from edged.events import EndText, Event, Text, Turn, Word
from edged.models.loader import Models
from edged.options import Options
from edged.runstats import RunStats
from edged.session import Session

P = ParamSpec("P")
T = TypeVar("T")
WARM_UP_S = 3.0
MIN_FLUSH_S = 0.8  # of audio before a flush

Progress = Callable[[float], None]
"""Called with the seconds of audio that have been done since the last call."""


class Beside(Executor):
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
    """What one clip gave: words as committed, and the turns."""

    clip: Clip
    words: list[Word] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    text_events: int = 0

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def turn_text(self) -> str:
        return " ".join(turn.text for turn in self.turns)


@dataclass
class Measured:
    """All clips at one setting. Times in seconds, memory in bytes."""

    options: Options
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
    session = Session(models, options, Beside())
    for _, frame in zip(range(round(WARM_UP_S / STEP_S)), frames(clip.file), strict=False):
        session.push(frame)
    session.end()


def measure(
    models: Models, clips: Sequence[Clip], options: Options, progress: Progress
) -> Measured:
    """Each clip through a session of its own: all frames pushed, then the end."""
    result = Measured(options)
    early_rss: int | None = None
    result.steps = RunStats()
    for number, clip in enumerate(clips):
        result.heard.append(_hear(models, clip, result, progress))
        if number == len(clips) // 4:
            early_rss = rss()
    result.cpu_s = result.steps.cpu_s
    result.peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if early_rss is not None and len(clips) > 1:
        result.rss_growth = rss() - early_rss
    return result


def _hear(models: Models, clip: Clip, result: Measured, progress: Progress) -> Heard:
    beside = Beside()
    session = Session(models, result.options, beside)
    heard = Heard(clip)
    for number, frame in enumerate(frames(clip.file), 1):
        so_far = sum(beside.seconds)
        started = time.perf_counter()
        events = session.push(frame)
        took = time.perf_counter() - started - (sum(beside.seconds) - so_far)
        result.steps.add(took)
        _note(events, heard)
        stops = [event.stop_s for event in events if isinstance(event, EndText)]
        result.lags_s += [number * STEP_S + took - stop for stop in stops]
        progress(STEP_S)
    _note(session.end(), heard)
    result.beside_s += beside.seconds
    result.dropped.update(session.dropped)
    return heard


def _note(events: Sequence[Event], heard: Heard) -> None:
    for event in events:
        match event:
            case Text(text=text, start_s=start):
                heard.text_events += 1
                heard.words.append(Word(text, start, start))
            case EndText(stop_s=stop) if heard.words:
                heard.words[-1] = Word(heard.words[-1].text, heard.words[-1].start_s, stop)
            case Turn():
                heard.turns.append(event)


def flush_times(
    models: Models, clips: Sequence[Clip], options: Options, count: int, seed: int = 0
) -> list[float]:
    """Seconds from `flush` to `flushed`, each at a random moment within a clip with speech."""
    chance = random.Random(seed)
    spoken = [clip for clip in clips if clip.kind not in NO_SPEECH]
    times = []
    for clip in chance.sample(spoken, min(count, len(spoken))):
        beside = Beside()
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


def rss() -> int:
    """Resident bytes of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
