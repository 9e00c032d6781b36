"""Whisper with few random weights: the graphs do what the float model does, streamed or whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edged.errors import ModelError
from edged.export import whisper as exporter
from edged.options import Options
from edged.stt.family import EncoderOutput
from edged.stt.keyterms import TERM_TOP_K
from edged.stt.second_pass import transcribe
from edged.stt.segment import Segment
from edged.stt.whisper.build_version import GRAPH_FILES
from edged.stt.whisper.ctranslate2 import read_variables
from edged.stt.whisper.decoder_step import TreeDecoder
from edged.stt.whisper.encoder import Encoder
from edged.stt.whisper.frontend import Frontend
from edged.stt.whisper.model import Whisper
from edged.stt.whisper.parity import check
from edged.stt.whisper.reference import Reference, whole_log_mel
from tests.support import synthetic_whisper

FAR = 10_000
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's files, and the built graphs in `graphs`."""
    made = tmp_path_factory.mktemp("whisper")
    synthetic_whisper.write(made)
    exporter.build(made, made / "graphs", None, "many")
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Whisper:
    return Whisper.load(folder, folder / "graphs", 1)


def tones(seconds: float) -> NDArray[np.float32]:
    """Tones that change four times a second, over a little noise."""
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = 200 + 90 * np.floor(4 * t) % 700
    noise = 0.01 * np.random.default_rng(1).standard_normal(len(t))
    return (0.2 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def audio(model: Whisper) -> EncoderOutput:
    encoded = model.encode(tones(3))
    assert encoded is not None
    return encoded


def test_the_builder_writes_every_file_of_the_family(folder: Path) -> None:
    assert {path.name for path in (folder / "graphs").iterdir()} == set(GRAPH_FILES)


# ---- features -----------------------------------------------------------------------------------
@pytest.mark.parametrize("piece", [160, 1000, 1280, 50_000])
def test_features_of_pieces_are_those_of_the_whole_clip(piece: int) -> None:
    """The loudest moment comes first here, so that the maximum so far is the one of the clip."""
    samples = tones(2.5)
    samples[:4000] *= 3
    expected = whole_log_mel(np.pad(samples, (0, 8000)))
    frontend = Frontend(FAR)
    for start in range(0, len(samples), piece):
        frontend.push(samples[start : start + piece])
        frames = frontend.frames
        if frames > 20:
            got = frontend.mel(frames - 20, frames)
            np.testing.assert_allclose(
                got.T, expected[:, 2 * frames - 42 : 2 * frames + 1], atol=1e-3
            )
    frames = frontend.last_frames
    assert frames == len(samples) // 320
    got = frontend.mel(frames - 20, frames)
    np.testing.assert_allclose(got.T, expected[:, 2 * frames - 42 : 2 * frames + 1], atol=1e-3)


def test_audio_too_short_for_a_frame_gives_none(model: Whisper) -> None:
    assert Frontend(FAR).frames == 0
    for samples in (0, 100, 200, 201, 319):
        assert model.encode(np.zeros(samples, np.float32)) is None
        assert transcribe(model, np.zeros(samples, np.float32)).words == []


# ---- encoder ------------------------------------------------------------------------------------
def states(model: Whisper, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    encoder = Encoder(model.graphs, FAR, FAR)
    encoder.push(samples)
    return encoder._encode(0, encoder._frontend.last_frames, 0)[0]


def test_the_encoder_gives_the_float_models_states(folder: Path, model: Whisper) -> None:
    """Nearly the whole window is audio, so that padding contributes next to nothing."""
    samples = tones(29.5)
    expected, _ = Reference.load(folder / "model.bin").window(samples)
    got = states(model, samples)
    difference = np.sqrt(np.square(got - expected[: len(got)]).mean() / np.square(expected).mean())
    assert difference < 0.07  # 8 bits of 48 channels


def test_padded_frames_stand_for_the_rest_of_the_window(folder: Path, model: Whisper) -> None:
    samples = tones(4)
    expected, _ = Reference.load(folder / "model.bin").window(samples)
    got = states(model, samples)
    error = np.square(got - expected[: len(got)]).mean()
    alone = model.graphs.padding.kv[:, :, :0]
    without = Whisper(
        type(model.graphs)(
            model.graphs.features,
            model.graphs.encoder,
            model.graphs.cross,
            model.graphs.decoder,
            model.graphs.embedding,
            type(model.graphs.padding)(alone, model.graphs.padding.cross),
            model.graphs.dimensions,
        ),
        model.vocabulary,
        model.languages,
    )
    assert error < 0.3 * np.square(states(without, samples) - expected[: len(got)]).mean()


def test_streamed_frames_with_all_frames_revised_are_those_of_the_whole_clip(
    model: Whisper,
) -> None:
    samples = tones(3)
    samples[:4000] *= 3
    whole = model.encode(samples)
    encoder = Encoder(model.graphs, FAR, FAR)
    streamed = None
    for start in range(0, len(samples), 8000):
        encoder.push(samples[start : start + 8000])
        streamed = encoder.update(last=start + 8000 >= len(samples))
    assert whole is not None
    assert streamed is not None
    assert streamed.frames == whole.frames == 150
    for one, other in zip(streamed.state, whole.state, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_final_frames_keep_their_keys_and_are_not_encoded_again(model: Whisper) -> None:
    samples = tones(4)
    encoder = Encoder(model.graphs, FAR, revised_frames=40)
    encoder.push(samples[:32_000])
    first = encoder.update()
    assert first is not None
    final = first.frames - 40
    before = [array[:, :final].copy() for array in first.state]
    assert encoder._past.length == final
    encoder.push(samples[32_000:])
    second = encoder.update(last=True)
    assert second is not None
    for one, other in zip(before, second.state, strict=True):
        np.testing.assert_array_equal(one, other[:, :final])


def test_a_segment_of_more_than_30_s_is_cut_there(model: Whisper) -> None:
    encoded = model.encode(tones(31))
    assert encoded is not None
    assert encoded.frames == 1500


# ---- decoder ------------------------------------------------------------------------------------
def step(model: Whisper, audio: EncoderOutput) -> TreeDecoder:
    made = model.decoder_step(60)
    assert isinstance(made, TreeDecoder)
    made.attend_to(audio)
    return made


def test_the_decoder_gives_the_float_models_probabilities(folder: Path, model: Whisper) -> None:
    reference = Reference.load(folder / "model.bin")
    samples = tones(29.5)
    whole, _ = reference.window(samples)
    encoded = model.encode(samples)
    assert encoded is not None
    prompt = model.prompt("de")
    text = [30, 45, 260]
    layers = np.split(reference.cross(whole), synthetic_whisper.LAYERS, -1)
    cross = [reference._split(layer, 2) for layer in layers]
    logits, _ = reference.step([*prompt, *text], [], cross)
    allowed = [
        t for t in range(model.vocabulary.eos + 1) if t != synthetic_whisper.pieces().index("(")
    ]
    log_p = logits[allowed] - np.log(np.exp(logits[allowed]).sum())
    decoder = step(model, encoded)
    rows = range(len(prompt) + 3)
    top = decoder.read([*prompt, *text], [range(n + 1) for n in rows], 0, 16)
    expected = dict(zip(allowed, log_p, strict=True))
    got = {int(t): float(np.log(p)) for t, p in zip(top.tokens[-1], top.p[-1], strict=True)}
    assert max(abs(expected[t] - p) for t, p in got.items()) < 0.6
    assert np.log(top.p_eos[-1]) == pytest.approx(expected[model.vocabulary.eos], abs=0.6)


def test_a_tree_is_read_as_its_branches_would_be_one_by_one(
    model: Whisper, audio: EncoderOutput
) -> None:
    prompt = model.prompt("en")
    decoder = step(model, audio)
    decoder.read(prompt, [range(n + 1) for n in range(4)], 0, 4)
    tree = decoder.read([20, 30, 40], [[4], [4, 5], [4, 6]], 4, 4)
    for last, row in ((30, 1), (40, 2)):
        alone = step(model, audio)
        alone.read(prompt, [range(n + 1) for n in range(4)], 0, 4)
        found = alone.read([20, last], [[4], [4, 5]], 4, 4)
        np.testing.assert_allclose(found.p[1], tree.p[row], rtol=0.15)
        assert found.tokens[1][0] == tree.tokens[row][0]


def test_a_text_does_not_begin_with_a_blank(model: Whisper, audio: EncoderOutput) -> None:
    """The blank is the candidate that is left out behind the prompt, wherever it stands."""
    everything = len(synthetic_whisper.pieces())
    prompt = model.prompt("en")
    top = step(model, audio).read(prompt, [range(n + 1) for n in range(4)], 0, 40)
    assert top.tokens.shape == (4, 40)
    assert model.vocabulary.blank not in top.tokens[3]
    assert all(token < everything for token in top.tokens.ravel())


def test_a_score_is_the_sum_of_the_probabilities_that_reading_gives(
    model: Whisper, audio: EncoderOutput
) -> None:
    prompt, text = model.prompt("en"), [20, 31, 42]
    decoder = step(model, audio)
    top = decoder.read([*prompt, *text], [range(n + 1) for n in range(7)], 0, 268)
    p = [
        top.p[row][list(top.tokens[row]).index(token)]
        for row, token in zip(range(3, 7), [*text, model.vocabulary.eos], strict=True)
    ]
    assert decoder.score(prompt, text) == pytest.approx(float(np.log(p).sum()), abs=0.3)


def test_languages_come_with_their_probabilities_the_most_probable_first(
    model: Whisper, audio: EncoderOutput
) -> None:
    found = model.detect_language(audio)
    assert found is not None
    assert set(found) == set(synthetic_whisper.LANGUAGES)
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_prompt_names_the_language_and_an_unknown_one_is_refused(model: Whisper) -> None:
    assert model.prompt("de")[1] == model.vocabulary.languages["de"]
    assert model.prompt("fr")[1] != model.prompt("de")[1]
    with pytest.raises(KeyError):
        model.prompt("xx")


# ---- the recogniser -----------------------------------------------------------------------------
def test_a_segment_is_decoded_as_it_grows_and_key_terms_have_their_candidates(
    model: Whisper,
) -> None:
    options = Options(keyterms=("Ecobee",))
    segment = Segment(model, options, model.tuning(10), np.random.default_rng(0), Counter[str]())
    samples = tones(4)
    for start in range(0, len(samples), 8000):
        segment.push(samples[start : start + 8000])
        segment.update()
    segment.update(last=True)
    assert segment.runs > 0
    assert all(0 <= frame < 200 for frame in segment.decoded.frames)
    assert segment._decoder.tree._choose.top_k == TERM_TOP_K


def test_the_whole_model_passes_its_own_check(folder: Path) -> None:
    result = check(folder, folder / "graphs", tones(5), 1)
    assert "encoder states differ by" in result.message


# ---- damaged files ------------------------------------------------------------------------------
def test_a_truncated_or_foreign_model_bin_is_named(folder: Path, tmp_path: Path) -> None:
    data = (folder / "model.bin").read_bytes()
    path = tmp_path / "model.bin"
    for wrong in (data[: len(data) // 2], data[:50], b"\1\0\0\0" + data[4:], bytes(200)):
        path.write_bytes(wrong)
        with pytest.raises(ModelError, match=r"model\.bin is not a model\.bin of CTranslate2"):
            read_variables(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_variables(tmp_path / "none")


def test_missing_constants_are_named(folder: Path, tmp_path: Path) -> None:
    for name in GRAPH_FILES:
        if name != "padding.npy":
            (tmp_path / name).symlink_to(folder / "graphs" / name)
    with pytest.raises(ModelError, match=r"padding\.npy cannot be read"):
        Whisper.load(folder, tmp_path, 1)
