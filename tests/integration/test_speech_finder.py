"""The tools that fit and score the turn model, with the real voice detector."""

from __future__ import annotations

import numpy as np

from edged import SAMPLE_RATE
from edged.models.loader import load
from models.turn.evidence import speech_finder
from models.turn.material import load_audio
from tests.conftest import SAMPLES


def test_the_bench_hears_where_speech_is_in_a_clip_without_labels() -> None:
    """The bench ended with a type error in each run: the network's graph for sequences takes single
    precision only, and the silence after a clip was added in double precision."""
    clip = np.zeros(SAMPLE_RATE, np.int16)
    said = load_audio(SAMPLES / "good-influence.flac")
    spans = speech_finder(load())(np.concatenate([clip, said, clip]))
    seconds = len(said) / SAMPLE_RATE
    assert 0.9 < spans[0][0] < 1.6
    assert seconds + 0.4 < spans[-1][1] < seconds + 1.2
