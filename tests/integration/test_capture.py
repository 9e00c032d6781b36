"""The capture thread never goes deaf: it hears, or says that it does not, and hears again.

The device is real (libasound, paced by the clock) wherever a real one can show it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.audio import capture as capture_module
from edged.audio.capture import Capture
from edged.audio.microphone_status import MicrophoneState, MicrophoneStatus
from edged.audio.pacer import MAX_LEAD_S, MAX_SPEED, Pacer
from edged.audio.ring import Gap, Ring
from tests.support.alsa_paced import DEVICE, PacedMicrophone
from tests.support.fake_alsa import FakeCard, ramp

RATE = 24_000


class TestRing(Ring):
    """A ring whose producer can be held up, as by a busy processor, or made to fail."""

    __test__ = False
    before_return: Callable[[], None] | None = None
    failing = False

    def write(self, samples: NDArray[np.int16]) -> None:
        if self.failing:
            raise RuntimeError("a bug")
        super().write(samples)
        if self.before_return is not None:
            held, self.before_return = self.before_return, None
            held()


class Rig:
    """A capture with its ring, and every status that it reported."""

    def __init__(
        self,
        device: str = DEVICE,
        gain_db: float = 0.0,
        on_status: Callable[[MicrophoneStatus], None] | None = None,
    ) -> None:
        self.ring = TestRing()
        self.statuses: list[MicrophoneStatus] = []
        self.capture = Capture(self.ring, device, gain_db, on_status or self.statuses.append)

    def start(self, until: MicrophoneState | None = MicrophoneState.RUNNING) -> Rig:
        self.capture.start()
        if until:
            self.wait_for(until)
        return self

    def wait_for(self, state: MicrophoneState, seconds: float = 8.0) -> float:
        """Seconds until the state is this one."""
        return wait(lambda: self.capture.status.state is state, seconds, f"state {state}")

    @property
    def message(self) -> str:
        return self.capture.status.message

    def heard(self) -> np.ndarray:
        """All so far, gaps as zeros."""
        items = self.ring.take(10**9)
        parts = [np.zeros(i.samples, np.int16) if isinstance(i, Gap) else i for i in items]
        return np.concatenate([np.zeros(0, np.int16), *parts])


def wait(true: Callable[[], object], seconds: float, what: str) -> float:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"no {what} within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - start


@pytest.fixture(scope="module")
def paced() -> Iterator[PacedMicrophone]:
    with PacedMicrophone() as microphone:
        yield microphone


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*args: Any) -> Rig:
        made.append(Rig(*args))
        return made[-1]

    yield make
    for each in made:
        each.capture.stop()
        assert not each.capture.alive


# -- on the real device


def test_speech_reaches_the_ring(paced: PacedMicrophone, rig: Callable[..., Rig]) -> None:
    noise = np.random.default_rng(0).normal(0, 6000, RATE)
    said = np.convolve(noise, np.hanning(8) / 4, "same").astype(np.int16)  # as low as speech
    hearing = rig().start()
    paced.play(said)
    time.sleep(1.6)
    heard = hearing.heard().astype(float)
    size = len(heard)
    match = np.fft.irfft(np.fft.rfft(heard) * np.fft.rfft(said, size).conj(), size)
    start = match[: size - RATE].argmax()
    assert np.corrcoef(heard[start : start + RATE], said)[0, 1] > 0.95


def test_stream_time_follows_the_clock_across_a_pull(
    paced: PacedMicrophone, rig: Callable[..., Rig]
) -> None:
    """Looked at once, it was 0.33 s behind where a bench kept both cores busy: audio that was still
    on its way. What a pull loses is never caught up."""
    hearing = rig().start()
    time.sleep(0.5)
    paced.unplug()
    time.sleep(1.0)
    paced.plug()
    hearing.wait_for(MicrophoneState.LOST)
    hearing.wait_for(MicrophoneState.RUNNING)
    time.sleep(0.5)
    first = next(told for told in hearing.statuses if told.state is MicrophoneState.RUNNING)
    heard = 0

    def in_time() -> bool:
        nonlocal heard
        heard += len(hearing.heard())
        return abs(heard / RATE - (time.time() - first.since)) < 0.3

    wait(in_time, 5, "stream time that is the clock's")
    assert hearing.ring.gap_samples > RATE


def test_twenty_pulls_and_returns_need_no_restart(
    paced: PacedMicrophone, rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptors are counted against those before, because other tests of the process keep
    some open: in a whole run there were 99."""
    monkeypatch.setattr(capture_module, "STABLE_S", 0.2)  # these pulls are quicker than a hand
    open_before = len(os.listdir("/proc/self/fd"))
    hearing = rig().start()
    for _ in range(20):
        time.sleep(0.3)
        paced.unplug()
        assert hearing.wait_for(MicrophoneState.LOST) < 2
        paced.plug()
        assert hearing.wait_for(MicrophoneState.RUNNING) < 3
        before = hearing.capture.heartbeat
        wait(partial(beats_after, hearing, before), 1, "audio after the return")
    assert hearing.capture.alive
    assert len(os.listdir("/proc/self/fd")) < open_before + 20


