"""The decoder on real speech: drafts change its cost and nothing else, and updates stay short."""

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
from edged.stt import beam
from edged.stt.decoder import MAX_UPDATE_RUNS, DecodedText, Decoder
from edged.stt.embedding import Embedding
from edged.stt.family import EncoderOutput, SpeechModel, TopTokens
from edged.stt.moonshine.build_version import EMBEDDING
from edged.stt.moonshine.decoder_step import TreeDecoder
from edged.stt.moonshine.dimensions import BOS, EOS, TINY
from edged.stt.moonshine.model import Moonshine
from edged.stt.token_tree import Choice, TokenTree

FAR = 1_000_000  # a horizon that no clip reaches


@pytest.fixture(scope="module")
def models() -> Models:
    return load()


@pytest.fixture(scope="module")
def model(models: Models) -> Moonshine:
    assert isinstance(models.recogniser, Moonshine)
    return models.recogniser


@pytest.fixture(scope="module")
def sentence(speech: Path) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = soundfile.read(speech, dtype="float32")[0]
    return samples


@pytest.fixture(scope="module")
def audio(model: Moonshine, sentence: NDArray[np.float32]) -> tuple[EncoderOutput, int]:
    """What the decoder attends to of a sentence, and the most tokens it may have."""
    encoded = model.encode(sentence)
    assert encoded is not None
    return encoded, model.languages["en"].max_tokens(encoded.frames * model.timing.frame_s)


def decoder(model: SpeechModel, draft: list[int] | None = None, beam_width: int = 3) -> Decoder:
    made = Decoder(model, "en", 200, beam_width=beam_width)
    made.decoded = DecodedText(draft or [])
    return made


def test_a_right_draft_is_read_at_once_and_changes_nothing(
    model: Moonshine, audio: tuple[EncoderOutput, int]
) -> None:
    alone = decoder(model)
    tokens = alone.update(*audio, None).tokens
    helped = decoder(model, tokens)
    assert helped.update(*audio, None).tokens == tokens
    assert helped.runs < alone.runs


def test_alternatives_of_the_last_update_are_read_in_few_runs_the_next_time(
    model: Moonshine, audio: tuple[EncoderOutput, int]
) -> None:
    twice = decoder(model)
    tokens = twice.update(*audio, None).tokens
    first = twice.runs
    assert twice.update(*audio, None).tokens == tokens
    assert twice.runs - first < first / 3


@pytest.mark.parametrize("max_draft_rows", [0, 3])
def test_a_text_whose_beginning_is_committed_during_a_search_is_the_same(
    model: Moonshine,
    audio: tuple[EncoderOutput, int],
    monkeypatch: pytest.MonkeyPatch,
    max_draft_rows: int,
) -> None:
    """What a long search commits or forgets is found, or read again, by the next update."""
    tokens = decoder(model, beam_width=1).update(*audio, None).tokens
    monkeypatch.setattr(beam, "MAX_DRAFT_ROWS", max_draft_rows)
    limited = decoder(model, beam_width=1)
    for committed in (0, 4, 9, len(tokens)):
        limited.commit(committed)
        assert limited.update(*audio, None).tokens == tokens
        assert len(limited.tree.rows_of([BOS, *tokens])) >= committed
    limited.decoded.tokens[2] = 7  # as if the rows from there on were another text's
    unread = limited.decoded.tokens[: limited.committed]
    assert limited.update(*audio, None).tokens[: len(unread)] == unread
    assert len(limited.tree.rows_of([BOS, *unread])) >= len(unread)


def test_forgotten_tokens_are_read_again_against_the_newest_audio(
    model: Moonshine, sentence: NDArray[np.float32]
) -> None:
    """Tokens that a long search had forgotten were read again before the update's audio was
    taken: from views of a cache whose rows had moved on."""
    encoder = model.streaming_encoder(model.tuning(10), 400)

    def encoded() -> EncoderOutput:
        output = encoder.update()
        assert output is not None
        return output

    encoder.push(sentence[:48_000])
    forgetful = Decoder(model, "en", 100)
    forgetful.update(encoded(), 40, 100, False)
    forgetful.commit(6)
    forgetful.tree.commit([])
    encoder.push(sentence[48_000:64_000])
    newest = encoded()
    fresh = Decoder(model, "en", 100)
    fresh.decoded = replace(forgetful.decoded)
    fresh.commit(6)
    copied = EncoderOutput(newest.frames, [array.copy() for array in newest.state])
    fresh.update(copied, 40, None)
    assert forgetful.update(newest, 40, None).tokens == fresh.decoded.tokens
    for ours, theirs in zip(_keys_and_values(forgetful), _keys_and_values(fresh), strict=True):
        np.testing.assert_allclose(ours[:, :6], theirs[:, :6], atol=1e-4)


def _keys_and_values(made: Decoder) -> list[NDArray[np.float32]]:
    assert isinstance(made.tree.step, TreeDecoder)
    return made.tree.step.cache.arrays()


