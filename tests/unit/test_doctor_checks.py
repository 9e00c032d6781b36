"""What each check of `edged doctor` finds, and how findings are shown."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edged.config.settings import Settings
from edged.doctor.broker_check import (
    Visit,
    check_broker,
    check_home_assistant,
    check_running,
    daemon_is_running,
    watched,
)
from edged.doctor.checkup import show_findings
from edged.doctor.finding import Finding
from edged.doctor.machine_check import check_machine, check_permissions
from edged.mqtt.broker_settings import BrokerSettings


def levels(findings: list[Finding]) -> list[str]:
    return [f.level for f in findings]


def test_a_terminal_gets_marks_and_remedies_below() -> None:
    found = [Finding("ok", "a", "fine"), Finding("fail", "b", "broken", "Repair it.")]
    file = io.StringIO()
    assert show_findings(found, Console(file=file, force_terminal=True, color_system=None)) == 1
    assert file.getvalue().split("\n") == [
        "✓ a: fine",
        "✗ b: broken",
        "  → Repair it.",
        "1 of 2 checks failed",
        "",
    ]


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (Visit(round_trip_s=0.01), "ok"),
        (Visit(round_trip_s=2.0), "warn"),
        (Visit(), "fail"),
        (Visit(broken="x"), "fail"),
        (Visit(refused="x"), "fail"),
    ],
)
def test_a_broker_is_judged_by_its_answer(seen: Visit, level: str) -> None:
    assert levels(check_broker(BrokerSettings(), seen)) == [level]


def test_home_assistant_is_judged_by_what_is_retained_and_silence_proves_nothing() -> None:
    settings = Settings(device="hall")
    status, discovery = "homeassistant/status", "homeassistant/device/hall/config"
    assert discovery in watched(settings)
    (missing,) = check_home_assistant(settings, Visit())
    assert missing.level == "warn"
    (there,) = check_home_assistant(settings, Visit(retained={discovery: {"a": 1}}))
    assert there.level == "ok"
    assert there.remedy
    both = Visit(retained={discovery: {"a": 1}, status: "online"})
    assert check_home_assistant(settings, both)[0].remedy == ""
    off = settings.model_copy(update={"homeassistant": False})
    assert levels(check_home_assistant(off, Visit())) == ["ok"]


def test_a_lost_microphone_of_a_running_daemon_fails() -> None:
    settings = Settings(device="hall")
    mic = {"ok": False, "message": "gone"}
    seen = Visit(retained={"edged/hall/availability": "online", "edged/hall/state/mic": mic})
    assert daemon_is_running(settings, seen)
    assert levels(check_running(settings, seen)) == ["ok", "fail"]


def test_little_memory_and_a_weak_supply_are_warned_of(tmp_path: Path) -> None:
    meminfo, throttled = tmp_path / "meminfo", tmp_path / "throttled"
    meminfo.write_text("MemTotal: 900000 kB\nMemAvailable: 90000 kB\n")
    for bits, word in [("50005", "voltage"), ("80008", "hot"), ("0", "sufficient")]:
        throttled.write_text(bits + "\n")
        text = " ".join(f.message for f in check_machine(meminfo, throttled))
        assert "only 92 MB" in text or "only 90 MB" in text
        assert word in text
    assert levels(check_machine(tmp_path / "none", tmp_path / "none")) == ["ok"]


def test_a_folder_that_cannot_be_written_names_the_command_that_repairs_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad: Any = Settings(state_dir=tmp_path / "file" / "x", spool_dir=tmp_path / "new" / "spool")
    found = {f.message.split(" the ")[1]: f for f in check_permissions(bad) if " the " in f.message}
    state = found[f"state folder {tmp_path}/file/x"]
    assert state.level == "fail"
    assert "chown" in state.remedy
    assert found[f"spool {tmp_path}/new/spool"].level == "ok"


def test_a_sound_device_that_this_user_may_not_open_names_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pcmC0D0c").write_text("")
    settings = Settings(state_dir=tmp_path)
    assert "may use the sound devices" in check_permissions(settings, tmp_path)[0].message
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, m: "pcm" not in str(p) and allowed(p, m))
    (finding, *_) = check_permissions(settings, tmp_path)
    assert finding.level == "fail"
    assert "usermod -aG audio" in finding.remedy


def test_an_unreadable_certificate_is_found(tmp_path: Path) -> None:
    settings = Settings(
        mqtt_url="mqtts://x", mqtt_ca_file=tmp_path / "none.pem", state_dir=tmp_path
    )
    assert [f.what for f in check_permissions(settings) if f.level == "fail"] == ["certificates"]
