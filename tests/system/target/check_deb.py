"""The Debian package on a booted Debian, with the real dpkg: `make test-deb SUITE=bookworm`.

Not part of `make test`: it needs root, a Debian tree made by systemd-boot.sh and some minutes.
Environment: ROOTFS (that tree), SUITE (which Debian it is), DEBS (a folder with edged and
edged-models for it).
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged import __version__
from tests.system.target.machine import Machine, booted
from tests.system.target.speech import gap_in_speech

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
        build: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree,
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


def test_without_models_and_network_it_is_installed_and_names_the_remedy(machine: Machine) -> None:
    started = time.monotonic()
    said = machine.sh(DPKG_I)
    print(f"installed in {time.monotonic() - started:.0f} s")
    assert "the models are missing and could not be fetched" in said
    assert "sudo edged models fetch" in said
    assert machine.run("dpkg-query", "-Wf", "${db:Status-Status}", "edged") == "installed"
    assert machine.run("systemctl", "is-enabled", "edged") == "enabled"


def test_with_the_package_of_the_models_it_listens_without_a_network(machine: Machine) -> None:
    machine.sh("echo EDGED_ALSA_DEVICE=sample > /etc/edged/edged.env.d/10-test.env")
    started = time.monotonic()
    machine.sh("dpkg -i /mnt/debs/edged-models_*.deb")
    machine.until(lambda: active(machine), "it listens")
    print(f"models ready and listening in {time.monotonic() - started:.0f} s")
    assert machine.sh("stat -c '%U:%G %a' /etc/edged/edged.env") == "root:edged 640"
    assert machine.sh("stat -c '%U %a' /var/lib/edged") == "edged 750"
    machine.until(lambda: "default" not in machine.show("StatusText"), "the sample speech")


def test_the_installed_files_are_complete_and_owned_by_root(machine: Machine) -> None:
    assert machine.run("dpkg", "-V", "edged", "edged-models") == ""
    assert machine.sh("find /opt/edged ! -user root") == ""
    assert __version__ in machine.run("edged", "--version")


def test_the_unit_is_valid_and_its_exposure_low(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "--man=no", "edged.service") == ""
    said = machine.run("systemd-analyze", "security", "--no-pager", "edged.service")
    assert float(re.findall(r"exposure level for edged.service: ([0-9.]+)", said)[0]) <= 1.5


def test_an_upgrade_while_somebody_speaks_loses_no_text_and_keeps_settings_and_spool(
    machine: Machine,
) -> None:
    machine.sh("echo kept > /var/lib/edged/mark; chown edged: /var/lib/edged/mark")
    kept = "sha256sum /etc/edged/edged.env /etc/edged/edged.env.d/* /var/lib/edged/mark"
    before = machine.sh(kept)
    gap_s = gap_in_speech(machine, "dpkg -i /mnt/new/edged_9.1.deb")
    print(f"from the old version's last message to the new one's first word: {gap_s:.1f} s")
    assert machine.sh(kept) == before
    assert machine.run("dpkg-query", "-Wf", "${Version}", "edged") == "9.1"


def test_a_version_that_cannot_start_is_reported_and_dpkg_restores_the_previous_one(
    machine: Machine,
) -> None:
    said = machine.sh("dpkg -i /mnt/new/edged_9.2.deb", check=False)
    assert "does not start: see journalctl -u edged" in said
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
