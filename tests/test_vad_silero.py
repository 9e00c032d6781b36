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


def reference(models: Models, x: Floats, context: int) -> Floats:
    """The whole clip at once, as upstream's own loop does it."""
    state = np.zeros((2, 1, 128), np.float32)
    padded = np.concatenate([np.zeros(context, np.float32), x])
    out = []
    for start in range(0, len(x) - WINDOW + 1, WINDOW):
        window = padded[start : start + context + WINDOW][None]
        feeds = {"input": window, "state": state, "sr": np.array(RATE)}
        p, state = models.silero.run(None, feeds)
        out.append(float(p[0, 0]))
    return np.array(out)


def test_speech_is_heard_only_with_the_64_samples_before_each_window(
    models: Models, audio: Floats
) -> None:
    """The bug that many ports of Silero have: fed 512 samples alone, the network runs without a
    complaint and never hears speech (0 of 118 chunks in one project, 114 with the context)."""
    ours = np.array(Silero(models.silero).push(audio))
    without = reference(models, audio, 0)
    assert (ours > 0.5).mean() > 0.5
    assert (without > 0.5).mean() < 0.1
    np.testing.assert_allclose(ours, reference(models, audio, CONTEXT), atol=1e-5)


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
