"""The decoder on real speech: drafts make it faster and change nothing, and a step stays short."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edged.errors import ModelError
from edged.models.loader import Models, load
from edged.models.store import default_models_dir
from edged.stt import beam, sampler
from edged.stt.commit import token_limit
from edged.stt.decoder import LONGEST_UPDATE, Decoder, Hypothesis
from edged.stt.moonshine.build_version import EMBEDDING
from edged.stt.moonshine.encoder import Encoder
from edged.stt.moonshine.graphs import FRAME_S, WIDTH, Embedding, Floats, each_tensor
from edged.stt.moonshine.vocabulary import BOS, EOS
from edged.stt.second_pass import encode
from edged.stt.token_tree import Choice, Likely, TokenTree

FAR = 1_000_000  # a horizon that no clip reaches


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


@pytest.fixture(scope="module")
def heard(models: Models, speech: Path) -> tuple[list[Floats], int]:
    """What the decoder attends to of a sentence, and the most tokens it may have."""
    samples: NDArray[np.float32] = soundfile.read(speech, dtype="float32")[0]
    states = encode(models.graphs, samples)
    cross = each_tensor(models.graphs.cross.run(None, {"h": states}))
    return cross, token_limit(len(states) * FRAME_S)


def decoder(models: Models, draft: list[int] | None = None) -> Decoder:
    made = Decoder(models.graphs, 200)
    made.hypothesis = Hypothesis(draft or [])
    return made


def test_a_right_draft_is_read_at_once_and_changes_nothing(
    models: Models, heard: tuple[list[Floats], int]
) -> None:
    alone = decoder(models)
    tokens = alone.update(*heard, None).tokens
    helped = decoder(models, tokens)
    assert helped.update(*heard, None).tokens == tokens
    assert helped.runs < alone.runs


def test_rivals_that_were_weighed_are_read_in_few_runs_the_next_time(
    models: Models, heard: tuple[list[Floats], int]
) -> None:
    twice = decoder(models)
    tokens = twice.update(*heard, None).tokens
    first = twice.runs
    assert twice.update(*heard, None).tokens == tokens
    assert twice.runs - first < first / 3


@pytest.mark.parametrize("most_loose", [0, 3])
def test_a_text_that_is_settled_on_the_way_is_the_same_and_is_locked_as_any_other(
    models: Models,
    heard: tuple[list[Floats], int],
    monkeypatch: pytest.MonkeyPatch,
    most_loose: int,
) -> None:
    """What a long search settles or forgets is found or read again by the next update."""
    monkeypatch.setattr(sampler, "BEAM_WIDTH", 1)
    tokens = decoder(models).update(*heard, None).tokens
    monkeypatch.setattr(beam, "MOST_LOOSE", most_loose)
    settled = decoder(models)
    for locked in (0, 4, 9, len(tokens)):
        settled.lock(locked)
        assert settled.update(*heard, None).tokens == tokens
        assert len(settled._tree.rows([BOS, *tokens])) >= locked
    settled.hypothesis.tokens[2] = 7  # as if the rows from there on were another text's
    unread = settled.hypothesis.tokens[: settled.locked]
    assert settled.update(*heard, None).tokens[: len(unread)] == unread
    assert len(settled._tree.rows([BOS, *unread])) >= len(unread)


def test_what_was_forgotten_is_read_again_against_the_audio_of_now(
    models: Models, speech: Path
) -> None:
    """Tokens that a long search had forgotten were read again before the update's audio was
    taken: from views of a cache whose rows had moved on."""
    samples: NDArray[np.float32] = soundfile.read(speech, dtype="float32")[0]
    encoder = Encoder(models.graphs, 400, 45)
    encoder.push(samples[:48_000])
    forgetful = Decoder(models.graphs, 100)
    forgetful.update(encoder.update(), 40, 100, False)
    forgetful.lock(6)
    forgetful._tree.settle([])
    encoder.push(samples[48_000:64_000])
    cross = [keys.copy() for keys in encoder.update()]
    fresh = Decoder(models.graphs, 100)
    fresh.hypothesis = replace(forgetful.hypothesis)
    fresh.lock(6)
    fresh.update(cross, 40, None)
    assert forgetful.update(encoder._cross.arrays(), 40, None).tokens == fresh.hypothesis.tokens
    kept = zip(forgetful._tree._cache.arrays(), fresh._tree._cache.arrays(), strict=True)
    for ours, theirs in kept:
        np.testing.assert_allclose(ours[:, :6], theirs[:, :6], atol=1e-4)


def test_drawn_text_has_no_rivals_that_could_agree(
    models: Models, heard: tuple[list[Floats], int]
) -> None:
    """It is said when two looks agree, as without rivals."""
    found = decoder(models).update(*heard, None)
    assert 0 < found.undisputed <= len(found.tokens)
    random = np.random.default_rng(1)
    drawn = Decoder(models.graphs, 200, temperature=0.5, random=random)
    assert drawn.update(*heard, None).undisputed == 0


class Everything:
    """Chooses all that it is shown, and keeps it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen: list[Likely] = []

    def __call__(self, likely: Likely, drafted: object) -> list[list[Choice]]:
        self.seen.append(likely)
        rows = zip(likely.tokens.tolist(), likely.p.tolist(), strict=True)
        return [list(map(Choice, tokens, p)) for tokens, p in rows]


