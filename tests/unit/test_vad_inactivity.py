"""The turn model: its probabilities for any evidence, its features, its weights file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged import resources
from edged.errors import ModelError
from edged.vad.inactivity import FEATURES, Inactivity, Weights
from edged.vad.text_evidence import Evidence, TextEvidence

WEIGHTS = resources.models_data() / "inactivity.json"
probability = st.floats(0, 1)
seconds = st.floats(0, 1000)
evidence = st.builds(
    Evidence,
    probabilities=st.lists(probability, max_size=3).map(tuple),
    heard_s=seconds,
    silence_s=st.none() | st.just(0.0) | seconds,
    speech_s=seconds,
    p_complete=st.none() | probability,
    text=st.none() | st.builds(TextEvidence, probability, probability, st.booleans()),
)
hazards = st.lists(
    st.lists(st.floats(-50, 50), min_size=len(FEATURES), max_size=len(FEATURES)),
    min_size=3,
    max_size=3,
).map(np.array)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights.load(WEIGHTS)


def silent_step(
    heard_s: float,
    silence_s: float | None,
    p_complete: float | None = None,
    text: TextEvidence | None = None,
) -> Evidence:
    return Evidence((0.01, 0.01), heard_s, silence_s, 1.5, p_complete, text)


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(evidence, min_size=1, max_size=8), hazards=hazards)
def test_probabilities_never_rise_with_the_horizon_whatever_the_weights(
    steps: list[Evidence], hazards: np.ndarray
) -> None:
    model = Inactivity(Weights(hazards))
    for one in steps:
        a, b, c = model.push(one)
        assert 1 >= a >= b >= c >= 0


def test_before_there_is_evidence_the_probabilities_are_0(weights: Weights) -> None:
    model = Inactivity(weights)
    assert model.push(Evidence((), 0.0, None, 0.0)) == (0.0, 0.0, 0.0)
    assert model.push(silent_step(0.5, None)) == (0.0, 0.0, 0.0)


def test_while_somebody_speaks_inactivity_is_improbable(weights: Weights) -> None:
    model = Inactivity(weights)
    for step in range(50):
        p = model.push(Evidence((0.98, 0.99), 2 + step * 0.08, 0.0, step * 0.08))
    assert max(p) < 0.15


def test_the_end_is_likelier_after_a_complete_sentence_than_after_a_broken_one(
    weights: Weights,
) -> None:
    model = {True: Inactivity(weights), False: Inactivity(weights)}
    p = {True: 0.0, False: 0.0}
    for step in range(1, 10):
        for complete, one in model.items():
            text = TextEvidence.from_text("Turn it off." if complete else "Turn off the", 0.99, 0.9)
            heard = silent_step(3 + step * 0.08, step * 0.08, p_complete=float(complete), text=text)
            p[complete] = one.push(heard)[2]
    assert p[True] > p[False] + 0.2


def test_in_steady_silence_the_probabilities_do_not_jump(weights: Weights) -> None:
    model, before = Inactivity(weights), None
    for step in range(20):
        model.push(Evidence((0.97, 0.98), 1 + step * 0.08, 0.0, step * 0.08))
    for step in range(1, 125):
        now = np.array(model.push(silent_step(3 + step * 0.08, step * 0.08, p_complete=0.8)))
        if before is not None:
            assert np.abs(now - before).max() < 0.15, f"at {step * 0.08:.2f} s"
        before = now


def test_the_weights_file_tells_what_it_was_fitted_on(weights: Weights) -> None:
    assert weights.hazards.shape == (3, len(FEATURES))
    assert len(weights.fitted_on) > 5
    assert len(weights.silence_only_2s) > 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["hazards"].pop(),
        lambda content: content["hazards"][0].pop("turn"),
        lambda content: content["hazards"][0].update(unknown=1.0),
        lambda content: content["hazards"][1].update(turn=float("nan")),
        lambda content: content.pop("hazards"),
    ],
)
def test_unusable_weights_are_refused_with_the_name_of_the_file(
    tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    content = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    damage(content)
    path = tmp_path / "inactivity.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r"inactivity\.json"):
        Weights.load(path)
