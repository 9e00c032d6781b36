"""The installer and the unit on a booted Debian: `make test-installer SUITE=trixie`.

Not part of `make test`: it needs root, a Debian tree made by systemd-boot.sh and some minutes.
Environment: ROOTFS (that tree), WHEELS (a folder with edged's wheel and all it depends on, for the
tree's Python), MODELS (a folder with model files or wheels).
"""

from __future__ import annotations

import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.target.machine import Machine, booted
from tests.system.target.speech import gap_in_speech

DEPLOY = Path(__file__).parents[3] / "deploy"
ROOTFS = Path(os.environ["ROOTFS"])
WHEELS = Path(os.environ["WHEELS"])
INSTALL = ("/mnt/deploy/install.sh", "--wheels", "/mnt/wheels", "--models", "/mnt/models")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    new = tmp_path_factory.mktemp("new")
    make_wheel(new, "9.1", {})
    broken = {"edged/daemon/service.py": "\nraise SystemExit('this version is broken')\n"}
    make_wheel(new, "9.2", broken)
    mounts = {"wheels": WHEELS, "models": Path(os.environ["MODELS"]), "deploy": DEPLOY, "new": new}
    with booted(ROOTFS, mounts) as running:
        yield running


def make_wheel(folder: Path, version: str, end: dict[str, str]) -> None:
    """edged's wheel as another version, with text put behind some of its files."""
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


def test_without_a_network_one_sentence_is_said_and_nothing_touched(machine: Machine) -> None:
    said = machine.run("/mnt/deploy/install.sh", check=False)
    assert "there is no network" in said
    assert said.count("\n") == 0
    assert machine.sh("ls -d /opt/edged /etc/edged /var/lib/edged 2>/dev/null; id edged",
                      check=False).count("no such user") == 1  # fmt: skip


def test_one_command_makes_a_listening_service(machine: Machine) -> None:
    started = time.monotonic()
    said = machine.run(*INSTALL)
    print(f"installed in {time.monotonic() - started:.0f} s")
    assert "findings above" in said  # doctor has spoken: there is no microphone and no broker
    assert machine.show("ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "edged") == "enabled"
    assert machine.sh("stat -c '%U:%G %a' /etc/edged/edged.env") == "root:edged 640"
    assert machine.sh("stat -c '%U %a' /var/lib/edged") == "edged 750"


def test_verify_is_silent_and_the_exposure_low_where_it_runs(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "--man=no", "edged.service") == ""
    said = machine.run("systemd-analyze", "security", "--no-pager", "edged.service")
    assert float(re.findall(r"exposure level for edged.service: ([0-9.]+)", said)[0]) <= 1.5


def test_without_a_card_it_listens_for_one_and_says_so(machine: Machine) -> None:
    assert "default is not there" in machine.show("StatusText")
    assert machine.show("NRestarts") == "0"


def test_it_is_shut_in(machine: Machine) -> None:
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
    assert "the same version runs already" in machine.run(*INSTALL)
    assert machine.show("MainPID") == pid
    assert machine.sh("cat /etc/edged/edged.env") == settings


def test_systemctl_reload_and_a_replaced_file_are_taken_by_the_same_process(
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


def test_kill_9_and_a_missed_watchdog_are_answered_with_a_new_start(machine: Machine) -> None:
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


def test_a_start_that_works_is_waited_for_and_one_that_hangs_is_ended(machine: Machine) -> None:
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


def test_a_secret_is_optional_and_reaches_the_service_alone(machine: Machine) -> None:
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


def test_a_version_that_does_not_come_up_is_taken_back(machine: Machine) -> None:
    said = machine.run(*INSTALL, "--from", "/mnt/new/edged-9.2-py3-none-any.whl", check=False)
    assert "was taken back; 9.1" in said
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
