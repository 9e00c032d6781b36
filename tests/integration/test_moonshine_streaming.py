"""Moonshine's streaming models: what is streamed is the whole clip's, with random weights."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.audio.sample_history import SampleHistory
from edged.errors import ModelError
from edged.export import moonshine_streaming as exporter
from edged.export.graph_surgery import Surgery
from edged.options import Options
from edged.ortsession import open_session
from edged.stt.decoder import Decoder
from edged.stt.family import RATE, EncoderOutput, Floats
from edged.stt.moonshine_streaming import parity
from edged.stt.moonshine_streaming.build_version import DECODER, ENCODER
from edged.stt.moonshine_streaming.graphs import form
from edged.stt.moonshine_streaming.model import MoonshineStreaming
from edged.stt.moonshine_streaming.specification import CONFIG, read_config
from edged.stt.recogniser import Recogniser
from edged.stt.second_pass import transcribe
from tests.support.streaming_models import TOYS, write_model

SECONDS = 4.0
FORMS = ("rewired", "as published")


def noise(seconds: float, seed: int = 3) -> Floats:
    """Something that rises and falls like speech."""
    n = int(seconds * RATE)
    swell = 1 + np.sin(np.arange(n) / 3000)
    samples: Floats = np.random.default_rng(seed).standard_normal(n, np.float32)
    return 0.1 * samples * swell.astype(np.float32)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Folders of upstream's files by (size, form of the built graphs, which are in `graphs`)."""
    found = {}
    for size, shape in TOYS.items():
        folder = tmp_path_factory.mktemp(size)
        write_model(folder, shape, single=size == "small")
        for name in FORMS:
            exporter.build(folder, folder / name, None, "en", rewire=name == "rewired")
            found[size, name] = folder
    return found


Models = dict[tuple[str, str], MoonshineStreaming]


@pytest.fixture(scope="session")
def models(folders: dict[tuple[str, str], Path]) -> Models:
    return {
        (size, name): MoonshineStreaming.load(folder, folder / name, "en", 1)
        for (size, name), folder in folders.items()
    }


def whole_clip(folder: Path, samples: Floats) -> tuple[Floats, Floats]:
    """Keys and values from upstream's graphs, each run once."""
    sizes = read_config(folder / CONFIG)
    theirs = parity.run_upstream(folder, sizes, samples)
    return theirs.k, theirs.v


def streamed(model: MoonshineStreaming, samples: Floats, pieces: Sequence[int]) -> EncoderOutput:
    """The encoder's last output, with an update after each piece. The pieces are repeated."""
    encoder = model.streaming_encoder(model.tuning(10), 2000)
    start, n, audio = 0, 0, None
    while start < len(samples):
        encoder.push(samples[start : start + pieces[n % len(pieces)]])
        start, n = start + pieces[n % len(pieces)], n + 1
        audio = encoder.update(last=start >= len(samples))
    assert audio is not None
    return audio


def gap(audio: EncoderOutput, theirs: tuple[Floats, Floats]) -> float:
    """The largest difference of keys and values."""
    ours = [np.concatenate([a.ravel() for a in audio.state[at::2]]) for at in (0, 1)]
    return max(
        float(np.abs(one - other.ravel()).max()) for one, other in zip(ours, theirs, strict=True)
    )


def test_both_forms_are_what_they_are_called(models: Models) -> None:
    for (_, name), model in models.items():
        rewired = name == "rewired"
        assert (model.graphs.cached_encoder, model.graphs.reads_trees) == (rewired, rewired)
    assert "as it was published" in form(models["tiny", "as published"].graphs.decoder)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", TOYS)
