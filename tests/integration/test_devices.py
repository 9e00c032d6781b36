"""`edged devices` and the doctor's look at the microphone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from rich.console import Console

from edged.audio import alsa
from edged.audio.capture_devices import list_devices
from edged.cli import devices as devices_module
from edged.cli.devices import show_devices
from edged.doctor.microphone_check import check_microphone
from edged.errors import DeviceError
from tests.support.alsa_paced import DEVICE, PacedMicrophone
from tests.support.fake_alsa import FakeCard

Sound: TypeAlias = Callable[[int, int], np.ndarray]

CARDS = """\
 1 [Device         ]: USB-Audio - USB PnP Sound Device
                      C-Media Electronics Inc. USB PnP Sound Device at usb-xhci, full speed
"""
PCMS = "01-00: USB Audio : USB Audio : playback 1 : capture 1\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """/proc/asound with one USB microphone that this process has open."""
    status = tmp_path / "card1/pcm0c/sub0/status"
    status.parent.mkdir(parents=True)
    status.write_text(f"state: RUNNING\nowner_pid   : {os.getpid()}\n")
    (tmp_path / "cards").write_text(CARDS)
    (tmp_path / "pcm").write_text(PCMS)
    (tmp_path / "card1/usbid").write_text("0d8c:0014\n")
    return tmp_path


@pytest.fixture(scope="module")
def paced() -> Iterator[PacedMicrophone]:
    with PacedMicrophone() as microphone:
        yield microphone


def printed(terminal: bool = False, **options: Any) -> str:
    out = StringIO()
    show_devices(Console(file=out, force_terminal=terminal, width=100), **options)
    return out.getvalue()


def test_what_the_owner_defined_is_listed_and_the_useless_is_not(
    paced: PacedMicrophone, tmp_path: Path
) -> None:
    names = [device.name for device in list_devices(tmp_path)]
    assert names == ["default", DEVICE]


def test_cards_come_first_under_a_name_that_survives_a_reboot(
    paced: PacedMicrophone, proc: Path
) -> None:
    card, *_ = list_devices(proc)
    assert card.name == "plughw:CARD=Device,DEV=0"
    assert card.usb == "usb:0d8c:0014"
    assert card.description == "USB PnP Sound Device, USB Audio"
    assert f"(pid {os.getpid()})" in str(card.in_use)


def test_in_a_pipe_each_device_is_one_line_of_tabbed_fields(paced: PacedMicrophone) -> None:
    lines = printed(current=DEVICE).splitlines()
    (ours,) = [line for line in lines if line.startswith(DEVICE)]
    assert ours.split("\t") == [DEVICE, "from the ALSA configuration", "chosen"]


def test_for_programs_there_is_json(paced: PacedMicrophone) -> None:
    rows = json.loads(printed(as_json=True, current=DEVICE))
    assert [row["name"] for row in rows if row["current"]] == [DEVICE]


def test_a_terminal_gets_a_table(paced: PacedMicrophone) -> None:
    assert "EDGED_ALSA_DEVICE" in printed(terminal=True)


def test_without_any_microphone_there_is_a_message_and_programs_still_get_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices_module, "list_devices", list)
    out = StringIO()
    with pytest.raises(DeviceError, match="there is no microphone: plug one in"):
        show_devices(Console(file=out), as_json=True)
    assert json.loads(out.getvalue()) == []


def test_without_the_package_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alsa, "alsaaudio", None)
    (finding,) = check_microphone("mic")
    assert finding.level == "fail"
    assert finding.remedy == "install edged's extra `daemon`"


def test_the_doctor_hears_speech_on_a_real_device(paced: PacedMicrophone) -> None:
    noise = np.random.default_rng(0).normal(0, 20, 48_000)
    noise[20_000:30_000] *= 100
    paced.play(noise.astype(np.int16))
    time.sleep(0.2)
    form, heard = check_microphone(DEVICE, 1.5)
    assert form.message == f"{DEVICE} delivers 24000 Hz, mono, S16_LE"
    assert (heard.level, heard.remedy) == ("ok", "")
    assert "noise floor -" in heard.message


def constant(value: float) -> Sound:
    """Alternating samples: no DC, any level."""
    return lambda first, count: value * (-1.0) ** np.arange(first, first + count)


@pytest.mark.parametrize(
    ("sound", "level", "says"),
    [
        (lambda first, count: np.zeros(count), "fail", "digital silence"),
        (constant(32_767), "warn", "clipped"),
        (constant(2_000), "warn", "background noise is loud"),
        (constant(20), "warn", "level is very low"),
    ],
)
def test_the_doctor_names_what_disturbs_the_sound(
    monkeypatch: pytest.MonkeyPatch, sound: Sound, level: str, says: str
) -> None:
    FakeCard(sound=sound).install(monkeypatch)
    finding = check_microphone("mic", 0.4)[1]
    assert (finding.level, bool(finding.remedy)) == (level, True)
    assert says in finding.message


def test_the_doctor_reports_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCard(44_100, 2, sound=constant(500)).install(monkeypatch)
    assert "44100 Hz, stereo, S16_LE; edged converts" in check_microphone("mic", 0.3)[0].message


def test_the_doctor_reports_a_device_that_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edged.doctor.microphone_check.START_S", 0.2)
    FakeCard().install(monkeypatch).hanging = True
    assert "delivers no data" in check_microphone("mic", 0.3)[1].message


def test_the_doctor_reports_lost_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    card = FakeCard(sound=constant(300)).install(monkeypatch)
    card.lost_s = 1.0
    assert "overruns: 1" in check_microphone("mic", 0.4)[-1].message


@pytest.mark.parametrize("reason", ["Device or resource busy", "No such device", "Odd"])
def test_a_microphone_that_cannot_be_opened_is_one_finding_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    FakeCard().install(monkeypatch).problem = reason
    (finding,) = check_microphone("mic")
    assert finding.level == "fail"
    assert finding.remedy


def test_the_running_daemon_is_no_fault_of_the_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alsa, "_owner", lambda device: "edged (pid 1)")
    FakeCard().install(monkeypatch).problem = "Device or resource busy"
    (finding,) = check_microphone("plughw:CARD=Mic")
    assert (finding.level, "systemctl stop edged" in finding.remedy) == ("warn", True)
