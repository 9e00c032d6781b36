"""The installed service on a kernel of its own, inside the virtual machine of `tests/vm/run unit`.

The machine boots without a sound card. Each check prints one line; the exit status is the number of
those that failed. They build on each other. Nothing here is timed tightly: the processor may be
emulated.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLES = next(Path("/opt/edged/lib").glob("python3*/site-packages/edged/models/data/samples"))
DRIVER = Path("/sys/bus/platform/drivers/snd_aloop")
ENV = Path("/etc/edged/edged.env.d/10-vm.env")
PATIENCE_S = 600.0  # only a failure takes so long


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


def mic(name: str) -> bool:
    found = state("mic")
    return isinstance(found, dict) and found.get("state") == name


def test_it_listens_for_a_card_on_a_machine_without_one() -> None:
    print("    accelerator:", sh("systemd-detect-virt"), "|", sh("uname -r"))
    until(active, "ready without a card")
    assert not Path("/proc/asound/Loopback").exists()
    print("   ", status())
    assert show("NRestarts") == "0"


def test_a_card_that_comes_later_is_taken() -> None:
    """The kernel's device class must be known before the unit starts, or DeviceAllow= finds
    nothing to allow and the card stays forbidden until a restart."""
    pid = show("MainPID")
    sh("modprobe snd-aloop pcm_substreams=1")
    took = until(lambda: mic("running"), "the microphone runs")
    print(f"    hot-plugged card is heard after {took:.1f} s")
    assert show("MainPID") == pid


def test_speech_that_the_card_hears_becomes_text() -> None:
    if sh("systemd-detect-virt") == "qemu":
        print("    LEFT OUT: the processor is emulated, too slow to keep up with speech")
        return
    ear = subprocess.Popen(
        ["mosquitto_sub", "-t", "edged/vm/turn", "-C", "1", "-W", str(int(PATIENCE_S))],
        stdout=subprocess.PIPE,
        text=True,
    )
    play = subprocess.Popen("exec aplay -q -D plughw:Loopback,0,0 /tmp/speech.wav", shell=True)
    said, _ = ear.communicate(timeout=PATIENCE_S + 30)
    play.wait(60)
    print("    heard:", json.loads(said)["text"])
    assert len(json.loads(said)["text"].split()) > 3


def test_pulled_it_says_so_and_returned_it_hears_again() -> None:
    pid = show("MainPID")
    name = next(DRIVER.glob("snd_aloop.*")).name
    for _ in range(3):
        (DRIVER / "unbind").write_text(name)
        lost = until(lambda: not mic("running"), "the loss is said")
        (DRIVER / "bind").write_text(name)
        back = until(lambda: mic("running"), "it hears again")
        print(f"    loss said after {lost:.1f} s, heard again after {back:.1f} s")
    assert show("MainPID") == pid
    assert show("NRestarts") == "0"


def test_reload_is_taken_by_the_same_process() -> None:
    pid = show("MainPID")
    ENV.write_text(ENV.read_text() + "EDGED_DELAY_IN_FRAMES=16\n")
    assert sh("systemctl reload edged") == ""
    until(lambda: state("settings")["delay_in_frames"] == 16, "the new delay")
    assert show("MainPID") == pid


def test_the_memory_limit_is_in_force_and_holds() -> None:
    used = int(show("MemoryCurrent")) / 1e6
    peak, most = int(show("MemoryPeak")) / 1e6, int(show("MemoryMax")) / 1e6
    print(f"    {used:.0f} MB counted, peak {peak:.0f} MB, of {most:.0f} MB")
    assert used < 350
    before = int(show("NRestarts"))
    sh("systemctl set-property --runtime edged MemoryMax=60M MemorySwapMax=0")
    until(lambda: int(show("NRestarts")) > before, "killed for want of memory, and started again")
    log = sh("journalctl -b -o cat --no-pager")
    assert re.search(r"oom-kill|Out of memory|Memory cgroup out of memory", log)
    sh("rm -rf /run/systemd/system.control/edged.service.d; systemctl daemon-reload")
    until(lambda: active() and mic("running"), "it runs again with its own limit")


def test_kill_9_is_answered_with_a_new_start() -> None:
    pid, before = show("MainPID"), int(show("NRestarts"))
    sh(f"kill -9 {pid}")
    until(lambda: int(show("NRestarts")) > before and active(), "the restart")
    assert show("MainPID") != pid
    until(lambda: mic("running"), "it hears again")


def test_frozen_it_is_ended_by_the_watchdog_and_starts_again() -> None:
    pid, before = show("MainPID"), int(show("NRestarts"))
    sh(f"kill -STOP {pid}")
    took = until(lambda: int(show("NRestarts")) > before, "the watchdog")
    print(f"    ended and started again after {took:.0f} s (WatchdogSec={show('WatchdogUSec')})")
    until(lambda: active() and mic("running"), "it hears again")
    assert "Watchdog timeout" in sh("journalctl -b -u edged -o cat --no-pager")


def test_stopped_the_kernel_says_the_card_is_closed() -> None:
    sh("systemctl stop edged")
    assert Path("/proc/asound/Loopback/pcm1c/sub0/status").read_text().strip() == "closed"
    assert show("Result") == "success"


def main() -> int:
    ENV.write_text(
        "EDGED_DEVICE=vm\nEDGED_MQTT_URL=mqtt://127.0.0.1\n"
        "EDGED_ALSA_DEVICE=plughw:CARD=Loopback,DEV=1\n"
    )
    convert = (
        f"import soundfile as s; s.write('/tmp/speech.wav', *s.read('{SAMPLES}/mister-hale.flac'))"
    )
    sh(f'/opt/edged/bin/python3 -c "{convert}"')
    if sh("systemd-detect-virt") == "qemu":
        # Loading the models takes minutes then, and TimeoutStartSec= would end each start.
        slow = Path("/etc/systemd/system/edged.service.d/emulated.conf")
        slow.parent.mkdir(exist_ok=True)
        slow.write_text("[Service]\nTimeoutStartSec=15min\n")
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
    if failed:
        print(sh("journalctl -b -u edged -o cat --no-pager | tail -60"))
    print(f"{len(checks) - failed} of {len(checks)} passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
