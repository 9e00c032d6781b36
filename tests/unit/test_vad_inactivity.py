"""The turn model's probabilities, whatever the evidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged import resources
from edged.errors import ModelError
from edged.vad.inactivity import FEATURES, Features, Inactivity, Weights
from edged.vad.text_evidence import Evidence, TextEvidence, belief_of

WEIGHTS = resources.models_data() / "inactivity.json"
probability = st.floats(0, 1)
seconds = st.floats(0, 1000)
evidence = st.builds(
    Evidence,
    probabilities=st.lists(probability, max_size=3).map(tuple),
    heard_s=seconds,
    silence_s=st.none() | st.just(0.0) | seconds,
    speech_s=seconds,
    complete=st.none() | probability,
    belief=st.none() | st.builds(TextEvidence, probability, probability, st.booleans()),
)
hazards = st.lists(
    st.lists(st.floats(-50, 50), min_size=len(FEATURES), max_size=len(FEATURES)),
    min_size=3,
    max_size=3,
).map(np.array)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights.load(WEIGHTS)


def quiet(heard_s: float, silence_s: float | None, **more: object) -> Evidence:
    return Evidence((0.01, 0.01), heard_s, silence_s, 1.5, **more)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(evidence, min_size=1, max_size=8), hazards=hazards)
def test_probabilities_never_rise_with_the_horizon_whatever_the_weights(
    steps: list[Evidence], hazards: np.ndarray
) -> None:
    model = Inactivity(Weights(hazards))
    for one in steps:
        a, b, c = model.push(one)
        assert 1 >= a >= b >= c >= 0


def test_before_there_is_evidence_there_is_no_opinion(weights: Weights) -> None:
    model = Inactivity(weights)
    assert model.push(Evidence((), 0.0, None, 0.0)) == (0.0, 0.0, 0.0)
    assert model.push(quiet(0.5, None)) == (0.0, 0.0, 0.0)


def test_while_somebody_speaks_inactivity_is_improbable(weights: Weights) -> None:
    model = Inactivity(weights)
    for step in range(50):
        p = model.push(Evidence((0.98, 0.99), 2 + step * 0.08, 0.0, step * 0.08))
    assert max(p) < 0.15


def test_a_pause_after_a_complete_sentence_gets_likelier_the_end_than_after_a_broken_one(
    weights: Weights,
) -> None:
    model = {True: Inactivity(weights), False: Inactivity(weights)}
    p = {True: 0.0, False: 0.0}
    for step in range(1, 10):
        for complete, one in model.items():
            said = belief_of("Turn it off." if complete else "Turn off the", 0.99, 0.9)
            heard = quiet(3 + step * 0.08, step * 0.08, complete=float(complete), belief=said)
            p[complete] = one.push(heard)[2]
    assert p[True] > p[False] + 0.2


def test_in_steady_silence_nothing_jumps(weights: Weights) -> None:
    model, before = Inactivity(weights), None
    for step in range(20):
        model.push(Evidence((0.97, 0.98), 1 + step * 0.08, 0.0, step * 0.08))
    for step in range(1, 125):
        now = np.array(model.push(quiet(3 + step * 0.08, step * 0.08, complete=0.8)))
        if before is not None:
            assert np.abs(now - before).max() < 0.15, f"at {step * 0.08:.2f} s"
        before = now


def test_the_weights_file_says_what_it_was_fitted_on(weights: Weights) -> None:
    assert weights.hazards.shape == (3, len(FEATURES))
    assert len(weights.fitted_on) > 5
    assert len(weights.silence_only_2s) > 5


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content["hazards"].pop(),
        lambda content: content["hazards"][0].pop("turn"),
        lambda content: content["hazards"][0].update(unheard_of=1.0),
        lambda content: content["hazards"][1].update(turn=float("nan")),
        lambda content: content.pop("hazards"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    content = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    harm(content)
    path = tmp_path / "inactivity.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r"inactivity\.json"):
        Weights.load(path)


@pytest.mark.parametrize(
    ("text", "final", "dangling"),
    [
        ("Yes.", 0.8, False),
        ('She said "no."', 0.8, False),
        ("I would like a coffee and", 0.0, True),
        ("turn on the light", 0.0, False),
    ],
)
def test_a_phrase_that_calls_for_another_word_is_known(
    text: str, final: float, dangling: bool
) -> None:
    assert belief_of(text, 0.7, 0.8) == TextEvidence(0.7, final, dangling)


def test_text_that_is_not_there_or_not_read_to_its_end_is_no_evidence() -> None:
    assert belief_of("", 0.9, 0.9) is None
    assert belief_of(" ... ", 0.9, 0.9) is None
    assert belief_of("yes", None, 0.9) is None


def pace_after(*pauses_s: float) -> float:
    """The feature after pauses of these lengths, with a second of speech before each."""
    features, now = Features(), 0.0
    for pause_s in (*pauses_s, 0.0):
        for step in range(12 + round(pause_s / 0.08)):
            now += 0.08
            silence = max(0.0, (step - 11) * 0.08)
            x = features.push(Evidence((0.9 if silence == 0 else 0.1,), now, silence, 1.0))
    return float(x[FEATURES.index("pace")])


def test_the_pace_of_a_stream_is_how_many_of_its_pauses_were_short() -> None:
    """In a meeting somebody always goes on: the model gave silence there the odds of a kitchen."""
    assert pace_after() == 0.0, "nothing is known of a stream at first"
    assert pace_after(0.16, 0.16) == 0.0, "words have gaps, too"
    assert pace_after(1.0, 1.0, 1.0) > pace_after(1.0) > 0
    assert pace_after(4.0, 4.0, 4.0) < pace_after(4.0) < 0
    assert pace_after(4.0, 4.0, 1.0, 1.0) > 0, "the last pauses count more"


def test_words_settle_the_matter_by_a_sure_full_stop_or_by_calling_for_more() -> None:
    assert TextEvidence(0.9, 0.95, False).settles(3.0)
    assert TextEvidence(0.1, 0.0, True).settles(3.0)
    assert not TextEvidence(0.9, 0.85, False).settles(3.0), "the mark is likely, no more"
    assert not TextEvidence(0.9, 0.95, False).settles(0.5), "an answer is closed soon if two agree"
