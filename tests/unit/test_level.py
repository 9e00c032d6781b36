"""The level meter, and what becomes of every sample format, rate and number of channels."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.audio.converter import Converter
from edged.audio.level import FLOOR_DBFS, LevelMeter, from_db, to_db
from edged.audio.pcm import SAMPLE_FORMATS
from edged.errors import DeviceError


def tone(rate: int, seconds: float = 1.0, peak: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def encode(wave: NDArray[np.float64], name: str) -> bytes:
    """-1..1 -> device bytes, written apart from the code under test."""
    order = ">" if name.endswith("BE") else "<"
    if name.startswith("FLOAT64"):
        return bytes(wave.astype(f"{order}f8").tobytes())
    if name.startswith("FLOAT"):
        return bytes(wave.astype(f"{order}f4").tobytes())
    bits = int(name[1:].split("_")[0])
    value = np.rint(wave * (2 ** (bits - 1) - 1)).astype(np.int64)
    if name.startswith("U"):
        value += 2 ** (bits - 1)
    if name in ("S24_3LE", "S24_3BE"):
        which: Literal["little", "big"] = "little" if name.endswith("LE") else "big"
        return b"".join(int(v).to_bytes(3, which, signed=True) for v in value)
    if name in ("S24_LE", "S24_BE"):
        return bytes((value & 0xFFFFFF).astype(f"{order}u4").tobytes())  # upper byte: undefined
    kind = ("u" if name.startswith("U") else "i") + str(bits // 8)
    return bytes(value.astype(order + kind).tobytes())


def interleave(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1).ravel()


def through(wave: np.ndarray, rate: int, channels: int, name: str, pieces: int = 7) -> np.ndarray:
    converter = Converter(rate, channels, name)
    data = encode(wave, name)
    frame = SAMPLE_FORMATS[name].width * channels
    cuts = [len(data) // frame * n // pieces * frame for n in range(pieces + 1)]
    out = [converter.push(data[a:b]) for a, b in pairwise(cuts)]
    return np.concatenate([*out, converter.flush()])


def worst(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference away from the ends, where a resampler's filter starts and stops."""
    return float(np.abs(a[500:-500].astype(float) - b[500:-500]).max())


@pytest.mark.parametrize("name", [name for name in SAMPLE_FORMATS if "LAW" not in name])
def test_every_sample_format_gives_the_same_sound(name: str) -> None:
    heard = through(tone(24_000), 24_000, 1, name)
    tolerance = 300 if name in ("S8", "U8") else 2
    assert worst(heard, tone(24_000) * 32768) <= tolerance


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_gives_the_same_sound_at_the_same_time(rate: int) -> None:
    heard = through(tone(rate), rate, 1, "S16_LE")
    assert abs(len(heard) - 24_000) <= 1
    assert worst(heard, (tone(24_000) * 32768)[: len(heard)]) < 40


def test_a_stereo_device_at_44100_gives_what_a_mono_device_at_24000_gives() -> None:
    stereo = through(interleave(tone(44_100), tone(44_100)), 44_100, 2, "S16_LE")
    mono = through(tone(24_000), 24_000, 1, "S16_LE")
    assert worst(stereo[:24_000], mono) < 40


def test_speech_in_one_channel_of_two_keeps_its_level() -> None:
    one_sided = interleave(tone(24_000), np.zeros(24_000))
    heard = through(one_sided, 24_000, 2, "S16_LE")
    assert worst(heard, tone(24_000) * 32768) < 40


def test_of_a_microphone_array_the_first_channel_is_heard() -> None:
    others = [tone(24_000, hertz=100 * n) for n in range(1, 6)]
    heard = through(interleave(tone(24_000), *others), 24_000, 6, "S16_LE")
    assert worst(heard, tone(24_000) * 32768) <= 2


@given(st.integers(1, 9))
@settings(max_examples=9, deadline=None)
def test_the_size_of_the_pieces_does_not_matter(pieces: int) -> None:
    whole = through(tone(48_000), 48_000, 1, "S16_LE", 1)
    np.testing.assert_array_equal(through(tone(48_000), 48_000, 1, "S16_LE", pieces), whole)


def test_24_khz_mono_16_bits_pass_bit_by_bit() -> None:
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, 5000).astype("<i2")
    out = Converter(24_000, 1, "S16_LE").push(samples.tobytes())
    np.testing.assert_array_equal(out, samples)


def test_gain_is_in_decibels_and_clips_rather_than_wraps() -> None:
    converter = Converter(24_000, 1, "S16_LE", gain_db=6.0)
    data = np.array([1000, -1000, 30_000, -30_000], "<i2").tobytes()
    assert converter.push(data).tolist() == [1995, -1995, 32767, -32768]
    converter.set_gain(0.0)
    assert converter.push(data).tolist() == [1000, -1000, 30_000, -30_000]


def test_a_part_of_a_frame_is_refused_since_it_would_shift_all_that_follows() -> None:
    with pytest.raises(ValueError, match="not whole frames"):
        Converter(48_000, 2, "S16_LE").push(b"\0" * 6)


@pytest.mark.parametrize(
    ("rate", "channels", "name", "says"),
    [
        (24_000, 1, "IMA_ADPCM", "S16_LE, S16_BE"),
        (24_000, 65, "S16_LE", "1 to 64"),
        (1_000, 1, "S16_LE", "2000 to 768000 Hz"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_what_can(
    rate: int, channels: int, name: str, says: str
) -> None:
    with pytest.raises(DeviceError, match=says):
        Converter(rate, channels, name)


def test_broken_floats_become_silence_not_a_crash() -> None:
    data = np.array([np.nan, np.inf, -np.inf, 0.5], "<f4").tobytes()
    out = Converter(24_000, 1, "FLOAT_LE").push(data)
    assert out[0] == 0
    assert out[3] == 16384


def test_exact_zeros_are_counted_across_pieces_until_a_sound() -> None:
    converter = Converter(24_000, 1, "S16_LE")
    converter.push(bytes(2 * 1000))
    converter.push(bytes(2 * 500))
    assert converter.zeros == 1500
    converter.push(np.array([0, 1, 0, 0], "<i2").tobytes())
    assert converter.zeros == 2


def test_a_full_scale_sine_reads_minus_three_decibels() -> None:
    meter = LevelMeter(24_000)
    meter.push(tone(24_000, peak=1.0).astype(np.float32))
    assert meter.level is not None
    assert meter.level.rms_dbfs == pytest.approx(-3.01, abs=0.01)
    assert meter.level.peak_dbfs == pytest.approx(0.0, abs=0.01)


def test_a_meter_knows_nothing_before_its_first_window() -> None:
    meter = LevelMeter(24_000)
    meter.push(np.zeros(100, np.float32))
    assert meter.level is None


def test_silence_reads_the_floor_and_is_not_clipping() -> None:
    meter = LevelMeter(1000)
    meter.push(np.zeros(1000, np.float32))
    assert meter.level is not None
    assert meter.level.rms_dbfs == FLOOR_DBFS
    assert not meter.level.clipping


def test_a_signal_at_the_rails_is_called_clipping() -> None:
    meter = LevelMeter(24_000)
    meter.push(np.clip(tone(24_000, peak=2.0), -1, 1).astype(np.float32))
    assert meter.level is not None
    assert meter.level.clipping


@given(st.floats(-90, 20))
@settings(deadline=None)
def test_decibels_go_both_ways(decibels: float) -> None:
    assert to_db(from_db(decibels)) == pytest.approx(decibels, abs=1e-6)
