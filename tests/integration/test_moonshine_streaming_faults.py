"""Files of a Moonshine streaming model that are not what they should be: one sentence, no crash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edged.errors import ModelError
from edged.export import moonshine_streaming as exporter
from edged.export.graph_surgery import Surgery
from edged.stt.moonshine_streaming.build_version import DECODER, ENCODER
from edged.stt.moonshine_streaming.model import MoonshineStreaming
from edged.stt.moonshine_streaming.specification import CONFIG, TOKENIZER
from tests.support.streaming_models import TOYS, pieces, to_ort, tokenizer, write_model

GRAPHS = (
    "frontend.model.ort",
    "frontend.weights.ort",
    "encoder.ort",
    "adapter.ort",
    "cross_kv.ort",
    "decoder_kv.ort",
)
# Faults that Hypothesis chooses change a copy of the folder, which is put right afterwards.
FAULTS = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of upstream's files, with the built graphs in `graphs`."""
    folder = tmp_path_factory.mktemp("right")
    write_model(folder, TOYS["small"])
    exporter.build(folder, folder / "graphs", None, "en")
    return folder


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the frontend in one file."""
    folder = tmp_path_factory.mktemp("single")
    write_model(folder, TOYS["small"], single=True)
    exporter.build(folder, folder / "graphs", None, "en")
    return folder


@pytest.fixture
def folder(right: Path, tmp_path: Path) -> Path:
    """A copy, to be harmed at will."""
    return shutil.copytree(right, tmp_path / "model", copy_function=os.link)


def replace_file(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # it is a link
    path.write_bytes(data)


def load(folder: Path) -> MoonshineStreaming:
    return MoonshineStreaming.load(folder, folder / "graphs", "en", 1)


def refused(folder: Path, name: str, built: bool = True) -> str:
    """The sentence with which a folder is refused: when it is fetched and, if `built` graphs are
    there already, when it is loaded."""
    with pytest.raises(ModelError) as caught:
        exporter.build(folder, folder / "again", None, "en")
    said = str(caught.value)
    assert str(folder / name) in said
    assert "\n" not in said
    if built:
        with pytest.raises(ModelError) as caught:
            load(folder)
        assert str(folder / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    return said


def check_sentence(error: ModelError, path: Path) -> None:
    assert str(path) in str(error)
    assert "\n" not in str(error)


def rewritten(folder: Path, name: str, change: Callable[[onnx.GraphProto], object]) -> None:
    """Changes a graph and saves it in ORT's format again."""
    surgery = Surgery.open(folder / name)
    change(surgery.graph)
    del surgery.graph.value_info[:]
    onnx.save(surgery.model, folder / "changed.onnx")
    (folder / name).unlink()
    to_ort(folder / "changed.onnx", folder / name)


