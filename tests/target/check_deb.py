"""The Debian package on a booted Debian, with the real dpkg: `make test-deb SUITE=bookworm`.

Not part of `make test`: it needs root, a Debian tree made by systemd-boot.sh and some minutes.
Environment: ROOTFS (that tree), SUITE (which Debian it is), DEBS (a folder with edged and
edged-models for it).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.target.machine import Machine, booted

DEBS = Path(os.environ["DEBS"])
ROOTFS = Path(os.environ["ROOTFS"])
RELEASE, PYTHON = {"bookworm": ("deb12", "3.11"), "trixie": ("deb13", "3.13")}[os.environ["SUITE"]]
(PACKAGE,) = DEBS.glob(f"edged_*+{RELEASE}_amd64.deb")
DPKG_I = f"dpkg -i /mnt/debs/{PACKAGE.name}"
SERVICE = f"opt/edged/lib/python{PYTHON}/site-packages/edged/daemon/service.py"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`edged` as two later versions, the second of which cannot start."""
    folder = tmp_path_factory.mktemp("debs")
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", PACKAGE, tree], check=True)
    control, text = tree / "DEBIAN/control", (tree / "DEBIAN/control").read_text()
    service = tree / SERVICE
    for version in ("9.1", "9.2"):
        control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", text))
        if version == "9.2":
            service.write_text(service.read_text() + "\nraise SystemExit('this one is broken')\n")
        build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree,
                 folder / f"edged_{version}.deb"]  # fmt: skip
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def machine(packages: Path) -> Iterator[Machine]:
    with booted(ROOTFS, {"debs": DEBS, "new": packages}) as running:
        running.run("systemctl", "start", "mosquitto")
        yield running


def active(machine: Machine) -> bool:
    return machine.show("ActiveState") == "active"


def test_without_models_and_network_it_is_installed_and_says_what_to_do(machine: Machine) -> None:
    started = time.monotonic()
    said = machine.sh(DPKG_I)
    print(f"installed in {time.monotonic() - started:.0f} s")
    assert "the models are missing and could not be fetched" in said
    assert "sudo edged models fetch" in said
    assert machine.run("dpkg-query", "-Wf", "${db:Status-Status}", "edged") == "installed"
    assert machine.run("systemctl", "is-enabled", "edged") == "enabled"


def test_the_package_with_the_models_needs_no_network_and_it_listens(machine: Machine) -> None:
    machine.sh("printf 'EDGED_ALSA_DEVICE=sample\\nEDGED_MQTT_URL=mqtt://127.0.0.1\\n' "
               "> /etc/edged/edged.env.d/10-test.env")  # fmt: skip
    started = time.monotonic()
    machine.sh("dpkg -i /mnt/debs/edged-models_*.deb")
    machine.until(lambda: active(machine), "it listens")
    print(f"models ready and listening in {time.monotonic() - started:.0f} s")
    assert machine.sh("stat -c '%U:%G %a' /etc/edged/edged.env") == "root:edged 640"
    assert machine.sh("stat -c '%U %a' /var/lib/edged") == "edged 750"
    machine.until(lambda: "default" not in machine.show("StatusText"), "the sample speech")


def test_what_dpkg_unpacked_is_whole_and_root_s(machine: Machine) -> None:
    assert machine.run("dpkg", "-V", "edged", "edged-models") == ""
    assert machine.sh("find /opt/edged ! -user root") == ""
    assert "0.1" in machine.run("edged", "--version")


def test_verify_is_silent_and_the_exposure_low(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "--man=no", "edged.service") == ""
    said = machine.run("systemd-analyze", "security", "--no-pager", "edged.service")
    assert float(re.findall(r"exposure level for edged.service: ([0-9.]+)", said)[0]) <= 1.5


