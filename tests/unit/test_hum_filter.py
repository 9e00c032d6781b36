"""The filter of mains hum and rumble: what it removes, when it is on, and that speech passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.audio.high_pass import Floats, HighPass
from edged.audio.hum_filter import CUTOFF_HZ, ORDER, HumFilter
from edged.audio.sample_history import SampleHistory

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "support" / "speech"


def tone(hertz: float, dbfs: float, seconds: float) -> Floats:
    """A sine of this RMS level."""
    t = np.arange(round(seconds * RATE)) / RATE
    x: Floats = (10 ** (dbfs / 20) * np.sqrt(2) * np.sin(2 * np.pi * hertz * t)).astype(np.float32)
    return x


def noise(dbfs: float, seconds: float, low: float, high: float, seed: int = 0) -> Floats:
    """Noise of this RMS level between two frequencies."""
    n = max(round(seconds * RATE), 2)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    x = np.fft.irfft(spectrum, n)
    scaled: Floats = (x * 10 ** (dbfs / 20) / np.sqrt(np.square(x).mean())).astype(np.float32)
    return scaled


def speech(name: str) -> Floats:
    x, rate = soundfile.read(SPEECH / f"{name}.flac", dtype="float32")
    resampled: Floats = soxr.resample(x, rate, RATE)
    return resampled


def level(x: Floats) -> float:
    return float(10 * np.log10(np.square(x, dtype=np.float64).mean() + 1e-15))


def in_pushes(hum_filter: HumFilter, x: Floats, size: int = 1280) -> Floats:
    return np.concatenate([hum_filter.push(x[at : at + size]) for at in range(0, len(x), size)])


# ---- the high-pass filter ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hertz", "least", "most"),
    [(25, -200, -80), (50, -47, -45), (60, -31, -29), (85, -3.1, -2.9), (110, -0.1, 0.0),
     (1000, -0.01, 0.01), (7000, -0.01, 0.01)],
)  # fmt: skip
def test_the_filter_has_the_response_of_a_butterworth_filter(
    hertz: float, least: float, most: float
) -> None:
    filtered = HighPass(CUTOFF_HZ, RATE, ORDER).push(tone(hertz, -10, 3.0))
    assert least <= level(filtered[RATE:]) + 10 <= most


@given(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=30), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_filter_keeps_its_state_over_pushes_of_any_size(sizes: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(sum(sizes)).astype(np.float32)
    cuts = np.cumsum(sizes)[:-1]
    one, many = HighPass(CUTOFF_HZ, RATE, ORDER), HighPass(CUTOFF_HZ, RATE, ORDER)
    parts = [many.push(part) for part in np.split(x, cuts)]
    assert np.allclose(np.concatenate(parts), one.push(x), atol=1e-5)


# ---- when it is on -------------------------------------------------------------------------------
@pytest.mark.parametrize("hertz", [50, 60])
@pytest.mark.parametrize("dbfs", [-12, -21, -33])
def test_hum_is_removed_within_a_second(hertz: float, dbfs: float) -> None:
    voice = speech("peaceful-night")
    heard = in_pushes(HumFilter(RATE), voice + tone(hertz, dbfs, len(voice) / RATE))
    left = (heard - HighPass(CUTOFF_HZ, RATE, ORDER).push(voice))[RATE:]
    assert level(left) < dbfs - 25


def test_rumble_is_removed_after_a_second() -> None:
    hum_filter = HumFilter(RATE)
    heard = in_pushes(hum_filter, noise(-15, 6.0, 15, 60))
    assert level(heard[2 * RATE :]) < -40
    assert hum_filter.switched_on == 1


@pytest.mark.parametrize("name", ["good-influence", "mister-hale", "peaceful-night", "sojourn"])
@pytest.mark.parametrize("semitones", [0, -4, -8])
def test_speech_passes_unchanged(name: str, semitones: int) -> None:
    """Played slower, a voice is as low as few men's are."""
    x = speech(name)
    x = soxr.resample(x, RATE, RATE * 2 ** (-semitones / 12)).astype(np.float32)
    hum_filter = HumFilter(RATE)
    assert np.array_equal(in_pushes(hum_filter, x), x)
    assert not hum_filter.switched_on


