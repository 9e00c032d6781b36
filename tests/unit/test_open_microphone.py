"""Opening a microphone: what was really negotiated, and errors with their remedy."""

from __future__ import annotations

import os
from pathlib import Path

import alsaaudio
import pytest

from edged.audio import alsa, cards
from edged.audio.alsa import NegotiatedFormat, open_microphone
from edged.errors import DeviceError
from tests.support.asound import asound_folder
from tests.support.fake_alsa import FakeCard


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return asound_folder(tmp_path)


def test_what_the_device_lacks_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_each_failure_has_a_message_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, reason: str, says: str
) -> None:
    FakeCard(rate=None).install(monkeypatch).problem = reason
    with pytest.raises(DeviceError, match=says):
        open_microphone("mic")


def test_missing_rights_are_reported_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """libasound says "No such device" or "Cannot get card index" to a user outside group audio."""
    monkeypatch.setattr(alsa, "DEV_SND", tmp_path)
    (tmp_path / "controlC0").touch()

    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    assert "group audio" in alsa.explain_open_error("mic", "No such device")


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
