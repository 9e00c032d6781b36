"""Live or a file: what decides how a stream is worked through."""

from __future__ import annotations

import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from edged.audio.stream_decoders import decoder
from edged.engine.session import Session
from edged.events import EndOfStream, Event, Step
from edged.server.gradium_messages import Audio, End, Flush
from edged.server.metrics import Metrics
from edged.server.realtime_detector import AHEAD_S, LIVE, Pace
from edged.server.stream import MAX_WAITING, OF_COMMAND, Stream
from tests.support.api_server import silence


def test_audio_in_real_time_is_live_and_a_burst_after_a_stall_too() -> None:
    pace = Pace()
    for n in range(1000):
        pace.came(0.08 * (n + 1), 0.08 * n)
        assert not pace.is_file
    pace.came(80 + 20, 80 + 20)  # Wi-Fi was gone for 20 s, and gives it all at once
    assert not pace.is_file


def test_silence_put_in_behind_each_turn_never_makes_a_live_stream_a_file() -> None:
    """LiveKit's plug-in puts in `delay_in_frames` steps of zeros at each turn's end. Counted from
    the first sample on, its third turn once made a file of a conversation."""
    pace, now, total = Pace(), 0.0, 0.0
    for _ in range(50):
        for _ in range(50):
            now, total = now + 0.08, total + 0.08
            pace.came(total, now)
        total += 0.8
        pace.came(total, now)
        assert not pace.is_file


def test_a_file_is_one_however_slowly_it_is_taken() -> None:
    """Ours was the delay: a box that is slower than the file must not take it for live speech."""
    pace = Pace()
    pace.came(10, 0.0)
    assert pace.is_file
    for now in (10.0, 20.0, 30.0):
        pace.held(now - 9.9)
        pace.came(10 + now / 2, now)
        assert pace.is_file


def test_a_live_stream_that_is_held_back_stays_live() -> None:
    pace = Pace()
    for n in range(100):
        pace.came(0.08 * (n + 1), 0.08 * n)
    pace.held(8.0)
    pace.came(13.0, 13.0)  # what was said meanwhile
    assert not pace.is_file


def test_a_file_that_goes_on_live_is_soon_live() -> None:
    pace = Pace()
    pace.came(3600, 0.0)
    now, total = 0.0, 3600.0
    while pace.is_file:
        now, total = now + 0.08, total + 0.08
        pace.came(total, now)
    assert now < 3.0 / (LIVE - 1) + 1


def test_what_a_header_tells_later_counts() -> None:
    pace = Pace()
    pace.came(0.0, 0.0)  # bytes of no known format
    assert not pace.is_file
    pace.is_worth(AHEAD_S * 2)
    assert pace.is_file


# -- in a stream


class Told:
    def __init__(self) -> None:
        self.heard: list[Event] = []

    def events(self, events: Any) -> None:
        self.heard += events

    def is_full(self) -> bool:
        return False

    def room(self) -> None:
        pass


class Watched:
    """A session that notes how it is fed."""

    backlog: list[bool]
    inline: list[bool]

    def __init__(self, beside: Executor) -> None:
        self.beside = beside
        self.backlog, self.inline = [], []

    def push(self, frame: np.ndarray, backlog: bool = False) -> list[Event]:
        self.backlog.append(backlog)
        self.inline.append(self.beside.submit(time.monotonic_ns).done())
        return [Step(len(self.backlog) - 1)]

    def end(self) -> list[Event]:
        return [EndOfStream()]


class Never(ThreadPoolExecutor):
    """Work that was put aside is seen not to be done."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        from concurrent.futures import Future

        return Future()


def stream(session_of: list[Watched], form: str = "pcm") -> tuple[Stream, Told]:
    told = Told()

    def make(beside: Executor) -> Session:
        session_of.append(Watched(beside))
        return session_of[-1]  # type: ignore[return-value]

    made = Stream(make, decoder(form), told, lambda _: None, Never(1), Metrics())
    return made, told


@pytest.mark.parametrize("chunk", [3840 * 100, 3840, 5001])
def test_a_whole_file_is_worked_through_as_transcribe_does(chunk: int) -> None:
    """In larger pieces from its first step on, however it comes. In one message of 8 s it once
    counted as late live speech at first, and as a file later: another text than `edged transcribe`
    gives."""
    sessions: list[Watched] = []
    made, told = stream(sessions)
    data = silence(100)
    for at in range(0, len(data), chunk):
        made.submit(Audio(data[at : at + chunk]))
    made.submit(End())
    while made.work():
        pass
    assert len(told.heard) == 101
    assert sessions[0].backlog == [True] * 100
    assert all(sessions[0].inline)


def test_live_speech_that_waits_is_late_and_long_work_is_put_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("edged.server.stream.time.monotonic", lambda: now)
    sessions: list[Watched] = []
    made, _ = stream(sessions)
    for _ in range(20):
        now += 0.08
        made.submit(Audio(silence(1)))
    while made.work():
        pass
    assert sum(sessions[0].backlog) == 16
    assert not any(sessions[0].inline)


@pytest.mark.parametrize("small", [Flush(1), Audio(b"")])
def test_many_small_commands_fill_a_stream_as_much_audio_does(small: Flush | Audio) -> None:
    """Only audio was counted: a client could once pile up flushes without end."""
    made, _ = stream([])
    count = 0
    while not made.is_full:
        made.submit(small)
        count += 1
        assert count <= MAX_WAITING / OF_COMMAND + 1
