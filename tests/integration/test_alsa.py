"""Opening a microphone: what was really given, names that last, sentences that help."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import alsaaudio
import pytest

from edged.audio import alsa, cards
from edged.audio.alsa import NegotiatedFormat, open_microphone
from edged.errors import DeviceError
from tests.support.alsa_paced import DEVICE, PacedMicrophone
from tests.support.fake_alsa import FakeCard

CARDS = """\
 0 [vc4hdmi0       ]: vc4-hdmi - vc4-hdmi-0
                      vc4-hdmi-0
 2 [Device         ]: USB-Audio - USB PnP Sound Device
                      C-Media Electronics Inc. USB PnP Sound Device at usb-xhci-hcd.0-1, full speed
"""
PCMS = """\
00-00: MAI PCM i2s-hifi-0 : MAI PCM i2s-hifi-0 : playback 1
02-00: USB Audio : USB Audio : playback 1 : capture 1
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """/proc/asound of a Raspberry Pi with a USB microphone, in a folder."""
    status = tmp_path / "card2/pcm0c/sub0/status"
    status.parent.mkdir(parents=True)
    status.write_text("closed\n")
    (tmp_path / "cards").write_text(CARDS)
    (tmp_path / "pcm").write_text(PCMS)
    (tmp_path / "card2/usbid").write_text("0d8c:0014\n")
    return tmp_path


@pytest.fixture(scope="module")
def paced() -> Iterator[PacedMicrophone]:
    with PacedMicrophone() as microphone:
        yield microphone


def test_a_real_device_gives_24_khz_mono_with_half_a_second_of_buffer(
    paced: PacedMicrophone,
) -> None:
    microphone = open_microphone(DEVICE)
    try:
        assert str(microphone.negotiated) == "24000 Hz, mono, S16_LE"
        assert microphone.negotiated.period == 1920
        assert microphone.negotiated.buffer_s >= 0.5
    finally:
        microphone.close()


def test_a_real_device_is_read_without_ever_blocking(paced: PacedMicrophone) -> None:
    microphone = open_microphone(DEVICE)
    try:
        frames = 0
        while frames < 12_000:
            data = microphone.read()
            assert data is not None
            frames += microphone.frames(data)
            if not data:
                microphone.wait(1.0)
        assert frames < 12_000 + 1920
    finally:
        microphone.close()


def test_libasound_keeps_quiet_on_stderr(
    paced: PacedMicrophone, capfd: pytest.CaptureFixture[str]
) -> None:
    for device in ("nosuch", "plughw:CARD=Nope,DEV=0"):
        with pytest.raises(DeviceError, match=r"is not there|no sound card"):
            open_microphone(device)
    assert capfd.readouterr().err == ""


def test_what_the_device_lacks_is_read_back_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCard(rate=44_100, channels=2).install(monkeypatch)
    microphone = open_microphone("hw:CARD=x")
    assert (microphone.negotiated.rate, microphone.negotiated.channels) == (44_100, 2)
    assert microphone.negotiated.buffer_s >= 0.5  # asked for again at the rate it has
    microphone.close()


