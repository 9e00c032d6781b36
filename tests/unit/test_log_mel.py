"""Log-mel features against two references: upstream's extractor, and the formulas written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.vad.log_mel import log_mel

GOLDEN = Path(__file__).parents[1] / "support" / "golden" / "log_mel.npz"  # every 40th frame


def signal(n: int) -> NDArray[np.float32]:
    """A rising tone in a little noise: every mel band has its turn."""
    t = np.arange(n) / 16000
    sweep = np.sin(2 * np.pi * (100 * t + 450 * t**2)) * (0.1 + 0.09 * np.sin(3 * t))
    noise = 0.003 * np.random.default_rng(4).standard_normal(n)
    return np.asarray(sweep + noise, np.float32)


@pytest.mark.parametrize(("name", "samples"), [("whole", 128_000), ("short", 40_000)])
def test_features_are_those_of_upstreams_extractor(name: str, samples: int) -> None:
    """The golden values come from smart-turn's own `_whisper_features.py` (pipecat-ai 1.14.0),
    on this signal, with zeros in front of the short one, as its analyser pads."""
    ours = log_mel(signal(samples))
    assert ours.shape == (80, 800)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[:, ::40], np.load(GOLDEN)[name], atol=2e-5)


def test_features_are_those_of_the_formulas_written_out() -> None:
    """A direct Fourier sum and one mel triangle at a time, in double precision."""
    x = signal(128_000).astype(np.float64)
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
    x = np.concatenate([x[200:0:-1], x, x[-2:-202:-1]])
    n = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    turning = np.exp(-2j * np.pi * np.outer(np.arange(201), n) / 400)
    frames = np.stack([x[160 * i : 160 * i + 400] for i in range(800)])
    power = np.abs(turning @ (frames * window).T) ** 2

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else float(1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    top = 15 + np.log(8) * 27 / np.log(6.4)
    mel = np.zeros((80, 800))
    for band in range(80):
        low, mid, high = (hertz(top * (band + i) / 81) for i in range(3))
        for k in range(201):
            f = k * 40.0
            height = max(0.0, min((f - low) / (mid - low), (high - f) / (high - mid)))
            mel[band] += height * 2 / (high - low) * power[k]
    expected = np.log10(np.maximum(mel, 1e-10))
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    np.testing.assert_allclose(log_mel(signal(128_000)), expected, atol=2e-5)


def test_only_the_last_8_s_count() -> None:
    x = signal(150_000)
    np.testing.assert_array_equal(log_mel(x), log_mel(x[-128_000:]))


def test_silence_and_nothing_at_all_have_finite_features() -> None:
    assert np.isfinite(log_mel(np.zeros(128_000, np.float32))).all()
    assert np.isfinite(log_mel(np.zeros(0, np.float32))).all()