@pytest.mark.parametrize(
    "pieces", [(1,), (80, 7), (639, 641), (1280,), (1920,), (5000, 100, 16000), (64000,)]
)
def test_streamed_features_are_those_of_the_whole_clip(
    folders: dict[tuple[str, str], Path],
    models: Models,
    size: str,
    name: str,
    pieces: tuple[int, ...],
) -> None:
    seconds = 0.2 if pieces == (1,) else SECONDS
    samples = noise(seconds)[: int(seconds * RATE) // 640 * 640]
    audio = streamed(models[size, name], samples, pieces)
    assert audio.frames == len(samples) // 320
    assert gap(audio, whole_clip(folders[size, name], samples)) < 1e-4


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.integers(1, 9000), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_any_pieces_give_the_same_features(
    folders: dict[tuple[str, str], Path], models: Models, pieces: list[int], seed: int
) -> None:
    samples = noise(1.2, seed)[: int(1.2 * RATE) // 640 * 640]
    pieces = [*pieces, 400]
    audio = streamed(models["small", "rewired"], samples, pieces)
    assert gap(audio, whole_clip(folders["small", "rewired"], samples)) < 1e-4


def test_a_frame_is_given_out_once_it_is_final_and_never_changes(models: Models) -> None:
    model, samples = models["tiny", "rewired"], noise(2)
    encoder = model.streaming_encoder(model.tuning(10), 200)
    before: list[Floats] = []
    for start in range(0, len(samples), 1280):
        encoder.push(samples[start : start + 1280])
        audio = encoder.update()
        heard = (start + 1280) // 320
        assert encoder.frames == heard
        assert (audio.frames if audio else 0) == max(0, heard - 16)
        for old, new in zip(before, audio.state if audio else (), strict=False):
            assert np.array_equal(old, new[:, : old.shape[1]])
        before = [array.copy() for array in audio.state] if audio else []


def test_audio_that_ends_within_a_piece_is_padded(models: Models) -> None:
    model, samples = models["tiny", "rewired"], noise(1)[:15_000]
    padded = np.pad(samples, (0, -len(samples) % 640))
    short, long = model.encode(samples), model.encode(padded)
    assert short is not None
    assert long is not None
    assert short.frames == long.frames == len(padded) // 320
    assert all(np.array_equal(a, b) for a, b in zip(short.state, long.state, strict=True))
    assert model.encode(np.empty(0, np.float32)) is None


def test_both_forms_give_the_same_features_and_tokens(models: Models) -> None:
    samples = noise(SECONDS)
    for size in TOYS:
        one, other = (transcribe(models[size, name], samples) for name in FORMS)
        assert [w.text for w in one.words] == [w.text for w in other.words]
        assert [w.start_s for w in one.words] == [w.start_s for w in other.words]
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


# ---- decoder ------------------------------------------------------------------------------------
def upstream_p(model: MoonshineStreaming, folder: Path, text: list[int], audio: Floats) -> Floats:
    """Probabilities behind `text` from upstream's decoder, all tokens read at once."""
    sizes = model.graphs.sizes
    k, v = whole_clip(folder, audio)
    empty = np.zeros((sizes.depth, 1, sizes.heads, 0, sizes.head_dim), np.float32)
    feed = {"token": np.array([text]), "k_self": empty, "v_self": empty}
    decoder = open_session(folder / "decoder_kv.ort", 1)
    feed |= {"out_k_cross": k, "out_v_cross": v}
    logits = decoder.run(["logits"], feed)[0][0, -1].astype(np.float64)
    allowed = model.vocabulary.transcript_tokens()
    shares = np.zeros_like(logits)
    shares[allowed] = np.exp(logits[allowed] - logits[allowed].max())
    p: Floats = (shares / shares.sum()).astype(np.float32)
    return p


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", TOYS)
def test_a_tree_read_in_parts_gives_what_each_branch_gives_alone(
    folders: dict[tuple[str, str], Path], models: Models, size: str, name: str
) -> None:
    """The tree: 1 5 6 7, with 6 8 9 and 5 10 beside it; rows are forgotten in between."""
    model, folder, samples = models[size, name], folders[size, name], noise(1.2)[:19_200]
    audio = model.encode(samples)
    assert audio is not None
    step = model.decoder_step(64)
    step.attend_to(audio)
    step.read([1, 400, 401], [[0], [0, 1], [0, 1, 2]], 0, 5)
    step.keep([0, 1])
    top = step.read(
        [500, 501, 502, 503, 504, 505],
        [[2], [2, 3], [2, 3, 4], [2, 3, 5], [2, 3, 5, 6], [7]],
        2,
        5,
    )
    texts = [[500], [500, 501], [500, 501, 502], [500, 501, 503], [500, 501, 503, 504], [505]]
    for at, behind in enumerate(texts):
        p = upstream_p(model, folder, [1, 400, *behind], samples)
        assert top.p[at] == pytest.approx(np.sort(p)[::-1][:5], abs=1e-4)
        assert top.p[at] == pytest.approx(p[top.tokens[at]], abs=1e-4)
        assert top.p_eos[at] == pytest.approx(p[2], abs=1e-4)
    step.keep([0, 1, 2, 3, 5])  # 1 400 500 501 503
    assert step.rows == 5
    again = step.read([504], [[5]], 5, 5)
    assert again.p[0] == pytest.approx(top.p[4], abs=1e-4)
    assert again.frames[0] == top.frames[4]


@pytest.mark.parametrize("size", TOYS)
def test_decoding_again_with_drafts_and_kept_caches_equals_decoding_at_once(
    models: Models, size: str
) -> None:
    """Of a short text: a search that reads very many drafts gives up some of them."""
    model, samples = models[size, "rewired"], noise(SECONDS)
    encoder = model.streaming_encoder(model.tuning(10), 400)
    carried = Decoder(model, "en", 60)
    for start in range(0, len(samples), 6400):
        encoder.push(samples[start : start + 6400])
        audio = encoder.update(last=start + 6400 >= len(samples))
        if audio is not None:
            decoded = carried.update(audio, 12, None)
    at_once = Decoder(model, "en", 60)
    whole = model.encode(samples)
    assert whole is not None
    expected = at_once.update(whole, 12, None)
    assert decoded.tokens == expected.tokens
    assert decoded.frames == expected.frames
    assert decoded.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


def without_narrow_peaks(values: Floats) -> Floats:
    """The smallest value of four frames, then the largest of four of those."""
    n = len(values)
    lowest = [values[max(0, i - 1) : i + 3].min() for i in range(n)]
    return np.array([max(lowest[max(0, i - 2) : i + 2]) for i in range(n)], np.float32)


@pytest.mark.parametrize("size", TOYS)
def test_word_times_come_from_all_heads_each_normalised_without_narrow_peaks(
    folders: dict[tuple[str, str], Path], models: Models, size: str
) -> None:
    model, folder, samples = models[size, "rewired"], folders[size, "rewired"], noise(2)[:32_000]
    sizes, text = model.graphs.sizes, [1, 400, 401, 402]
    k, v = whole_clip(folder, samples)
    empty = np.zeros((sizes.depth, 1, sizes.heads, 0, sizes.head_dim), np.float32)
    feed = {"token": np.array([text]), "k_self": empty, "v_self": empty}
    surgery = Surgery.open(folder / "decoder_kv.ort")
    values = surgery.values(feed | {"out_k_cross": k, "out_v_cross": v})
    looks = [values[n.output[0]][0] for n in surgery.nodes("Softmax")]
    heads = np.concatenate([look for look in looks if look.shape[-1] == k.shape[3]])
    assert len(heads) == sizes.depth * sizes.heads
    scores = (heads - heads.mean(-1, keepdims=True)) / heads.std(-1, keepdims=True)
    expected = [int(without_narrow_peaks(row).argmax()) for row in scores.mean(0)]
    audio = model.encode(samples)
    assert audio is not None
    step = model.decoder_step(8)
    step.attend_to(audio)
    top = step.read(text, [range(n + 1) for n in range(len(text))], 0, 3)
    assert top.frames.tolist() == expected


def test_a_text_has_no_marks_and_no_bytes_of_them(models: Models) -> None:
    model = models["tiny", "rewired"]
    audio = model.encode(noise(1))
    assert audio is not None
    step = model.decoder_step(8)
    step.attend_to(audio)
    top = step.read([1], [[0]], 0, 2000)
    texts = [model.vocabulary.text([int(token)]) for token in top.tokens[0] if token != 2]
    assert not any(text.startswith("<") and text.endswith(">") and len(text) > 2 for text in texts)
    assert not {0, 1}.intersection(top.tokens[0].tolist())


# ---- the recogniser -----------------------------------------------------------------------------
def stream(model: MoonshineStreaming, samples: Floats, options: Options) -> list[str]:
    recogniser, history = Recogniser(model, options), SampleHistory(40 * RATE)
    recogniser.begin(0)
    words = []
    for start in range(0, len(samples), 1280):
        history.append(samples[start : start + 1280])
        words += recogniser.advance(history, history.end)
    words += recogniser.finish(history, history.end)
    assert recogniser.finished[-1].stop == len(samples)
    return [word.text for word in words]


def sure(model: MoonshineStreaming) -> MoonshineStreaming:
    """Random weights are never sure of a text."""
    bounds = replace(model.confidence, short_p=0.0, long_p=0.0, voice_weight=0.0)
    return replace(model, confidence=bounds)


@pytest.mark.parametrize("size", TOYS)
@pytest.mark.parametrize("delay", [7, 10, 20])
def test_a_stream_of_any_delay_runs_through_segments_and_commit_rules(
    models: Models, size: str, delay: int
) -> None:
    model = sure(models[size, "rewired"])
    assert stream(model, noise(6)[: 75 * 1280], Options(delay_in_frames=delay))


def test_a_long_session_keeps_memory_flat(models: Models) -> None:
    model, samples = sure(models["tiny", "rewired"]), noise(5)[: 62 * 1280]
    stream(model, samples, Options())
    tracemalloc.start()
    sizes = []
    for _ in range(6):
        stream(model, samples, Options())
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 100_000


# ---- the built graphs against upstream's --------------------------------------------------------
@pytest.mark.parametrize("name", FORMS)
def test_verify_finds_both_forms_equal_to_upstreams(
    folders: dict[tuple[str, str], Path], name: str
) -> None:
    folder = folders["small", name]
    result = parity.check(folder, folder / name, noise(2), 1)
    assert result.ok, result.message
    assert "differs by 0.0%" in result.message


@pytest.mark.parametrize("graph", [ENCODER, DECODER])
def test_verify_tells_other_weights_apart(
    folders: dict[tuple[str, str], Path], tmp_path: Path, graph: str
) -> None:
    folder = folders["tiny", "rewired"]
    write_model(tmp_path, replace(TOYS["tiny"], seed=2))
    exporter.build(tmp_path, tmp_path / "rewired", None, "en")
    other = tmp_path / "rewired" / graph
    for name in (ENCODER, DECODER):
        if name != graph:
            (tmp_path / "rewired" / name).write_bytes((folder / "rewired" / name).read_bytes())
    assert other.exists()
    assert not parity.check(folder, tmp_path / "rewired", noise(2), 1).ok


def test_an_encoder_rewired_wrongly_stays_as_it_was_published(
    folders: dict[tuple[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with upstream's graph finds it, whatever the mistake was: here the windows of
    two layers are exchanged."""
    found = exporter._window
    windows = iter([(16, 0), (16, 4), (16, 4), (16, 4), (16, 4)])
    monkeypatch.setattr(exporter, "_window", lambda attention: (found(attention), next(windows))[1])
    exporter.build(folders["small", "rewired"], tmp_path, None, "en")
    assert "it differs by" in form(open_session(tmp_path / ENCODER, 1))


@pytest.mark.parametrize("turned", ["Cos", "Sin"])
def test_a_decoder_rewired_wrongly_stays_as_it_was_published(
    folders: dict[tuple[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    turned: str,
) -> None:
    real = exporter._take_positions

    def wrong(g: Surgery, values: dict[str, Floats], new: int, past: int) -> None:
        real(g, values, new, past)
        for node in g.nodes(turned):
            node.op_type = "Neg"

    monkeypatch.setattr(exporter, "_take_positions", wrong)
    exporter.build(folders["tiny", "rewired"], tmp_path, None, "en")
    assert "it differs by" in form(open_session(tmp_path / DECODER, 1))


def test_an_encoder_that_looks_further_ahead_than_its_configuration_says_is_refused(
    folders: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    """Windows are baked in the graph. Read one frame too wide, the lookahead is 22, not 16."""
    folder = folders["tiny", "rewired"]
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((folder / CONFIG).read_text())
    (tmp_path / "m" / CONFIG).write_text(json.dumps({**config, "total_lookahead": 12}))
    with pytest.raises(ModelError, match=r"encoder\.ort .* see 16 frames ahead instead of 12"):
        exporter.build(tmp_path / "m", tmp_path / "out", None, "en")


@pytest.mark.parametrize("size", TOYS)
def test_models_of_8_bits_are_rewired_and_close_to_upstreams(size: str, tmp_path: Path) -> None:
    write_model(tmp_path, TOYS[size], bits=8)
    exporter.build(tmp_path, tmp_path / "graphs", None, "en")
    model = MoonshineStreaming.load(tmp_path, tmp_path / "graphs", "en", 1)
    assert model.graphs.cached_encoder
    assert model.graphs.reads_trees
    samples = noise(2)[: 2 * RATE // 640 * 640]
    audio = streamed(model, samples, (1280,))
    for at, theirs in enumerate(whole_clip(tmp_path, samples)):
        ours = np.concatenate([array.ravel() for array in audio.state[at::2]])
        off = np.sqrt(np.mean((ours - theirs.ravel()) ** 2) / np.mean(theirs**2))
        assert off < parity.MAX_DIFFERENCE
