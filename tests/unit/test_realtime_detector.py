"""Live speech or a file: how the server tells, and how it processes each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.audio.stream_decoders import decoder
from edged.engine.session import Session
from edged.events import EndOfStream, Error, Event, Step, Text
from edged.server.metrics import Metrics
from edged.server.realtime_detector import AHEAD_S, LIVE_RATE, RealtimeDetector
from edged.server.stream import COMMAND_BYTES, MAX_WAITING, Stream
from tests.support.api_server import silence
from tests.support.recordings import with_libsndfile


def test_audio_in_real_time_is_live_and_so_is_a_burst_after_a_stall() -> None:
    detector = RealtimeDetector()
    for n in range(1000):
        detector.audio_arrived(0.08 * (n + 1), 0.08 * n)
        assert not detector.is_file
    detector.audio_arrived(80 + 20, 80 + 20)  # Wi-Fi stalled for 20 s, and delivers it all at once
    assert not detector.is_file


def test_silence_inserted_after_each_turn_never_makes_a_live_stream_a_file() -> None:
    """LiveKit's plug-in inserts `delay_in_frames` steps of zeros after each turn. When the lead was
    counted from the first sample on, its third turn turned a conversation into a file."""
    detector, now, total = RealtimeDetector(), 0.0, 0.0
    for _ in range(50):
        for _ in range(50):
            now, total = now + 0.08, total + 0.08
            detector.audio_arrived(total, now)
        total += 0.8
        detector.audio_arrived(total, now)
        assert not detector.is_file


def test_a_file_stays_a_file_however_slowly_it_is_accepted() -> None:
    """A device that is slower than the file delays it itself, and must not take it for live."""
    detector = RealtimeDetector()
    detector.audio_arrived(10, 0.0)
    assert detector.is_file
    for now in (10.0, 20.0, 30.0):
        detector.reading_paused(now - 9.9)
        detector.audio_arrived(10 + now / 2, now)
        assert detector.is_file


def test_a_live_stream_that_is_held_back_stays_live() -> None:
    detector = RealtimeDetector()
    for n in range(100):
        detector.audio_arrived(0.08 * (n + 1), 0.08 * n)
    detector.reading_paused(8.0)
    detector.audio_arrived(13.0, 13.0)  # what was spoken in the meantime
    assert not detector.is_file


def test_a_file_that_goes_on_live_is_soon_live() -> None:
    detector = RealtimeDetector()
    detector.audio_arrived(3600, 0.0)
    now, total = 0.0, 3600.0
    while detector.is_file:
        now, total = now + 0.08, total + 0.08
        detector.audio_arrived(total, now)
    assert now < 3.0 / (LIVE_RATE - 1) + 1


def test_a_duration_that_a_header_tells_later_counts() -> None:
    detector = RealtimeDetector()
    detector.audio_arrived(0.0, 0.0)  # the format, and so the duration, is not known yet
    assert not detector.is_file
    detector.set_total(AHEAD_S * 2)
    assert detector.is_file


# -- in a stream


class Receiver:
    """A client that is never full."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_events(self, events: Sequence[Event]) -> None:
        self.events += events

    def is_full(self) -> bool:
        return False

    def on_room(self) -> None:
        pass


class RecordingSession:
    """Records how it is fed, and whether its long work is done at once."""

    is_finished = True

    lag_s = 0.0

    def __init__(self, background: Executor, recogniser: Executor) -> None:
        self.background = background
        self.recogniser = recogniser
        self.backlog: list[bool] = []
        self.inline: list[bool] = []

    def push(self, frame: NDArray[np.int16], backlog: bool = False) -> list[Event]:
        self.backlog.append(backlog)
        for executor in (self.background, self.recogniser):
            self.inline.append(executor.submit(time.monotonic_ns).done())
        return [Step(len(self.backlog) - 1)]

    def collect(self) -> list[Event]:
        return []

    def finish(self, timeout_s: float) -> list[Event]:
        return []

    def close(self) -> None:
        pass

    def end(self) -> list[Event]:
        return [Text("last", 0.0), EndOfStream()]


class NeverExecutor(Executor):
    """An executor whose work is never done."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


class Rig:
    """A stream with a clock that the test sets."""

    def __init__(self, input_format: str = "pcm") -> None:
        self.now = 0.0
        self.sessions: list[RecordingSession] = []
        self.receiver = Receiver()
        self.stream = Stream(
            self._session,
            decoder(input_format),
            self.receiver,
            lambda _: None,
            NeverExecutor(),
            NeverExecutor(),
            Metrics(),
            clock=lambda: self.now,
        )

    def _session(
        self, executor: Executor, recogniser_executor: Executor, on_result: object
    ) -> Session:
        self.sessions.append(RecordingSession(executor, recogniser_executor))
        return cast(Session, self.sessions[-1])

    def work(self) -> None:
        while self.stream.work():
            pass


@pytest.mark.parametrize("chunk", [3840 * 100, 3840, 5001])
def test_a_whole_file_is_processed_as_transcribe_does_it(chunk: int) -> None:
    """In larger chunks from its first step on, in whatever pieces it arrives. In one message of 8 s
    it counted as delayed live speech at first, and as a file later, and so its text was not that of
    `edged transcribe`."""
    rig = Rig()
    data = silence(100)
    for at in range(0, len(data), chunk):
        rig.stream.push(data[at : at + chunk])
    rig.stream.end()
    rig.work()
    assert len(rig.receiver.events) == 102
    assert rig.sessions[0].backlog == [True] * 100
    assert all(rig.sessions[0].inline)


def test_live_speech_that_waits_is_a_backlog_and_its_long_work_is_done_in_the_background() -> None:
    rig = Rig()
    for _ in range(20):
        rig.now += 0.08
        rig.stream.push(silence(1))
    rig.work()
    assert sum(rig.sessions[0].backlog) == 16
    assert not any(rig.sessions[0].inline)


@pytest.mark.parametrize("command", ["flush", "audio"])
def test_many_small_commands_fill_a_stream_as_much_audio_does(command: str) -> None:
    """Only audio was counted, so that a client could queue flushes without end."""
    stream = Rig().stream
    count = 0
    while not stream.is_full:
        if command == "flush":
            stream.flush(1)
        else:
            stream.push(b"")
        count += 1
        assert count <= MAX_WAITING / COMMAND_BYTES + 1


def test_what_was_heard_before_damage_becomes_text_before_the_error() -> None:
    """The last words before the damage were thrown away with the session."""
    rig = Rig("opus")
    tone = 0.3 * np.sin(np.arange(48_000 * 4) / 20)
    data = bytearray(with_libsndfile(tone, 48_000, "OGG", "OPUS"))
    data[len(data) // 2] ^= 1
    rig.stream.push(bytes(data))
    rig.stream.end()
    rig.work()
    *steps, text, error = rig.receiver.events
    assert len(steps) == 50
    assert isinstance(text, Text)
    assert isinstance(error, Error)
    assert "is damaged" in error.message
    assert rig.stream.done


def test_what_is_no_audio_needs_no_session() -> None:
    rig = Rig("wav")
    rig.stream.push(b"<html>" * 10)
    rig.work()
    assert [type(event) for event in rig.receiver.events] == [Error]
    assert rig.sessions == []
