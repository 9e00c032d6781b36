"""The installed service with its own kernel, in the virtual machine of `tests/system/vm/run unit`.

The machine boots without a sound card. Each check prints one line; the exit status is the number of
checks that failed. They build on each other. No time limit is tight, because the processor may be
emulated. It is then too slow to keep up with speech, but one sentence fits into the ring of 32 s
and is transcribed late.

The card is a loopback: the microphone records what is played into its other end.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAMPLES = next(Path("/opt/edged/lib").glob("python3*/site-packages/edged/models/data/samples"))
DRIVER = Path("/sys/bus/platform/drivers/snd_aloop")
ENV = Path("/etc/edged/edged.env.d/10-vm.env")
SLOW = Path("/etc/systemd/system/edged.service.d/emulated.conf")
PULLS = 20
PATIENCE_S = 600.0  # only a failure takes this long
SPOKEN = "2-large-mocha"  # 8.2 s
TONE_DBFS = -30.0


def sh(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def show(name: str) -> str:
    return sh(f"systemctl show -P {name} edged")


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> float:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"not within {seconds:g} s: {what}; " + status()
        time.sleep(0.2)
    return time.monotonic() - start


def status() -> str:
    return f"{show('ActiveState')}, {show('StatusText')!r}, restarts {show('NRestarts')}"


def active() -> bool:
    return show("ActiveState") == "active"


def state(name: str) -> Any:
    """The retained `state/<name>`; None if there is none."""
    text = sh(f"mosquitto_sub -t edged/vm/state/{name} -C 1 -W 5")
    try:
        return json.loads(text)
    except ValueError:
        return text or None


def mic(*names: str) -> bool:
    found = state("mic")
    return isinstance(found, dict) and found.get("state") in names


def open_again() -> bool:
    """Active, and the card is open, whatever it gives."""
    return active() and mic("running", "silent")


@contextlib.contextmanager
def tone() -> Iterator[None]:
    """Plays 440 Hz to the microphone, even while the card is away. It is neither speech nor digital
    silence, which edged reports as `silent` after 30 s."""
    play = "aplay -q -D plughw:Loopback,0,0 -t raw -f S16_LE -r 48000 -c 1 /tmp/tone.raw"
    player = subprocess.Popen(
        f"while :; do {play} 2>/dev/null || sleep .1; done", shell=True, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(player.pid, signal.SIGKILL)
        player.wait()


def make_sounds() -> None:
    peak = 32768 * math.sqrt(2) * 10 ** (TONE_DBFS / 20)
    wave = [round(peak * math.sin(2 * math.pi * 440 * n / 48_000)) for n in range(48_000)]
    Path("/tmp/tone.raw").write_bytes(array.array("h", wave * 10).tobytes())
    convert = (
        "import wave; from edged.audio.files import read_samples; "
        f"samples, rate = read_samples('{SAMPLES}/{SPOKEN}.flac'); "
        "out = wave.open('/tmp/speech.wav', 'wb'); "
        "out.setnchannels(1); out.setsampwidth(2); out.setframerate(rate); "
        "out.writeframes((samples * 32768).astype('<i2').tobytes()); out.close()"
    )
    sh(f'/opt/edged/bin/python3 -c "{convert}"')


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_without_a_card_the_service_is_ready_and_waits_for_one() -> None:
    print("    accelerator:", sh("systemd-detect-virt"), "|", sh("uname -r"))
    until(active, "ready without a card")
    assert not Path("/proc/asound/Loopback").exists()
    print("   ", status())
    assert show("NRestarts") == "0"


def test_a_card_that_comes_later_is_used() -> None:
    """The kernel must know the device class before the unit starts. Otherwise DeviceAllow= allows
    nothing, and the card is inaccessible until a restart."""
    pid = show("MainPID")
    sh("modprobe snd-aloop pcm_substreams=1")
    took = until(lambda: mic("running"), "the microphone runs")
    print(f"    hot-plugged card is open after {took:.1f} s")
    assert show("MainPID") == pid


def test_a_tone_is_measured_at_its_level() -> None:
    def level() -> float:
        found = (state("health") or {}).get("level_dbfs")
        return -200.0 if found is None else float(found)

    with tone():
        took = until(lambda: abs(level() - TONE_DBFS) < 1, f"{TONE_DBFS} dBFS")
    print(f"    {TONE_DBFS} dBFS are measured as {level()} after {took:.0f} s")


def test_speech_from_the_card_becomes_text() -> None:
    catalogue = tomllib.loads((SAMPLES / "samples.toml").read_text())["sample"]
    (spoken,) = (words_of(s["text"]) for s in catalogue if SPOKEN in s["file"])
    ear = subprocess.Popen(
        ["mosquitto_sub", "-t", "edged/vm/turn", "-C", "1", "-W", str(int(PATIENCE_S))],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(10)  # until it has subscribed
    until(lambda: (state("health") or {}).get("lag_s", 99) < 10, "the ring has room for it")
    start = time.monotonic()
    subprocess.run("aplay -q -D plughw:Loopback,0,0 /tmp/speech.wav", shell=True, timeout=120)
    said, _ = ear.communicate(timeout=PATIENCE_S + 30)
    print("    text:", json.loads(said)["text"] if said else "nothing")
    health = state("health")
    print(f"    {time.monotonic() - start:.0f} s after it began; {health['dropped_s']} s lost")
    heard = words_of(json.loads(said)["text"])
    assert len(set(heard) & set(spoken)) >= 0.8 * len(set(spoken)), spoken
    assert show("NRestarts") == "0"


def test_a_removed_card_is_reported_and_used_again_after_its_return() -> None:
    pid = show("MainPID")
    name = next(DRIVER.glob("snd_aloop.*")).name
    with tone():
        until(lambda: mic("running"), "it records the tone")
        for _ in range(PULLS):
            (DRIVER / "unbind").write_text(name)
            lost = until(lambda: mic("lost"), "the loss is reported")
            (DRIVER / "bind").write_text(name)
            back = until(lambda: mic("running"), "it records again")
            print(f"    loss reported after {lost:.1f} s, recording again after {back:.1f} s")
    assert show("MainPID") == pid
    assert show("NRestarts") == "0"


def test_a_reload_is_applied_by_the_same_process() -> None:
    pid = show("MainPID")
    ENV.write_text(ENV.read_text() + "EDGED_DELAY_IN_FRAMES=16\n")
    assert sh("systemctl reload edged") == ""
    until(lambda: state("settings")["delay_in_frames"] == 16, "the new delay")
    assert show("MainPID") == pid


def test_the_memory_limit_is_enforced() -> None:
    used = int(show("MemoryCurrent")) / 1e6
    peak, most = int(show("MemoryPeak")) / 1e6, int(show("MemoryMax")) / 1e6
    print(f"    {used:.0f} MB counted, peak {peak:.0f} MB, of {most:.0f} MB")
    assert used < 350
    before = int(show("NRestarts"))
    sh("systemctl set-property --runtime edged MemoryMax=60M MemorySwapMax=0")
    until(lambda: int(show("NRestarts")) > before, "killed for lack of memory, and restarted")
    log = sh("journalctl -b -o cat --no-pager")
    assert re.search(r"oom-kill|Out of memory|Memory cgroup out of memory", log)
    sh("rm -rf /run/systemd/system.control/edged.service.d; systemctl daemon-reload")
    until(open_again, "it runs again with its own limit")


def test_systemd_restarts_it_after_kill_9() -> None:
    pid, before = show("MainPID"), int(show("NRestarts"))
    sh(f"kill -9 {pid}")
    until(lambda: int(show("NRestarts")) > before and active(), "the restart")
    assert show("MainPID") != pid
    until(open_again, "it records again")


def test_the_watchdog_restarts_a_frozen_process() -> None:
    if SLOW.exists():
        SLOW.unlink()
        sh("systemctl daemon-reload; systemctl restart edged")
        until(open_again, "it runs with its own watchdog")
    pid, before = show("MainPID"), int(show("NRestarts"))
    sh(f"kill -STOP {pid}")
    took = until(lambda: int(show("NRestarts")) > before, "the watchdog")
    print(f"    restarted after {took:.0f} s (WatchdogSec={show('WatchdogUSec')})")
    until(open_again, "it records again")
    assert "Watchdog timeout" in sh("journalctl -b -u edged -o cat --no-pager")


def test_after_a_stop_the_kernel_shows_the_card_as_closed() -> None:
    sh("systemctl stop edged")
    assert Path("/proc/asound/Loopback/pcm1c/sub0/status").read_text().strip() == "closed"
    assert show("Result") == "success"


def main() -> int:
    ENV.write_text(
        "EDGED_DEVICE=vm\nEDGED_MQTT_URL=mqtt://127.0.0.1\n"
        "EDGED_ALSA_DEVICE=plughw:CARD=Loopback,DEV=1\nEDGED_HEALTH_EVERY_S=5\n"
    )
    make_sounds()
    if sh("systemd-detect-virt") == "qemu":
        # On a busy emulated processor a step with words takes tens of seconds. The unit's watchdog
        # of 30 s would take a slow recogniser for a hanging one.
        SLOW.parent.mkdir(exist_ok=True)
        SLOW.write_text("[Service]\nWatchdogSec=3min\n")
        sh("systemctl daemon-reload")
    sh("systemctl start mosquitto; systemctl restart edged")
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
            print(sh("journalctl -b -u edged -o short-monotonic --no-pager | tail -80"))
    print(f"{len(checks) - failed} of {len(checks)} passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
