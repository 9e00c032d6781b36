"""Capture from a kernel sound card (snd-aloop), in the virtual machine of `tests/system/vm/run`.

Each check prints one line; the exit status is the number of those that failed.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged.audio.capture import Capture
from edged.audio.cards import card_of, read_cards
from edged.audio.microphone_status import MicrophoneState
from edged.audio.ring import Gap, Ring

PLUG = "plughw:CARD=Loopback,DEV=1"
DRIVER = Path("/sys/bus/platform/drivers/snd_aloop")
PULLS = 20
SLOW = 2.0  # an emulated machine may take twice the time that is promised on a board
RATE = 24_000


class StallingRing(Ring):
    """A ring that can hold up its producer once, as a busy processor does."""

    stall_s = 0.0

    def write(self, samples: NDArray[np.int16]) -> None:
        super().write(samples)
        stall_s, self.stall_s = self.stall_s, 0.0
        time.sleep(stall_s)


class Rig:
    def __init__(self, device: str = PLUG) -> None:
        self.ring = StallingRing()
        self.capture = Capture(self.ring, device, 0.0, lambda state: None)
        self.capture.start()

    def wait_for(self, state: MicrophoneState, seconds: float) -> float:
        start = time.monotonic()
        while self.capture.status.state is not state:
            took = time.monotonic() - start
            assert took < seconds, f"{self.capture.status} after {took:.1f} s, not {state}"
            time.sleep(0.01)
        return time.monotonic() - start

    def recorded(self) -> np.ndarray:
        items = self.ring.take(10**9)
        parts = [np.zeros(i.samples, np.int16) if isinstance(i, Gap) else i for i in items]
        return np.concatenate([np.zeros(0, np.int16), *parts])

    def __enter__(self) -> Rig:
        self.wait_for(MicrophoneState.RUNNING, 5)
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.stop(5)
        assert not self.capture.alive


def check_the_tone(device: str, shape: str) -> None:
    with Rig(device) as rig:
        assert str(rig.capture.negotiated) == shape, rig.capture.negotiated
        time.sleep(1.5)
        samples = rig.recorded()[-19_200:].astype(float)
        peak = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax()
        assert abs(peak * RATE / len(samples) - 440) < 4, peak


def test_plughw_converts_to_24_khz_mono() -> None:
    check_the_tone(PLUG, "24000 Hz, mono, S16_LE")


def test_hw_gives_48_khz_stereo_and_edged_converts_it() -> None:
    check_the_tone("hw:CARD=Loopback,DEV=1", "48000 Hz, stereo, S16_LE")


def test_a_real_overrun_is_a_gap_of_its_true_length() -> None:
    with Rig() as rig:
        time.sleep(1)
        started, before = time.monotonic(), len(rig.recorded())
        rig.ring.stall_s = 2.0  # three times the kernel's buffer
        time.sleep(4.0)
        samples, elapsed = len(rig.recorded()), time.monotonic() - started
        print(f"    xruns {rig.capture.xruns}, {samples / RATE:.2f} s of stream in {elapsed:.2f} s")
        assert before
        assert rig.capture.xruns >= 1
        assert abs(samples / RATE - elapsed) < 0.3


def test_a_muted_device_is_closed_for_the_kernel() -> None:
    status = Path("/proc/asound/Loopback/pcm1c/sub0/status")
    with Rig() as rig:
        assert "owner_pid" in status.read_text()
        rig.capture.mute(True)
        rig.wait_for(MicrophoneState.MUTED, 2)
        assert status.read_text().strip() == "closed"
        rig.capture.mute(False)
        rig.wait_for(MicrophoneState.RUNNING, 5)


def test_pulled_and_returned_it_hears_again() -> None:
    with Rig() as rig:
        for _ in range(PULLS):
            time.sleep(1.5)
            (DRIVER / "unbind").write_text("snd_aloop.0")
            lost = rig.wait_for(MicrophoneState.LOST, 2 * SLOW)
            time.sleep(1.0)
            (DRIVER / "bind").write_text("snd_aloop.0")
            logging.info("bound again: %s", Path("/proc/asound/cards").read_text().strip())
            back = rig.wait_for(MicrophoneState.RUNNING, 3 * SLOW)
            print(f"    lost reported after {lost:.2f} s, recording again after {back:.2f} s")


def test_missing_at_boot_then_plugged_in() -> None:
    (DRIVER / "unbind").write_text("snd_aloop.0")
    rig = Rig()
    rig.wait_for(MicrophoneState.LOST, 2 * SLOW)
    assert "no sound card is called Loopback" in rig.capture.status.message
    (DRIVER / "bind").write_text("snd_aloop.0")
    rig.wait_for(MicrophoneState.RUNNING, 3 * SLOW)
    rig.capture.stop(5)


def test_busy_names_who_has_it() -> None:
    with Rig():
        card = card_of(PLUG)
        assert card is not None
        assert str(os.getpid()) in str(card.inputs[1].owner)
        code = f"from edged.audio.alsa import open_microphone; open_microphone({PLUG!r})"
        error = outcome(["python3", "-c", code])
        assert f"in use by python3 (pid {os.getpid()}): stop it" in error, error


def test_a_user_outside_group_audio_gets_a_message() -> None:
    code = f"from edged.audio.alsa import open_microphone; open_microphone({PLUG!r})"
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    error = outcome([*nobody, "python3", "-c", code])
    assert "group audio" in error, error


def outcome(command: list[str]) -> str:
    """The last line of what it complains."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr.strip().splitlines()[-1] if done.stderr else ""


def play_for_ever() -> subprocess.Popen[bytes]:
    """A 440 Hz tone at 48 kHz stereo into the loopback's other end, through every pull."""
    tone = [round(8000 * math.sin(2 * math.pi * 440 * n / 48_000)) for n in range(48_000)]
    Path("tone.raw").write_bytes(b"".join(struct.pack("<hh", v, v) for v in tone * 10))
    play = "aplay -q -D hw:Loopback,0,0 -t raw -f S16_LE -r 48000 -c 2 tone.raw"
    return subprocess.Popen(f"while :; do {play} 2>/dev/null || sleep .1; done", shell=True)


def main() -> int:
    form = "    %(relativeCreated)7.0f ms  %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stdout)
    subprocess.run(["modprobe", "snd-aloop", "pcm_substreams=1"], check=True)
    play_for_ever()
    time.sleep(2)
    print("cards", read_cards())
    checks: list[Callable[[], None]] = [v for k, v in globals().items() if k.startswith("test_")]
    failed = 0
    for check in checks:
        try:
            check()
            print("PASS", check.__name__)
        except Exception:
            failed += 1
            print("FAIL", check.__name__)
            traceback.print_exc()
    print(f"{len(checks) - failed} of {len(checks)} passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