def test_a_low_voice_is_no_hum() -> None:
    """A pulse train of 80 to 90 Hz, as loud as a man near the microphone, with pauses."""
    t = np.arange(8 * RATE) / RATE
    phase = np.cumsum((85 + 5 * np.sin(2 * np.pi * 0.7 * t)) / RATE)
    voice = sum(np.cos(2 * np.pi * n * phase) / n for n in range(1, 30))
    voice = voice * (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 0.8 * t))) * 0.1
    hum_filter = HumFilter(RATE)
    in_pushes(hum_filter, voice.astype(np.float32))
    assert not hum_filter.switched_on


def test_clicks_and_thuds_do_not_switch_it_on() -> None:
    x = noise(-60, 10.0, 20, 7000)
    for at in range(0, 10, 2):
        thud = noise(-10, 0.3, 20, 60, seed=at)
        x[at * RATE : at * RATE + len(thud)] += thud
    hum_filter = HumFilter(RATE)
    in_pushes(hum_filter, x)
    assert not hum_filter.switched_on


def test_it_is_off_again_when_the_hum_has_ended() -> None:
    hum_filter = HumFilter(RATE)
    in_pushes(hum_filter, tone(50, -20, 2.0))
    assert hum_filter.is_on
    in_pushes(hum_filter, noise(-40, 1.0, 200, 7000))
    assert not hum_filter.is_on
    rest = noise(-40, 1.0, 200, 7000, seed=1)
    assert np.array_equal(in_pushes(hum_filter, rest), rest)


@pytest.mark.parametrize("before_s", [0.0, 0.3, 3.0])
def test_audio_since_the_hum_began_is_corrected_once_it_was_detected(before_s: float) -> None:
    """For the second pass, which reads the audio again."""
    quiet = noise(-40, max(before_s, 0.1), 200, 7000)[: round(before_s * RATE)]
    voice = noise(-30, 2.0, 200, 7000, seed=1)
    x = np.concatenate((quiet, voice + tone(50, -12, 2.0)))
    hum_filter, history = HumFilter(RATE), SampleHistory(8 * RATE)
    corrections = 0
    for at in range(0, len(x), 1000):
        history.append(hum_filter.push(x[at : at + 1000]))
        if hum_filter.corrected is not None:
            history.overwrite(*hum_filter.corrected)
            corrections += 1
    assert corrections == 1
    heard = history.read(0, history.end)
    assert level(heard[: len(quiet) + RATE // 5]) < -25, "as good as without hum"
    wanted = HighPass(CUTOFF_HZ, RATE, ORDER).push(x)
    assert level((heard - wanted)[len(quiet) + RATE // 5 :]) < -60
    untouched = max(0, len(quiet) - RATE // 2)
    assert np.array_equal(heard[:untouched], quiet[:untouched])


def test_switching_makes_no_click() -> None:
    """Nothing is heard above 400 Hz when hum alone begins, is removed, and ends."""
    fade = np.linspace(0, 1, RATE // 4, dtype=np.float32)
    hum = tone(50, -12, 3.0)
    hum[: len(fade)] *= fade
    hum[-len(fade) :] *= 1 - fade
    hum_filter = HumFilter(RATE)
    heard = in_pushes(hum_filter, np.concatenate((hum, np.zeros(2 * RATE, np.float32))))
    assert hum_filter.switched_on == 1
    assert not hum_filter.is_on
    audible = HighPass(400, RATE, 10).push(heard)
    assert float(np.abs(audible).max()) < 10 ** (-70 / 20)


@given(sizes=st.lists(st.integers(0, 4000), min_size=1, max_size=60), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_the_result_does_not_depend_on_the_size_of_the_pushes(sizes: list[int], seed: int) -> None:
    length = sum(sizes)
    x = noise(-30, length / RATE + 0.1, 200, 7000, seed)[:length]
    x[length // 4 : 3 * length // 4] += tone(60, -15, length / RATE)[length // 4 : 3 * length // 4]
    one, many = HumFilter(RATE), HumFilter(RATE)
    parts = [many.push(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    assert np.allclose(np.concatenate(parts), one.push(x), atol=1e-5)
    assert many.switched_on == one.switched_on
