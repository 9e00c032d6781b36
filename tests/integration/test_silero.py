"""Silero's wrapper, with the real network and real speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.models.loader import Models, load
from edged.vad.silero import CONTEXT, RATE, WINDOW, Silero

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


@pytest.fixture(scope="module")
def audio(speech: Path) -> Floats:
    x, rate = soundfile.read(speech, dtype="float32")
    assert rate == RATE
    return np.asarray(x[: 3 * RATE], np.float32)


def by_hand(models: Models, x: Floats, context: bool = True) -> Floats:
    """One window after the other, with the samples in front of it or with zeros in their place."""
    h = c = np.zeros((1, 1, 128), np.float32)
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), x])
    out = []
    for start in range(0, len(x) - WINDOW + 1, WINDOW):
        window = padded[start : start + CONTEXT + WINDOW].copy()
        window[:CONTEXT] *= context
        p, h, c = models.silero.run(None, {"input": window[None], "h": h, "c": c})
        out.append(float(p[0]))
    return np.array(out)


def test_each_window_is_judged_with_the_64_samples_before_it(models: Models, audio: Floats) -> None:
    """The bug that many ports of Silero have. Fed 512 samples alone, its older graphs ran without a
    complaint and never heard speech (0 of 118 chunks in one project, 114 with the context); the
    one we use refuses them, but not zeros."""
    ours = np.array(Silero(models.silero).push(audio))
    assert (ours > 0.5).mean() > 0.5
    np.testing.assert_allclose(ours, by_hand(models, audio), atol=1e-5)
    assert np.abs(ours - by_hand(models, audio, context=False)).max() > 0.01
    h = np.zeros((1, 1, 128), np.float32)
    with pytest.raises(Exception, match="Got: 512 Expected: 576"):
        models.silero.run(None, {"input": audio[None, :WINDOW], "h": h, "c": h})


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 3000), max_size=20))
def test_how_the_audio_is_cut_does_not_matter(
    models: Models, audio: Floats, cuts: list[int]
) -> None:
    x = audio[: RATE // 2]
    silero, pieces, place = Silero(models.silero), [], 0
    for cut in [*cuts, len(x)]:
        pieces += silero.push(x[place : place + cut])
        place += cut
    assert pieces == Silero(models.silero).push(x)


def test_a_step_of_80_ms_gives_two_and_three_probabilities_in_turn(models: Models) -> None:
    silero = Silero(models.silero)
    assert [len(silero.push(np.zeros(1280, np.float32))) for _ in range(4)] == [2, 3, 2, 3]


def test_after_a_reset_the_past_is_forgotten(models: Models, audio: Floats) -> None:
    silero = Silero(models.silero)
    silero.push(audio[: RATE + 100])
    silero.reset()
    assert silero.push(audio[:RATE]) == Silero(models.silero).push(audio[:RATE])


def test_two_streams_share_the_network_and_nothing_else(models: Models, audio: Floats) -> None:
    a, b = Silero(models.silero), Silero(models.silero)
    mixed = []
    for start in range(0, RATE, 1280):
        mixed += a.push(audio[start : start + 1280])
        b.push(np.zeros(1280, np.float32))
    assert (
        mixed == Silero(models.silero).push(audio[: len(mixed) * WINDOW + WINDOW - 1])[: len(mixed)]
    )
