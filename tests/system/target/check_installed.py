"""The installer and the unit on a booted Debian: `make test-installer SUITE=trixie`.

Not part of `make test`: it needs root, a Debian tree made by systemd-boot.sh and some minutes.
Environment: ROOTFS (that tree), WHEELS (a folder with edged's wheel and all it depends on, for the
tree's Python), MODELS (a folder with model files or wheels), OLD (a wheel of an older release; the
upgrade from it is tested if it is given).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged import __version__
from tests.system.target.machine import Machine, booted
from tests.system.target.speech import gap_in_speech

DEPLOY = Path(__file__).parents[3] / "deploy"
ROOTFS = Path(os.environ["ROOTFS"])
WHEELS = Path(os.environ["WHEELS"])
OLD = os.environ.get("OLD", "")
INSTALL = ("/mnt/deploy/install.sh", "--wheels", "/mnt/wheels", "--models", "/mnt/models")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    new = tmp_path_factory.mktemp("new")
    make_wheel(new, "9.1", {})
    broken = {"edged/daemon/service.py": "\nraise SystemExit('this version is broken')\n"}
    make_wheel(new, "9.2", broken)
    mounts = {"wheels": WHEELS, "models": Path(os.environ["MODELS"]), "deploy": DEPLOY, "new": new}
    if OLD:
        mounts["old"] = tmp_path_factory.mktemp("old")
        unpack_old_release(mounts["old"])
    with booted(ROOTFS, mounts) as running:
        yield running


def unpack_old_release(folder: Path) -> None:
    """An older release as its users had it: its wheel and its own installer."""
    shutil.copy(OLD, folder)
    with zipfile.ZipFile(OLD) as wheel:
        (folder / "install.sh").write_bytes(wheel.read("edged/deploy/install.sh"))
    (folder / "install.sh").chmod(0o755)


def make_wheel(folder: Path, version: str, end: dict[str, str]) -> None:
    """edged's wheel as another version, with text appended to some of its files."""
    (wheel,) = WHEELS.glob("edged-*.whl")
    old = wheel.name.split("-")[1]
    with (
        zipfile.ZipFile(wheel) as before,
        zipfile.ZipFile(folder / wheel.name.replace(f"-{old}-", f"-{version}-"), "w") as after,
    ):
        for item in before.infolist():
            data = before.read(item)
            name = item.filename.replace(f"edged-{old}.dist-info", f"edged-{version}.dist-info")
            if name.endswith("METADATA"):
                data = data.replace(f"Version: {old}".encode(), f"Version: {version}".encode(), 1)
            if name.endswith("RECORD"):
                data = data.replace(f"edged-{old}.".encode(), f"edged-{version}.".encode())
            data += end.get(name, "").encode()
            after.writestr(name, data)