def test_eight_bits_are_not_taken_while_the_device_has_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libasound silently gives the first format of a device that lacks the one asked for:
    FLOAT_LE asked of a card that had U8 and S32_LE became U8, and speech became noise."""
    card = FakeCard(formats=("U8", "S32_LE")).install(monkeypatch)
    microphone = open_microphone("hw:CARD=x")
    assert microphone.negotiated.format == "S32_LE"
    assert card.open_now == 1
    microphone.close()


def test_a_format_that_edged_cannot_read_is_named_with_those_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = FakeCard(formats=("IMA_ADPCM",)).install(monkeypatch)
    with pytest.raises(DeviceError, match="gives IMA_ADPCM samples only; edged reads S16_LE"):
        open_microphone("hw:CARD=x")
    assert card.open_now == 0


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("Device or resource busy", "in use by another program: stop it"),
        ("No such device", "is not there: plug it in"),
        ("No such file or directory", "edged devices"),
        ("Connection refused", "sound server that does not run"),
        ("Something new", "cannot be opened: Something new"),
    ],
)
def test_each_failure_has_a_sentence_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, reason: str, says: str
) -> None:
    FakeCard(rate=None).install(monkeypatch).problem = reason
    with pytest.raises(DeviceError, match=says):
        open_microphone("mic")


def test_missing_rights_are_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """libasound says "No such device" or "Cannot get card index" to a user outside group audio."""
    monkeypatch.setattr(alsa, "DEV_SND", tmp_path)
    (tmp_path / "controlC0").touch()

    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    assert "group audio" in alsa.explain_open_error("mic", "No such device")


@pytest.mark.parametrize("name", ["hw:0", "plughw:2,0", "plughw:CARD=2,DEV=0", "sysdefault:1"])
def test_a_card_number_is_refused_since_it_changes_at_boot(name: str, proc: Path) -> None:
    with pytest.raises(DeviceError, match="by number, which can change at any boot"):
        cards.resolve(name, proc)


def test_a_refused_number_comes_with_the_name_to_use(proc: Path) -> None:
    with pytest.raises(DeviceError, match=r"use plughw:CARD=Device,DEV=0$"):
        cards.resolve("hw:2,0", proc)


@pytest.mark.parametrize(
    "name", ["default", "mic", "plughw:CARD=Device,DEV=0", "hw:Device", "pulse"]
)
def test_stable_names_are_passed_on_as_they_are(name: str, proc: Path) -> None:
    assert cards.resolve(name, proc) == name


def test_a_card_that_is_not_plugged_in_is_known_without_opening_anything(proc: Path) -> None:
    with pytest.raises(DeviceError, match=r"no sound card is called Mic: .*now: Device"):
        cards.resolve("plughw:CARD=Mic,DEV=0", proc)


def test_where_the_kernel_shows_no_cards_the_name_is_tried(tmp_path: Path) -> None:
    assert cards.resolve("plughw:CARD=Mic", tmp_path) == "plughw:CARD=Mic"


def test_a_usb_id_finds_its_card_wherever_it_was_plugged_in(proc: Path) -> None:
    assert cards.resolve("usb:0D8C:0014", proc) == "plughw:CARD=Device,DEV=0"


@pytest.mark.parametrize(("name", "says"), [("usb:1", "looks like"), ("usb:1234:5678", "no mic")])
def test_a_usb_id_that_leads_nowhere_says_so(name: str, says: str, proc: Path) -> None:
    with pytest.raises(DeviceError, match=says):
        cards.resolve(name, proc)


def test_where_default_cannot_record_the_card_that_can_is_taken(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Raspberry Pi `default` is the HDMI output: a new device with a microphone was deaf."""
    monkeypatch.setattr(cards, "PROC", proc)
    card = FakeCard().install(monkeypatch)
    card.only = "plughw:CARD=Device,DEV=0"
    microphone = open_microphone("default")
    assert microphone.name == "plughw:CARD=Device,DEV=0"
    microphone.close()


def test_who_has_the_microphone_open_is_known(proc: Path) -> None:
    """The kernel notes the thread that opened it: its number was shown as the program's."""
    opened, done = threading.Event(), threading.Event()

    def hold() -> None:
        opened.set()
        done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    opened.wait()
    status = proc / "card2/pcm0c/sub0/status"
    status.write_text(f"state: RUNNING\nowner_pid   : {thread.native_id}\n")
    (busy,) = (cards.read_cards(proc) or [])[1].inputs
    done.set()
    assert f"(pid {os.getpid()})" in str(busy.owner)


def test_24_khz_mono_and_16_bits_are_what_is_asked_for_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = FakeCard().install(monkeypatch)
    open_microphone("mic").close()
    (pcm,) = card.opened
    assert (pcm.rate, pcm.channels, pcm.format, pcm.period) == (24_000, 1, "S16_LE", 1920)
    assert pcm.wish["type"] == alsaaudio.PCM_CAPTURE
    assert (
        NegotiatedFormat(pcm.rate, pcm.channels, pcm.format, pcm.period, pcm.buffer)
        == NegotiatedFormat()
    )
