"""The unit: sandboxed as promised, and only settings that systemd 252 knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "edged.service"
KIOSK = UNIT.with_name("kiosk.service")
EXPOSURE = 15  # tenths: systemd-analyze security's 1.5


def lines(unit: Path = UNIT) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and line[0] not in "#["]


def values(key: str) -> list[str]:
    return [line.partition("=")[2] for line in lines() if line.startswith(f"{key}=")]


def verify(unit: Path, folder: Path) -> str:
    """What `systemd-analyze verify` prints for the unit, with programs that exist here."""
    there = folder / unit.name
    text = unit.read_text().replace("/opt/edged/bin/edged", "/bin/true")
    there.write_text(text.replace("/usr/bin/cage", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(there)], capture_output=True, text=True
    )
    return done.stdout + done.stderr


def exposure(unit: Path, tenths: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={tenths}", "--no-pager",
         str(unit)],
        capture_output=True,
        text=True,
    )  # fmt: skip


def test_the_exposure_is_1_5_or_less() -> None:
    done = exposure(UNIT, EXPOSURE)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_limit_on_exposure_can_fail(tmp_path: Path) -> None:
    exposed = tmp_path / "edged.service"
    exposed.write_text(UNIT.read_text().replace("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    exposed.write_text(exposed.read_text().replace("ProtectSystem=strict", "ProtectSystem=no"))
    assert exposure(exposed, EXPOSURE).returncode != 0


@pytest.mark.parametrize("unit", [UNIT, KIOSK], ids=lambda unit: unit.name)
def test_the_unit_is_valid(unit: Path, tmp_path: Path) -> None:
    assert verify(unit, tmp_path) == ""


def test_a_setting_unknown_to_systemd_is_noticed(tmp_path: Path) -> None:
    newer = tmp_path / "new" / "edged.service"
    newer.parent.mkdir()
    newer.write_text(UNIT.read_text().replace("Type=notify\n", "Type=notify-fancy\n"))
    assert "notify-fancy" in verify(newer, tmp_path)


def test_the_service_waits_for_neither_broker_nor_network_nor_microphone() -> None:
    """A device may boot before its router, or without its microphone."""
    ordering = " ".join(values("After") + values("Wants") + values("Requires"))
    for awaited in ("network-online", "mosquitto", ".device", "time-sync"):
        assert awaited not in ordering


def test_the_microphone_is_the_only_device_and_proc_is_complete() -> None:
    assert values("DevicePolicy") == ["closed"]
    assert values("DeviceAllow") == ["char-alsa rw"]
    assert values("ProcSubset") == []  # onnxruntime reads /proc/cpuinfo
    assert values("PrivateDevices") == []


def test_telemetry_is_off_and_the_env_file_is_read_by_the_daemon_alone() -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in values("Environment")
    assert values("EnvironmentFile") == []


def test_no_secret_is_required_for_a_start() -> None:
    """LoadCredential= of a file fails the start where there is none; of a folder it does not,
    and the unit makes the folder."""
    (credential,) = values("LoadCredential")
    folder = credential.partition(":")[2]
    assert folder.removeprefix("/etc/") in values("ConfigurationDirectory")[0].split()


def test_a_killed_daemon_finds_its_unconfirmed_messages_again() -> None:
    """systemd removes the folder of the journal when a service stops, before a restart too: after
    a kill -9 what the broker had not confirmed was gone, 27 texts of 31, and nothing said so. That
    it stays is tried on a booted system (tests/system/target/check_installed.py)."""
    assert values("RuntimeDirectoryPreserve") == ["restart"]


def test_it_is_supervised_and_restarted_without_end() -> None:
    assert values("Type") == ["notify"]
    assert values("Restart") == ["on-failure"]
    assert values("StartLimitIntervalSec") == ["0"]
    assert int(values("WatchdogSec")[0]) <= 30
    for limit in ("MemoryHigh", "MemoryMax", "CPUQuota", "TasksMax"):
        assert values(limit), limit