# ---- files --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*GRAPHS, CONFIG, TOKENIZER])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "foreign"])
def test_a_file_that_is_missing_cut_or_foreign_is_named(folder: Path, name: str, harm: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if harm == "empty":
        (folder / name).write_bytes(b"")
    elif harm == "cut":
        (folder / name).write_bytes(data[: len(data) * 2 // 3])
    elif harm == "foreign":
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
    refused(folder, name, built=name not in ("encoder.ort", "decoder_kv.ort"))


@pytest.mark.parametrize("name", [ENCODER, DECODER])
def test_a_built_graph_that_is_cut_is_named(folder: Path, name: str) -> None:
    data = (folder / "graphs" / name).read_bytes()
    replace_file(folder / "graphs" / name, data[:-3000])
    with pytest.raises(ModelError, match=f"graphs/{name} cannot be loaded"):
        load(folder)


def test_the_frontend_may_be_one_file_or_two(right: Path, single: Path) -> None:
    assert load(right).graphs.frontend_weights
    assert not load(single).graphs.frontend_weights


def test_files_of_both_revisions_mixed_are_named(right: Path, single: Path, tmp_path: Path) -> None:
    shutil.copytree(single, tmp_path / "m")
    shutil.copy(right / "frontend.model.ort", tmp_path / "m")
    refused(tmp_path / "m", "frontend.weights.ort")


@pytest.mark.parametrize("one", GRAPHS)
def test_each_graph_in_the_place_of_another_is_refused(folder: Path, one: str) -> None:
    for other in GRAPHS:
        if other != one:
            data = (folder / other).read_bytes()
            replace_file(folder / one, data)
            refused(folder, one, built=one not in ("encoder.ort", "decoder_kv.ort"))


@pytest.mark.parametrize("name", ["encoder.ort", "adapter.ort", "cross_kv.ort", "decoder_kv.ort"])
def test_a_graph_of_another_size_is_refused_with_the_difference(
    folder: Path, tmp_path: Path, name: str
) -> None:
    write_model(tmp_path / "tiny", TOYS["tiny"])
    replace_file(folder / name, (tmp_path / "tiny" / name).read_bytes())
    said = refused(folder, name, built=name not in ("encoder.ort", "decoder_kv.ort"))
    assert "is not of the form of a Moonshine streaming model: " in said
    assert " instead of " in said


# ---- tensors of the graphs ----------------------------------------------------------------------
INPUTS = [
    ("frontend.model.ort", "audio_chunk"),
    ("frontend.model.ort", "conv2_buffer"),
    ("encoder.ort", "features"),
    ("adapter.ort", "pos_offset"),
    ("cross_kv.ort", "memory"),
    ("decoder_kv.ort", "token"),
    ("decoder_kv.ort", "v_self"),
    ("decoder_kv.ort", "out_k_cross"),
]


def renamed(graph: onnx.GraphProto, old: str, new: str) -> None:
    for value in [*graph.input, *graph.output]:
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for field in (node.input, node.output):
            for at, name in enumerate(field):
                field[at] = new if name == old else name


@pytest.mark.parametrize(("name", "tensor"), INPUTS)
def test_an_input_with_another_name_is_refused(folder: Path, name: str, tensor: str) -> None:
    rewritten(folder, name, lambda graph: renamed(graph, tensor, "something_else"))
    said = refused(folder, name, built=name not in ("encoder.ort", "decoder_kv.ort"))
    assert f"there is no input '{tensor}'" in said


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("frontend.model.ort", "conv1_buffer_out"),
        ("encoder.ort", "encoded"),
        ("adapter.ort", "memory"),
        ("cross_kv.ort", "v_cross"),
        ("decoder_kv.ort", "logits"),
        ("decoder_kv.ort", "out_k_self"),
    ],
)
def test_an_output_with_another_name_is_refused(folder: Path, name: str, tensor: str) -> None:
    rewritten(folder, name, lambda graph: renamed(graph, tensor, "something_else"))
    said = refused(folder, name, built=name not in ("encoder.ort", "decoder_kv.ort"))
    assert f"there is no output '{tensor}'" in said


def test_an_input_of_another_type_is_refused(folder: Path) -> None:
    """Token ids as 32-bit integers, as other exporters have them."""

    def narrowed(graph: onnx.GraphProto) -> None:
        for value in graph.input:
            if value.name == "token":
                value.type.tensor_type.elem_type = TensorProto.INT32
        renamed_uses = [node for node in graph.node if "token" in node.input]
        for node in renamed_uses:
            node.input[list(node.input).index("token")] = "token_64"
        cast = helper.make_node("Cast", ["token"], ["token_64"], to=TensorProto.INT64)
        graph.node.insert(0, cast)

    rewritten(folder, "decoder_kv.ort", narrowed)
    said = refused(folder, "decoder_kv.ort", built=False)
    assert "input 'token' is int32[1, any] instead of int64[1, any]" in said


def test_a_length_that_is_frozen_is_refused(folder: Path) -> None:
    """What torch's exporter does to an axis that was not declared dynamic."""

    def frozen(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 37

    rewritten(folder, "encoder.ort", frozen)
    said = refused(folder, "encoder.ort", built=False)
    assert "input 'features' is float[1, 37, 24] instead of float[1, any, 24]" in said


def test_a_further_input_is_refused(folder: Path) -> None:
    def longer(graph: onnx.GraphProto) -> None:
        graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
        node = helper.make_node("Identity", ["scale"], ["scale_out"])
        graph.node.append(node)
        graph.output.append(helper.make_tensor_value_info("scale_out", TensorProto.FLOAT, []))

    rewritten(folder, "adapter.ort", longer)
    assert "it has an input 'scale' that is not known" in refused(folder, "adapter.ort")


def test_a_frontend_and_weights_that_disagree_are_both_named(folder: Path) -> None:
    """The error named the file of the weights alone, though the graph had the wrong name."""
    name = "linear.weight_add_tensor"
    rewritten(folder, "frontend.model.ort", lambda graph: renamed(graph, name, "x"))
    assert "frontend.weights.ort" in refused(folder, "frontend.model.ort", built=True)


def test_a_weight_that_is_not_given_is_refused(folder: Path) -> None:
    def lacking(graph: onnx.GraphProto) -> None:
        del graph.output[0]

    rewritten(folder, "frontend.weights.ort", lacking)
    assert "there is no output '" in refused(folder, "frontend.weights.ort")


@FAULTS
@given(data=st.data())
def test_any_change_of_a_graphs_declared_tensors_is_refused_or_harmless(
    right: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Names, types and lengths of inputs and outputs, and missing ones."""
    folder = shutil.copytree(right, tmp_path_factory.mktemp("x") / "m", copy_function=os.link)
    name = data.draw(st.sampled_from(GRAPHS))
    surgery = Surgery.open(folder / name)
    values = [*surgery.graph.input, *surgery.graph.output]
    value = data.draw(st.sampled_from(values))
    fault = data.draw(st.sampled_from(["name", "length", "rank", "removed"]))
    tensor = value.type.tensor_type
    if fault == "name":
        renamed(surgery.graph, value.name, data.draw(st.sampled_from(["x", "token_ids", "é"])))
    elif fault == "length":
        assume(tensor.shape.dim)
        axis = data.draw(st.integers(0, len(tensor.shape.dim) - 1))
        tensor.shape.dim[axis].dim_value = data.draw(st.integers(1, 99))
    elif fault == "rank":
        tensor.shape.dim.add().dim_value = 1
    elif value in surgery.graph.output:
        surgery.graph.output.remove(value)
    del surgery.graph.value_info[:]
    onnx.save(surgery.model, folder / "changed.onnx")
    (folder / name).unlink()
    try:
        to_ort(folder / "changed.onnx", folder / name)
    except Exception:  # no graph at all: nobody can publish it
        return
    try:
        exporter.build(folder, folder / "again", None, "en")
        load(folder)
    except ModelError as error:
        check_sentence(error, folder / name)


# ---- configuration ------------------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@FAULTS
@given(data=st.data())
def test_any_wrong_value_of_the_configuration_is_refused(right: Path, data: st.DataObject) -> None:
    config = json.loads((right / CONFIG).read_text())
    key = data.draw(st.sampled_from(list(config)))
    value = data.draw(JSON)
    assume(value != config[key])
    original = (right / CONFIG).read_bytes()
    try:
        (right / CONFIG).write_text(json.dumps({**config, key: value}))
        refused_or_harmless(right, key)
    finally:
        (right / CONFIG).write_bytes(original)


def refused_or_harmless(folder: Path, key: str) -> None:
    """Another mark for the beginning or the end is a mark too; all other values are wrong."""
    try:
        load(folder)
        exporter.build(folder, folder / "again", None, "en")
    except ModelError as error:
        check_sentence(error, folder)
    else:
        assert key in ("bos_id", "eos_id")


@FAULTS
@given(data=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_configuration_is_refused(right: Path, data: bytes) -> None:
    original = (right / CONFIG).read_bytes()
    try:
        (right / CONFIG).write_bytes(data)
        refused(right, CONFIG)
    finally:
        (right / CONFIG).write_bytes(original)


@pytest.mark.parametrize("key", ["encoder_dim", "c1", "frontend_state_shapes", "eos_id"])
def test_a_missing_key_of_the_configuration_is_named(folder: Path, key: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    del config[key]
    replace_file(folder / CONFIG, json.dumps(config).encode())
    assert f"{key} is missing" in refused(folder, CONFIG)


# ---- tokenizer ----------------------------------------------------------------------------------
@FAULTS
@given(change=st.integers(-300, 300).filter(bool))
def test_a_tokenizer_with_more_or_fewer_pieces_is_refused(right: Path, change: int) -> None:
    count = TOYS["small"].vocabulary
    original = (right / TOKENIZER).read_bytes()
    try:
        (right / TOKENIZER).write_bytes(
            tokenizer([*pieces(count), *[b"x"] * 300][: count + change])
        )
        said = refused(right, TOKENIZER)
        assert f"has {count + change} pieces instead of the {count} of the model" in said
    finally:
        (right / TOKENIZER).write_bytes(original)


@FAULTS
@given(data=st.binary(max_size=2000))
def test_any_other_tokenizer_is_refused(right: Path, data: bytes) -> None:
    original = (right / TOKENIZER).read_bytes()
    try:
        (right / TOKENIZER).write_bytes(data)
        refused(right, TOKENIZER)
    finally:
        (right / TOKENIZER).write_bytes(original)


def test_a_tokenizer_without_its_marks_is_refused(folder: Path) -> None:
    """The right number of pieces, but shifted by one: text would be nonsense."""
    some = pieces(TOYS["small"].vocabulary)
    replace_file(folder / TOKENIZER, tokenizer([*some[1:], some[0]]))
    assert "no mark" in refused(folder, TOKENIZER)


@FAULTS
@given(data=st.data())
def test_a_graph_cut_or_zeroed_anywhere_is_refused_or_harmless(
    right: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """What a bad disk does to a file; `fetch` and `verify` find it by its checksum."""
    folder = shutil.copytree(right, tmp_path_factory.mktemp("x") / "m", copy_function=os.link)
    name = data.draw(st.sampled_from(GRAPHS))
    whole = (folder / name).read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start, len(whole)))
    middle = bytes(stop - start) if data.draw(st.booleans()) else b""
    replace_file(folder / name, whole[:start] + middle + whole[stop:])
    try:
        exporter.build(folder, folder / "again", None, "en")
        load(folder)
    except ModelError as error:
        check_sentence(error, folder / name)