def test_a_microphone_missing_at_boot_is_reported_and_used_when_it_comes(
    paced: PacedMicrophone, rig: Callable[..., Rig]
) -> None:
    paced.unplug()
    hearing = rig().start(until=None)
    assert hearing.wait_for(MicrophoneState.LOST) < 2
    assert "no such microphone now" in hearing.capture.status.message
    time.sleep(1.0)
    paced.plug()
    assert hearing.wait_for(MicrophoneState.RUNNING) < 3


def test_a_sound_server_that_dies_and_returns_is_heard_again(
    paced: PacedMicrophone, rig: Callable[..., Rig]
) -> None:
    hearing = rig().start()
    paced.crash_server()
    assert hearing.wait_for(MicrophoneState.LOST) < 2
    paced.start_server()
    assert hearing.wait_for(MicrophoneState.RUNNING) < 3


def test_a_sound_server_that_hangs_is_reported_and_no_other_thread_hangs(
    paced: PacedMicrophone, rig: Callable[..., Rig]
) -> None:
    """It stopped the whole process: pyalsaaudio closes and opens with the interpreter locked. No
    command was answered, nobody was told, and under systemd the watchdog killed it, again and
    again."""
    hearing = rig().start()
    turns = []
    ticking = threading.Event()

    def tick() -> None:
        while not ticking.wait(0.02):
            turns.append(time.monotonic())

    other = threading.Thread(target=tick)
    other.start()
    try:
        paced.hang_server(True)
        # 1.5 s without data, and what it had buffered
        assert hearing.wait_for(MicrophoneState.LOST) < 2.5
        wait(lambda: "does not answer: restart it" in hearing.message, 8, "its reason")
        hearing.capture.mute(True)
        assert hearing.wait_for(MicrophoneState.MUTED) < 2.5
        assert "when its sound server answers" in hearing.message
    finally:
        paced.hang_server(False)
        ticking.set()
        other.join()
    assert max(np.diff(turns)) < 1.0, "another thread stood still"
    wait(lambda: hearing.message == "muted: the microphone is closed", 4, "closed")
    assert listeners(paced) == ""
    hearing.capture.mute(False)
    hearing.wait_for(MicrophoneState.RUNNING, 4)


def test_muted_the_device_is_closed_the_ring_wiped_and_nothing_runs(
    paced: PacedMicrophone, rig: Callable[..., Rig]
) -> None:
    hearing = rig().start()
    time.sleep(0.3)
    assert hearing.ring.depth > 0
    hearing.capture.mute(True)
    assert hearing.ring.depth == 0  # at once, whatever the thread does
    hearing.wait_for(MicrophoneState.MUTED, 2)
    assert listeners(paced) == ""
    before = wakeups(hearing.capture)
    time.sleep(2.2)
    assert wakeups(hearing.capture) - before <= 5
    assert hearing.ring.depth == 0
    assert not hearing.ring._buffer.any()
    assert time.monotonic() - hearing.capture.heartbeat < 2
    hearing.capture.mute(False)
    hearing.wait_for(MicrophoneState.RUNNING, 2)
    wait(lambda: hearing.ring.depth > 0, 2, "audio after the mute")


def test_muted_before_the_start_the_device_is_never_opened(
    paced: PacedMicrophone, rig: Callable[..., Rig]
) -> None:
    hearing = rig()
    hearing.capture.mute(True)
    hearing.start(until=MicrophoneState.MUTED)
    assert [s.state for s in hearing.statuses] == [MicrophoneState.MUTED]
    assert listeners(paced) == ""