class Listener:
    """All that the box publishes, with the time at which it came: mosquitto_sub inside."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.heard: list[tuple[datetime, str, Any]] = []
        self._process = subprocess.Popen(
            [Path(__file__).with_name("systemd-boot.sh"), "exec", ROOTFS, "mosquitto_sub", "-q",
             "1", "-i", "listener", "-c", "-t", "edged/#", "-F", "%I %t %p"],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            when, topic, payload = line.rstrip("\n").split(" ", 2)
            try:
                value = json.loads(payload)
            except ValueError:
                value = payload
            name = topic.split("/", 2)[2]
            self.heard.append((datetime.strptime(when, "%Y-%m-%dT%H:%M:%S%z"), name, value))

    def of(self, *names: str) -> list[dict[str, Any]]:
        return [value for _, name, value in list(self.heard) if name in names]

    def close(self) -> None:
        self._machine.sh("pkill -x mosquitto_sub", check=False)
        self._process.wait(10)


NUMBERED = ("text", "end_text", "turn", "flushed", "error", "end_of_stream")


def test_an_upgrade_while_somebody_speaks_loses_no_text_and_keeps_settings_and_spool(
    machine: Machine,
) -> None:
    machine.sh("echo kept > /var/lib/edged/mark; chown edged: /var/lib/edged/mark")
    kept = "sha256sum /etc/edged/edged.env /etc/edged/edged.env.d/* /var/lib/edged/mark"
    before = machine.sh(kept)
    ear = Listener(machine)
    try:
        machine.until(lambda: len(ear.of("text")) > 3, "words", 60)
        machine.sh("dpkg -i /mnt/new/edged_9.1.deb")
        sessions: list[str] = []

        def two_sessions() -> bool:
            sessions[:] = dict.fromkeys(text["session"] for text in ear.of("text"))
            return len(sessions) > 1

        machine.until(two_sessions, "words of the new version", 60)
    finally:
        ear.close()
    numbered = [m for m in ear.of(*NUMBERED) if m["session"] == sessions[0]]
    seqs = sorted({m["seq"] for m in numbered})
    assert seqs == list(range(seqs[0], seqs[-1] + 1)), "a message of the old version was lost"
    last = max(numbered, key=lambda m: m["seq"])
    assert last["type"] == "end_of_stream", "the old version ended its last sentence"
    first = next(m for m in ear.of("text") if m["session"] == sessions[1])
    ended, began = (datetime.fromisoformat(m["ts"].replace("Z", "+00:00")) for m in (last, first))
    print(f"from the old version's last message to the new one's first word: {began - ended}")
    assert machine.sh(kept) == before
    assert machine.run("dpkg-query", "-Wf", "${Version}", "edged") == "9.1"


def test_a_version_that_cannot_start_is_said_and_the_one_before_comes_back_by_dpkg(
    machine: Machine,
) -> None:
    said = machine.sh("dpkg -i /mnt/new/edged_9.2.deb", check=False)
    assert "does not come up: journalctl -u edged" in said
    assert machine.run("dpkg-query", "-Wf", "${db:Status-Status}", "edged") == "half-configured"
    machine.sh("dpkg -i /mnt/new/edged_9.1.deb")
    machine.until(lambda: active(machine), "9.1 listens")
    assert machine.run("dpkg-query", "-Wf", "${db:Status-Status}", "edged") == "installed"


def test_the_installer_and_the_package_do_not_mix(machine: Machine) -> None:
    machine.sh("mkdir /opt/edged/releases")
    said = machine.sh(DPKG_I, check=False)
    machine.sh("rmdir /opt/edged/releases")
    assert "install.sh uninstall" in said
    assert machine.run("dpkg-query", "-Wf", "${Version}", "edged") == "9.1"


def test_removed_it_keeps_settings_and_data_and_purged_nothing(machine: Machine) -> None:
    machine.run("dpkg", "-r", "edged")
    assert machine.sh("ls -d /opt/edged /usr/lib/systemd/system/edged.service /usr/bin/edged",
                      check=False).count("No such file") == 3  # fmt: skip
    assert machine.sh("ls /etc/edged/edged.env /var/lib/edged/models /var/lib/edged/mark")
    assert machine.run("pgrep", "-u", "edged", check=False) == ""
    machine.run("dpkg", "-P", "edged", "edged-models")
    assert machine.left_over() == []
    assert machine.run("systemctl", "is-system-running", check=False) in ("running", "degraded")
    assert "edged" not in machine.run("systemctl", "list-units", "--all", "--plain")