def test_sampled_text_has_no_alternatives_that_could_share_a_prefix(
    model: Moonshine, audio: tuple[EncoderOutput, int]
) -> None:
    """Its words are committed when two updates agree, as without a beam."""
    found = decoder(model).update(*audio, None)
    assert 0 < found.shared_prefix <= len(found.tokens)
    random = np.random.default_rng(1)
    sampled = Decoder(model, "en", 200, temperature=0.5, random=random)
    assert sampled.update(*audio, None).shared_prefix == 0


class Everything:
    """Chooses all that it is shown, and keeps it."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        self.seen: list[TopTokens] = []

    def __call__(self, top: TopTokens, drafted: object) -> list[list[Choice]]:
        self.seen.append(top)
        rows = zip(top.tokens.tolist(), top.p.tolist(), strict=True)
        return [list(map(Choice, tokens, p)) for tokens, p in rows]


def tree_over(model: Moonshine, audio: EncoderOutput, choose: Everything) -> TokenTree:
    tree = TokenTree(model.decoder_step(50), choose)
    tree.attend_to(audio)
    return tree


def test_a_text_in_a_tree_is_read_as_if_it_stood_alone(
    model: Moonshine, audio: tuple[EncoderOutput, int]
) -> None:
    """Siblings must not see each other, and each has its own position behind the prefix. (What is
    read in one run is rounded by one scale: hence not the same to the last digit, nor, where two
    frames get nearly as much attention, to the last frame.)"""
    text, other = decoder(model).update(*audio, None).tokens[:6], [100, 200, 300]

    alone = tree_over(model, audio[0], Everything(100))
    alone.read([(None, [BOS, *text])])
    shared = tree_over(model, audio[0], Everything(100))
    shared.read([(None, [BOS, *other]), (None, [BOS, *text[:2], *other])])
    shared.commit_to(_row(shared, [BOS, text[0]]))  # a prefix of two
    shared.read([(None, [*other]), (None, text[1:3]), (None, [text[1], *other])])
    shared.read([(_row(shared, text[1:3]), text[3:])])
    for n in (3, 5, 6):
        one = alone.node(_row(alone, [BOS, *text[:n]]))
        two = shared.node(_row(shared, text[1:n]))
        assert abs(one.frame - two.frame) <= 1
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


def test_a_wrong_draft_costs_an_update_no_more_than_its_bound_and_the_next_ones_correct_it(
    model: Moonshine, audio: tuple[EncoderOutput, int]
) -> None:
    """On music and cross-talk, where every update differs from the one before, the whole draft was
    read again behind each single token: 17 runs, 90 ms, in a step of 80 ms."""
    tokens = decoder(model).update(*audio, None).tokens
    assert len(tokens) > MAX_UPDATE_RUNS
    astray = decoder(model, [7] * 60)
    for update in range(1, 4):
        found = astray.update(*audio, FAR, last=False).tokens
        assert astray.runs <= update * MAX_UPDATE_RUNS
    assert found == tokens


def test_a_decoder_that_is_no_longer_used_frees_its_memory_at_once(model: Moonshine) -> None:
    """Its tree led back to it, and every segment's keys and values (some MB) stayed until Python
    looked for cycles: 265 MB resident in place of 175."""
    made = decoder(model)
    step = weakref.ref(made.tree.step)
    gc.disable()
    try:
        del made
        assert step() is None
    finally:
        gc.enable()


def test_probabilities_are_of_the_whole_vocabulary_though_it_is_searched_in_parts(
    model: Moonshine, audio: tuple[EncoderOutput, int]
) -> None:
    everything = Everything(6_000)  # nearly what a part of the vocabulary has
    tree = tree_over(model, audio[0], everything)
    tree.read([(None, [BOS, *decoder(model).update(*audio, None).tokens])])
    top = everything.seen[0]
    for tokens, p, p_eos in zip(top.tokens, top.p, top.p_eos, strict=True):
        assert len(set(tokens)) == len(tokens)
        assert (np.diff(p) <= 0).all()
        assert 0.98 < p.sum() <= 1 + 1e-4
        assert p_eos == pytest.approx(p[tokens == EOS].sum(), rel=1e-4, abs=1e-6)


def test_rows_of_the_embedding_are_those_of_the_file(models: Models, model: Moonshine) -> None:
    path = default_models_dir() / models.name / "graphs" / EMBEDDING
    whole = np.fromfile(path, np.uint8).reshape(-1, TINY.width)
    tokens = [1, 32_767, 1, 6_005]
    assert np.array_equal(model.graphs.embedding[tokens], whole[tokens])


def test_a_truncated_embedding_is_named(tmp_path: Path) -> None:
    path = tmp_path / EMBEDDING
    path.write_bytes(bytes(10 * TINY.width - 1))
    table = Embedding(path, TINY.width)
    assert table[[8]].shape == (1, TINY.width)
    with pytest.raises(ModelError, match=r"embedding\.bin is truncated"):
        table[[9]]