def test_a_text_in_a_tree_is_read_as_if_it_stood_alone(
    models: Models, heard: tuple[list[Floats], int]
) -> None:
    """Siblings must not see each other, and each stands at its own place behind the trunk. (What is
    read in one run is rounded by one scale: hence not the same to the last digit, nor, where two
    frames get nearly as much attention, to the last frame.)"""
    text, other = decoder(models).update(*heard, None).tokens[:6], [100, 200, 300]

    alone = TokenTree(models.graphs, 50, Everything(100))
    alone.hear(heard[0])
    alone.read([(None, [BOS, *text])])
    beside = TokenTree(models.graphs, 50, Everything(100))
    beside.hear(heard[0])
    beside.read([(None, [BOS, *other]), (None, [BOS, *text[:2], *other])])
    beside.settle_on(_row(beside, [BOS, text[0]]))  # a trunk of two
    beside.read([(None, [*other]), (None, text[1:3]), (None, [text[1], *other])])
    beside.read([(_row(beside, text[1:3]), text[3:])])
    for n in (3, 5, 6):
        one = alone.node(_row(alone, [BOS, *text[:n]]))
        two = beside.node(_row(beside, text[1:n]))
        assert abs(one.heard - two.heard) <= 1
        assert one.position == two.position == n
        a, b = dict(one.choices), dict(two.choices)
        assert max(abs(a.get(token, 0) - b.get(token, 0)) for token in a | b) < 0.05


def _row(tree: TokenTree, tokens: list[int]) -> int:
    row = None
    for token in tokens:
        row = tree.child(row, token)
        assert row is not None
    assert row is not None
    return row


def test_a_wrong_draft_costs_an_update_no_more_than_its_bound_and_the_next_ones_mend_it(
    models: Models, heard: tuple[list[Floats], int]
) -> None:
    """On music and cross-talk, where every look differs from the one before, the whole draft was
    read again behind each single token: 17 runs, 90 ms, in a step of 80 ms."""
    tokens = decoder(models).update(*heard, None).tokens
    assert len(tokens) > LONGEST_UPDATE
    astray = decoder(models, [7] * 60)
    for update in range(1, 4):
        found = astray.update(*heard, FAR, last=False).tokens
        assert astray.runs <= update * LONGEST_UPDATE
    assert found == tokens


def test_a_decoder_that_is_let_go_gives_its_memory_back_at_once(models: Models) -> None:
    """Its tree led back to it, and every segment's keys and values (some MB) stayed until Python
    looked for cycles: 265 MB resident in place of 175."""
    made = decoder(models)
    tree = weakref.ref(made._tree._cache)
    gc.disable()
    try:
        del made
        assert tree() is None
    finally:
        gc.enable()


def test_probabilities_are_of_the_whole_vocabulary_though_it_is_looked_at_in_parts(
    models: Models, heard: tuple[list[Floats], int]
) -> None:
    everything = Everything(6_000)  # nearly what a part of the vocabulary has
    tree = TokenTree(models.graphs, 50, everything)
    tree.hear(heard[0])
    tree.read([(None, [BOS, *decoder(models).update(*heard, None).tokens])])
    for tokens, p, p_end in zip(*everything.seen[0], strict=True):
        assert len(set(tokens)) == len(tokens)
        assert (np.diff(p) <= 0).all()
        assert 0.98 < p.sum() <= 1 + 1e-4
        assert p_end == pytest.approx(p[tokens == EOS].sum(), rel=1e-4, abs=1e-6)


def test_rows_of_the_embedding_are_those_of_the_file(models: Models) -> None:
    path = default_models_dir() / models.name / "graphs" / EMBEDDING
    whole = np.fromfile(path, np.uint8).reshape(-1, WIDTH)
    tokens = [1, 32_767, 1, 6_005]
    assert np.array_equal(models.graphs.embedding[tokens], whole[tokens])


def test_an_embedding_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / EMBEDDING
    path.write_bytes(bytes(10 * WIDTH - 1))
    table = Embedding(path)
    assert table[[8]].shape == (1, WIDTH)
    with pytest.raises(ModelError, match=r"embedding\.bin is cut off"):
        table[[9]]
