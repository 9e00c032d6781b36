"""A real device of libasound is opened and read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edged.audio.alsa import open_microphone
from edged.errors import DeviceError
from tests.support.alsa_paced import DEVICE, PacedMicrophone


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