def beats_after(hearing: Rig, then: float) -> bool:
    return hearing.capture.heartbeat > then


def listeners(paced: PacedMicrophone) -> str:
    """Who records, as the sound server says."""
    return "\n".join(paced.recorders())


def wakeups(capture: Capture) -> int:
    status = Path(f"/proc/self/task/{capture._thread.native_id}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_a_loss_is_logged_once_per_episode(
    paced: PacedMicrophone,
    rig: Callable[..., Rig],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO", "edged")
    paced.unplug()
    hearing = rig().start(until=MicrophoneState.LOST)
    time.sleep(2.5)  # three attempts at least
    paced.plug()
    hearing.wait_for(MicrophoneState.RUNNING)
    assert [r.levelname for r in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert capfd.readouterr().err == ""


# -- what no real device here can be made to do


def test_a_44100_hz_stereo_32_bit_card_is_heard_as_it_sounds(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    def sine(first: int, count: int) -> np.ndarray:
        return 8000 * np.sin(2 * np.pi * 440 * np.arange(first, first + count) / 44_100)

    FakeCard(44_100, 2, ("S32_LE",), sound=sine).install(monkeypatch)
    hearing = rig().start()
    assert str(hearing.capture.negotiated) == "44100 Hz, stereo, S32_LE"
    time.sleep(0.8)
    heard = hearing.heard()[:9600][960:]
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert spectrum.argmax() * RATE / len(heard) == pytest.approx(440, abs=3)
    assert heard.max() == pytest.approx(8000, rel=0.02)


def test_an_overrun_becomes_a_gap_of_its_true_length(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    """Sample n of the card says n: after the gap each must still be at its own time."""
    card = FakeCard().install(monkeypatch)
    hearing = rig().start()
    time.sleep(0.4)
    stall(hearing, card, 1.0)
    time.sleep(0.5)
    heard = hearing.heard()
    assert hearing.capture.xruns == 1
    assert hearing.ring.gap_samples == pytest.approx(RATE, abs=0.1 * RATE)
    place = np.arange(len(heard)) % 20_000 + 1
    late = (heard.astype(int) - place + 10_000) % 20_000 - 10_000
    assert np.abs(late[-1920:]).max() < 0.1 * RATE


def stall(hearing: Rig, card: FakeCard, seconds: float) -> None:
    """Holds up the capture thread for so long; the card overruns meanwhile."""

    def hold() -> None:
        time.sleep(seconds)
        card.lost_s = seconds

    hearing.ring.before_return = hold
    wait(lambda: hearing.capture.xruns, 5, "overrun")


def test_a_late_capture_thread_is_no_fault_of_the_device(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    """After a stall of 2 s the time since the last data was taken for a dead device, and the
    microphone was reported lost. Seen on a kernel card in the virtual machine."""
    monkeypatch.setattr(capture_module, "NO_DATA_S", 0.5)
    card = FakeCard().install(monkeypatch)
    hearing = rig().start()
    stall(hearing, card, 1.0)
    time.sleep(0.3)
    assert [told.state for told in hearing.statuses] == [
        MicrophoneState.OPENING,
        MicrophoneState.RUNNING,
    ]


def test_short_reads_lose_and_shift_nothing(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    FakeCard().install(monkeypatch).read_most = 1121
    hearing = rig().start()
    time.sleep(0.8)
    heard = hearing.heard()
    np.testing.assert_array_equal(heard, np.arange(len(heard)) % 20_000 + 1)
    assert len(heard) > 5000


def test_a_card_pulled_in_the_middle_of_a_word_keeps_the_word_so_far(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    card = FakeCard().install(monkeypatch)
    hearing = rig("plughw:CARD=Mic").start()
    time.sleep(0.4)
    card.problem = "No such device"
    assert hearing.wait_for(MicrophoneState.LOST) < 2
    assert card.open_now == 0
    heard = hearing.heard()
    assert len(heard) >= 1920
    np.testing.assert_array_equal(heard, np.arange(len(heard)) % 20_000 + 1)
    card.problem = None
    assert hearing.wait_for(MicrophoneState.RUNNING) < 3


def test_a_card_that_runs_and_gives_nothing_is_reported_and_opened_again(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    """ "Deaf but running": the service stayed green until somebody restarted it."""
    card = FakeCard().install(monkeypatch)
    hearing = rig().start()
    card.hanging = True
    assert hearing.wait_for(MicrophoneState.LOST) < 2
    assert "no data comes" in hearing.capture.status.message
    card.hanging = False
    assert hearing.wait_for(MicrophoneState.RUNNING) < 3
    assert len(card.opened) >= 2
    assert card.open_now == 1


@pytest.mark.parametrize("heard_before", [True, False])
def test_a_card_that_only_overruns_is_reported_and_opened_again(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig], heard_before: bool
) -> None:
    """A USB bus without the bandwidth answered every read with an overrun: edged heard nothing for
    ever while it said that it ran, and its watchdog restarted it each half minute."""
    monkeypatch.setattr(capture_module, "START_S", 0.5)
    card = FakeCard().install(monkeypatch)
    card.overrunning = not heard_before
    hearing = rig("mic").start(MicrophoneState.RUNNING if heard_before else None)
    card.overrunning = True
    hearing.wait_for(MicrophoneState.LOST)
    assert "only overruns" in hearing.capture.status.message
    wait(lambda: len(card.opened) > 2, 8, "another attempt")
    assert time.monotonic() - hearing.capture.heartbeat < 2
    assert [told.state for told in hearing.statuses].count(MicrophoneState.LOST) == 1
    card.overrunning = False
    hearing.wait_for(MicrophoneState.RUNNING)


def test_a_device_that_never_starts_is_reported_once_however_often_it_is_tried(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    monkeypatch.setattr(capture_module, "NO_DATA_S", 0.1)
    monkeypatch.setattr(capture_module, "START_S", 0.2)
    card = FakeCard().install(monkeypatch)
    card.hanging = True
    hearing = rig().start(until=MicrophoneState.LOST)
    wait(lambda: len(card.opened) >= 3, 8, "third attempt")
    assert [s.state for s in hearing.statuses] == [MicrophoneState.OPENING, MicrophoneState.LOST]


def test_the_return_of_a_card_is_noticed_however_long_the_wait_has_become(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig], tmp_path: Path
) -> None:
    monkeypatch.setattr(capture_module, "DEV_SND", tmp_path)
    card = FakeCard().install(monkeypatch)
    card.problem = "No such device"
    hearing = rig("plughw:CARD=Mic").start(until=MicrophoneState.LOST)
    wait(lambda: hearing.capture._retry_s >= 4, 10, "longer wait")
    card.problem = None
    (tmp_path / "pcmC1D0c").touch()
    assert hearing.wait_for(MicrophoneState.RUNNING) < 1.5


def test_a_busy_device_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    FakeCard().install(monkeypatch).problem = "Device or resource busy"
    hearing = rig().start(until=MicrophoneState.LOST)
    assert "in use by another program: stop it" in hearing.capture.status.message
    assert hearing.capture.status.problem


def test_a_card_number_is_refused_with_a_sentence_and_the_thread_lives(
    rig: Callable[..., Rig],
) -> None:
    hearing = rig("hw:1,0").start(until=MicrophoneState.LOST)
    assert "by number" in hearing.capture.status.message
    assert hearing.capture.alive


def test_digital_silence_is_a_warning_not_a_loop_of_reopening(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    monkeypatch.setattr(capture_module, "SILENT_S", 0.3)
    card = FakeCard(sound=lambda first, count: np.zeros(count, np.int16)).install(monkeypatch)
    hearing = rig().start(until=MicrophoneState.SILENT)
    assert "mute switch" in hearing.capture.status.message
    time.sleep(0.5)
    assert len(card.opened) == 1
    assert hearing.ring.depth > 0  # it is still listened to
    card.sound = lambda first, count: np.ones(count, np.int16)
    hearing.wait_for(MicrophoneState.RUNNING)


def test_a_long_absence_is_a_pause_not_hours_of_steps(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    monkeypatch.setattr(capture_module, "MAX_GAP_S", 0.5)
    card = FakeCard().install(monkeypatch)
    hearing = rig().start()
    card.problem = "No such device"
    hearing.wait_for(MicrophoneState.LOST)
    time.sleep(1.0)
    card.problem = None
    hearing.wait_for(MicrophoneState.RUNNING)
    assert hearing.ring.gap_samples == 0.5 * RATE
    time.sleep(0.3)
    assert hearing.ring.gap_samples == 0.5 * RATE


def test_gain_and_level_can_be_seen_to_work_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    FakeCard(sound=lambda first, count: np.full(count, 1000, np.int16)).install(monkeypatch)
    hearing = rig(DEVICE, 6.0).start()
    time.sleep(1.3)
    assert hearing.capture.level is not None
    assert hearing.capture.level.peak_dbfs == pytest.approx(-30.3, abs=0.1)  # before the gain
    assert set(hearing.heard()) == {1995}
    hearing.capture.set_gain(0.0)
    time.sleep(0.5)
    assert hearing.heard()[-1] == 1000


def test_another_microphone_is_taken_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    card = FakeCard().install(monkeypatch)
    hearing = rig().start()
    hearing.capture.reopen("other")
    wait(lambda: hearing.capture.status.device == "other", 2, "other device")
    hearing.wait_for(MicrophoneState.RUNNING, 2)
    assert [pcm.device for pcm in card.opened] == [DEVICE, "other"]
    assert card.open_now == 1


def test_a_mute_that_is_taken_back_at_once_leaves_it_hearing(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    """Both came before the thread looked: the ring stayed sealed and it polled at full speed."""
    card = FakeCard().install(monkeypatch)
    hearing = rig().start()

    def both(first: int, count: int) -> np.ndarray:  # on the capture thread: it cannot look
        card.sound = ramp
        hearing.capture.mute(True)
        hearing.capture.mute(False)
        return ramp(first, count)

    card.sound = both
    wait(lambda: len(card.opened) == 2, 3, "reopening")
    hearing.heard()
    wait(lambda: hearing.ring.depth > 3, 3, "audio")


def test_a_listener_that_fails_does_not_end_the_capture(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    FakeCard().install(monkeypatch)

    def fail(_: MicrophoneStatus) -> None:
        raise RuntimeError("the broker is on fire")

    hearing = rig(DEVICE, 0.0, fail).start()
    wait(lambda: hearing.ring.depth > 2, 3, "audio")


def test_a_bug_in_the_thread_is_reported_and_survived(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    FakeCard().install(monkeypatch)
    hearing = rig()
    hearing.ring.failing = True
    hearing.start(until=MicrophoneState.LOST)
    assert "an error in edged" in hearing.capture.status.message
    hearing.ring.failing = False
    hearing.wait_for(MicrophoneState.RUNNING, 4)


def test_the_heartbeat_beats_while_the_microphone_is_lost(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Rig]
) -> None:
    FakeCard().install(monkeypatch).problem = "No such device"
    hearing = rig("plughw:CARD=Mic").start(until=MicrophoneState.LOST)
    for _ in range(5):
        time.sleep(0.4)
        assert time.monotonic() - hearing.capture.heartbeat < 1.2


def test_nothing_is_opened_by_making_one() -> None:
    """Constructors do nothing that can fail on hardware, in a process that has none."""
    code = (
        "from edged.audio.capture import Capture; from edged.audio.ring import Ring;"
        "c = Capture(Ring(), 'nosuch', 0.0, print); c.stop()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_device_without_pacing_is_read_in_real_time(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALSA's `null` gave 260 s of audio in a second. The engine was busy with the gaps of it for
    longer than the watchdog allows, and the daemon ended after a minute."""
    card = FakeCard().install(monkeypatch)
    card.paced = False
    started = time.monotonic()
    made = rig("hw:CARD=Fast").start()
    wait(lambda: made.ring.depth_s > MAX_LEAD_S, 8, "audio")
    time.sleep(0.5)
    audio_s, took_s = made.ring.depth_s, time.monotonic() - started
    assert audio_s < MAX_LEAD_S + MAX_SPEED * took_s + 0.1
    assert made.ring.dropped == 0
    assert time.monotonic() - made.capture.heartbeat < 1


def test_a_clock_that_is_a_little_fast_is_never_held_up() -> None:
    """To wait for it would fill its buffer until it overruns."""
    pacer = Pacer(0.0)
    assert all(pacer.wait_s(n * 0.08, 0.08 * 1.01) == 0.0 for n in range(1, 100_000))