@pytest.mark.skipif(not OLD, reason="OLD names no wheel of an older release")
def test_an_older_release_upgrades_with_its_settings_state_and_spool(machine: Machine) -> None:
    machine.run("/mnt/old/install.sh", "--wheels", "/mnt/wheels", "--models", "/mnt/models",
                "--from", f"/mnt/old/{Path(OLD).name}")  # fmt: skip
    machine.sh("echo EDGED_ALSA_DEVICE=sample > /etc/edged/edged.env.d/10-a.env;"
               "echo '# mine' >> /etc/edged/edged.env;"
               "systemctl start mosquitto; systemctl restart edged")  # fmt: skip
    device = machine.run("uname", "-n")
    topic = f"edged/{device}"
    retained = f"mosquitto_sub -W 5 -C 1 -t {topic}"
    machine.until(lambda: machine.sh(f"{retained}/availability", check=False) == "online", "online")
    machine.sh(f"mosquitto_pub -t {topic}/cmd/config -m '{{\"delay_in_frames\": 12}}'")
    machine.until(
        lambda: '"delay_in_frames": 12' in machine.sh(f"{retained}/state/settings", check=False),
        "the live change",
    )
    # A subscriber with a session of its own gets what is sent from now on, in order.
    numbered = ("text", "end_text", "turn", "flushed", "error", "end_of_stream")
    topics = " ".join(f"-t {topic}/{name}" for name in numbered)
    listen = f"mosquitto_sub -q 1 -i test -c {topics}"
    machine.sh(f"{listen} -W 1", check=False)
    machine.sh("systemctl stop mosquitto; sleep 20")  # speech goes to the spool
    kept = "sha256sum /etc/edged/edged.env /etc/edged/edged.env.d/*"
    before = machine.sh(kept)
    old_unit = machine.sh("cat /etc/systemd/system/edged.service")
    broken = machine.run(*INSTALL, "--from", "/mnt/new/edged-9.2-py3-none-any.whl", check=False)
    assert "was rolled back; 0." in broken
    assert machine.sh("cat /etc/systemd/system/edged.service") == old_unit
    machine.run(*INSTALL)
    assert machine.sh(kept) == before
    machine.sh("systemctl start mosquitto")
    machine.until(
        lambda: __version__ in machine.sh(f"{retained}/info", check=False), "the new version"
    )
    machine.until(
        lambda: '"delay_in_frames": 12' in machine.sh(f"{retained}/state/settings", check=False),
        "the live change is still in force",
    )
    time.sleep(5)
    lines = machine.sh(f"{listen} -W 5", check=False).splitlines()  # the last is "Timed out"
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    sessions: dict[str, list[int]] = {}
    for message in messages:
        if message.get("delayed"):
            sessions.setdefault(message["session"], []).append(message["seq"])
    numbers = [sorted(set(seq)) for seq in sessions.values()]
    print(f"messages that waited in the spool, by session: {[len(seq) for seq in numbers]}")
    assert sum(len(seq) for seq in numbers) > 10
    assert all(seq == list(range(seq[0], seq[-1] + 1)) for seq in numbers), numbers
    machine.run("/mnt/deploy/install.sh", "purge")


def test_without_a_network_the_installer_stops_with_one_message_and_changes_nothing(
    machine: Machine,
) -> None:
    said = machine.run("/mnt/deploy/install.sh", check=False)
    assert "there is no network" in said
    assert said.count("\n") == 0
    assert machine.sh("ls -d /opt/edged /etc/edged /var/lib/edged 2>/dev/null; id edged",
                      check=False).count("no such user") == 1  # fmt: skip


