"""The daemon's microphone: muted, exchanged and amplified while it runs."""

from __future__ import annotations

import time

import pytest

from edged.audio.microphone import MicrophoneManager
from edged.audio.microphone_status import MicrophoneState
from edged.audio.ring import Gap
from tests.conftest import SAMPLES
from tests.support.mosquitto import until


def test_a_file_is_heard_in_real_time_muted_and_exchanged_for_another() -> None:
    states: list[MicrophoneState] = []
    microphone = MicrophoneManager(
        f"file:{SAMPLES}/mister-hale.flac", 0.0, False, lambda s: states.append(s.state)
    )
    started = time.monotonic()
    microphone.start()
    until(lambda: microphone.ring.depth >= 5, "five steps")
    assert time.monotonic() - started > 5 * 0.08 - 0.02
    microphone.mute(True)
    until(lambda: microphone.status.state is MicrophoneState.MUTED, "muted")
    assert microphone.ring.depth == 0
    time.sleep(0.2)
    assert microphone.ring.depth == 0
    microphone.mute(False)
    until(lambda: microphone.ring.depth >= 2, "it hears again")
    microphone.set_device("file:/nowhere.wav")
    until(lambda: microphone.status.state is MicrophoneState.LOST, "lost")
    assert microphone.status.message == "/nowhere.wav is not there"
    microphone.set_device("hw:CARD=Nowhere")
    until(lambda: microphone.status.device == "hw:CARD=Nowhere", "the other kind of microphone")
    microphone.stop()
    assert states[:3] == [
        MicrophoneState.RUNNING,
        MicrophoneState.MUTED,
        MicrophoneState.RUNNING,
    ]


def test_the_time_before_the_start_is_no_missing_heartbeat() -> None:
    """On a slow board the models took longer than 10 s to load: every start logged a missing
    heartbeat of the capture thread, and the watchdog was not fed."""
    microphone = MicrophoneManager("hw:CARD=Nowhere", 0.0, False, lambda s: time.sleep(0.3))
    microphone._capture.heartbeat -= 60
    microphone.start()
    age_s = microphone.heartbeat_age_s()
    microphone.stop()
    assert age_s < 10


def test_gain_is_applied_to_a_played_file() -> None:
    levels = []
    for gain in (0.0, 6.0):
        microphone = MicrophoneManager(
            f"file:{SAMPLES}/mister-hale.flac", gain, False, lambda s: None
        )
        microphone.start()
        until(lambda m=microphone: m.ring.depth >= 20, "audio")  # type: ignore[misc]
        microphone.stop()
        frames = microphone.ring.take(20)
        levels.append(max(abs(int(f.min())) for f in frames if not isinstance(f, Gap)))
    assert levels[1] == pytest.approx(2 * levels[0], rel=0.01)