def test_one_command_makes_a_listening_service(machine: Machine) -> None:
    started = time.monotonic()
    said = machine.run(*INSTALL)
    print(f"installed in {time.monotonic() - started:.0f} s")
    assert "doctor found the problems above" in said  # there is no microphone and no broker
    assert machine.show("ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "edged") == "enabled"
    assert machine.sh("stat -c '%U:%G %a' /etc/edged/edged.env") == "root:edged 640"
    assert machine.sh("stat -c '%U %a' /var/lib/edged") == "edged 750"


def test_the_installed_unit_is_valid_and_its_exposure_low(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "--man=no", "edged.service") == ""
    said = machine.run("systemd-analyze", "security", "--no-pager", "edged.service")
    assert float(re.findall(r"exposure level for edged.service: ([0-9.]+)", said)[0]) <= 1.5


def test_without_a_card_the_daemon_waits_for_one_and_reports_it(machine: Machine) -> None:
    assert "default is not there" in machine.show("StatusText")
    assert machine.show("NRestarts") == "0"


def test_the_service_is_sandboxed(machine: Machine) -> None:
    pid = machine.show("MainPID")
    status = machine.sh(f"cat /proc/{pid}/status")
    assert re.search(r"NoNewPrivs:\s+1", status)
    assert re.search(r"CapEff:\s+0{16}", status)
    assert re.search(r"Seccomp:\s+2", status)
    assert machine.sh(f"stat -c %U /proc/{pid}") == "edged"
    inside = f"nsenter -t {pid} -m -- touch"
    assert "Read-only" in machine.sh(f"{inside} /usr/x", check=False)
    assert "Read-only" in machine.sh(f"{inside} /etc/edged/x", check=False)
    assert machine.sh("ls -A /root/.cache /var/lib/edged/.cache 2>/dev/null", check=False) == ""


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.sh("echo '# mine' >> /etc/edged/edged.env")
    pid, settings = machine.show("MainPID"), machine.sh("cat /etc/edged/edged.env")
    assert "the same version is running already" in machine.run(*INSTALL)
    assert machine.show("MainPID") == pid
    assert machine.sh("cat /etc/edged/edged.env") == settings


def test_a_reload_and_a_replaced_file_are_applied_by_the_same_process(
    machine: Machine,
) -> None:
    pid = machine.show("MainPID")
    machine.sh("echo EDGED_DELAY_IN_FRAMES=12 > /etc/edged/edged.env.d/10-a.env")
    machine.until(lambda: "delay_in_frames" in machine.log(), "the pushed file")
    machine.sh("echo EDGED_DELAY_IN_FRAMES=99 > /etc/edged/edged.env.d/10-a.env")
    machine.until(lambda: "not applied" in machine.show("StatusText"), "the refusal")
    machine.run("edged", "config", "rollback")
    machine.until(lambda: "not applied" not in machine.show("StatusText"), "the rollback")
    machine.run("systemctl", "reload", "edged")
    machine.until(lambda: machine.show("ActiveState") == "active", "the end of the reload")
    assert machine.show("MainPID") == pid


def test_systemd_restarts_it_after_kill_9_and_after_a_missed_watchdog(machine: Machine) -> None:
    pid = machine.show("MainPID")
    machine.sh("touch /run/edged/mark")  # beside the journal of unconfirmed messages
    machine.run("kill", "-9", pid)
    machine.until(lambda: machine.show("NRestarts") == "1", "the first restart")
    machine.until(lambda: machine.show("ActiveState") == "active", "it is ready again")
    machine.sh("rm /run/edged/mark")  # it is still there
    machine.sh("mkdir -p /run/systemd/system/edged.service.d; printf '[Service]\\n"
               "WatchdogSec=6\\nTimeoutAbortSec=2\\n' > /run/systemd/system/edged.service.d/t.conf;"
               "systemctl daemon-reload; systemctl restart edged")  # fmt: skip
    pid = machine.show("MainPID")
    time.sleep(10)
    assert machine.show("MainPID") == pid  # it feeds the watchdog while all is well
    machine.run("kill", "-STOP", pid)
    machine.until(lambda: machine.show("MainPID") not in (pid, "0"), "the restart", 40)
    machine.until(lambda: machine.show("ActiveState") == "active", "it is ready again")
    machine.sh("rm -r /run/systemd/system/edged.service.d; systemctl daemon-reload")


SLOW_START = """
import sys, time
from edged.cli.main import main
from edged.daemon import start_timeout
from edged.models import loader

def load(*args, before=loader.load):
    end = time.monotonic() + 40
    while time.monotonic() < end:
        %s
    return before(*args)

start_timeout.EXTENSION_S = 15
loader.load = load
sys.exit(main())
"""


def test_a_slow_start_that_makes_progress_is_awaited_and_one_that_hangs_is_ended(
    machine: Machine,
) -> None:
    """Both take 40 s. On a processor so slow that the models took longer to load than
    TimeoutStartSec=, systemd ended one start after the other, for ever."""
    folder = "/run/systemd/system/edged.service.d"
    # /opt/edged/bin of the installer is a link: by that path Python does not find its environment.
    python = machine.sh("test -e /opt/edged/current && echo /opt/edged/current/bin/python3"
                        " || echo /opt/edged/bin/python3")  # fmt: skip
    for body, works in (("sum(range(1000))", True), ("time.sleep(1)", False)):
        machine.sh(f"mkdir -p {folder}; printf '%s' '{SLOW_START % body}' > /opt/edged/slow.py;"
                   "printf '[Service]\\nTimeoutStartSec=20\\nExecStart=\\n"
                   f"ExecStart={python.strip()} /opt/edged/slow.py run --env-file"
                   f" /etc/edged/edged.env\\n' > {folder}/slow.conf;"
                   "systemctl daemon-reload; systemctl reset-failed edged")  # fmt: skip
        said = machine.run("systemctl", "restart", "edged", check=False)
        assert ("timeout" in said) is not works, said
        assert (machine.show("ActiveState") == "active") is works
    machine.sh(f"rm -r {folder} /opt/edged/slow.py; systemctl daemon-reload;"
               "systemctl restart edged")  # fmt: skip
    machine.until(lambda: machine.show("ActiveState") == "active", "it is ready again")


def test_a_secret_is_optional_and_reaches_only_the_service(machine: Machine) -> None:
    machine.sh("echo tea > /etc/edged/credentials/mqtt_password;"
               "echo EDGED_MQTT_USERNAME=kitchen > /etc/edged/edged.env.d/20-user.env;"
               "systemctl restart edged")  # fmt: skip
    pid = machine.show("MainPID")
    environment = machine.sh(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    (folder,) = re.findall(r"CREDENTIALS_DIRECTORY=(\S+)", environment)
    found = machine.sh(f"nsenter -t {pid} -m -- cat {folder}/edged_mqtt_password")
    assert found == "tea"
    said = json.loads(machine.run("edged", "doctor", "--json", check=False))
    assert any("credential" in str(f) or "broker" in f["what"] for f in said["findings"])


def test_an_upgrade_while_somebody_speaks_loses_no_text_and_keeps_settings_and_spool(
    machine: Machine,
) -> None:
    machine.sh("echo kept > /var/lib/edged/spool/mark; chown edged: /var/lib/edged/spool/mark;"
               "echo EDGED_ALSA_DEVICE=sample > /etc/edged/edged.env.d/10-a.env;"
               "rm -f /etc/edged/edged.env.d/20-user.env /etc/edged/credentials/mqtt_password;"
               "systemctl start mosquitto; systemctl restart edged")  # fmt: skip
    kept = "sha256sum /etc/edged/edged.env /etc/edged/edged.env.d/* /var/lib/edged/spool/mark"
    before = machine.sh(kept)
    upgrade = " ".join([*INSTALL, "--from", "/mnt/new/edged-9.1-py3-none-any.whl"])
    gap_s = gap_in_speech(machine, upgrade)
    print(f"from the old version's last message to the new one's first word: {gap_s:.1f} s")
    assert "9.1" in machine.sh("readlink /opt/edged/current")
    assert machine.show("ActiveState") == "active"
    assert machine.sh(kept) == before


def test_a_version_that_does_not_start_is_rolled_back(machine: Machine) -> None:
    said = machine.run(*INSTALL, "--from", "/mnt/new/edged-9.2-py3-none-any.whl", check=False)
    assert "was rolled back; 9.1" in said
    assert "this version is broken" in said
    assert "9.1" in machine.sh("readlink /opt/edged/current")
    machine.until(lambda: machine.show("ActiveState") == "active", "9.1 runs")
    assert "9.2" not in machine.sh("ls /opt/edged/releases")


def test_uninstall_leaves_settings_and_data_and_purge_leaves_nothing(machine: Machine) -> None:
    machine.run("/mnt/deploy/install.sh", "uninstall")
    assert machine.sh("ls -d /opt/edged /etc/systemd/system/edged.service /usr/local/bin/edged",
                      check=False).count("No such file") == 3  # fmt: skip
    assert machine.sh("ls /etc/edged/edged.env /var/lib/edged/models")
    assert machine.run("systemctl", "is-failed", "edged", check=False) in ("inactive", "unknown")
    machine.run("/mnt/deploy/install.sh", "purge")
    assert machine.left_over() == []
