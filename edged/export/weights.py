"""Reads upstream's weights from its two files in ORT format, and the adapted encoder's.

Weights are found by their place, upstream's name of the module: "layers.0.self_attn.q_proj".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Quantised: TypeAlias = tuple[Array, Array, Array]  # uint8 [in, out], scale, zero point
Linear: TypeAlias = tuple[Quantised, Array | None]  # with bias
Weights: TypeAlias = dict[str, Any]

_DTYPES: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
}


def _read_graph(path: Path) -> Any:
    import onnxruntime.tools.ort_format_model  # noqa: F401  (puts ort_flatbuffers_py on sys.path)
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    return InferenceSession.GetRootAs(path.read_bytes(), 0).Model().Graph()


def _initializers(graph: Any) -> dict[str, Array]:
    def array(tensor: Any) -> Array:
        shape = [tensor.Dims(k) for k in range(tensor.DimsLength())]
        raw = tensor.RawDataAsNumpy().tobytes()
        return np.frombuffer(raw, _DTYPES[tensor.DataType()]).reshape(shape)

    tensors = map(graph.Initializers, range(graph.InitializersLength()))
    return {t.Name().decode(): array(t) for t in tensors}


def _collect(graph: Any, outer: dict[str, Array] | None = None) -> tuple[Weights, dict[str, Array]]:
    """(weights by place, all initialisers by name) of a graph.

    A linear layer is ((q, scale, zero), bias), a convolution (kernel, bias), a norm its weight.
    outer: initialisers of the graph around it.
    """
    arrays = {**(outer or {}), **_initializers(graph)}
    found: Weights = {}
    for i in range(graph.NodesLength()):
        node = graph.Nodes(i)
        name = node.Name().decode().lstrip("/").replace("/", ".")
        inputs = [node.Inputs(k).decode() for k in range(node.InputsLength())]
        operands = [arrays.get(name_) for name_ in inputs] + [None] * 8
        match node.OpType().decode():
            case "MatMulIntegerToFloat":
                place = name.replace(".MatMul_quant", "")
                found[place] = ((operands[1], operands[3], operands[5]), operands[6])
            case "DynamicQuantizeMatMul":
                place = name.replace(".MatMul_quant", "")
                found[place] = ((operands[1], operands[2], operands[3]), operands[4])
            case "LayerNormalization":
                found[name.replace(".LayerNormalization", "")] = operands[1]
            case "SkipLayerNormalization":
                found["layer_norm"] = operands[2]
            case "Conv" | "FusedConv":
                found[name.replace(".Conv", "")] = (operands[1], operands[2])
            case _ if name in ("groupnorm.Mul", "groupnorm.Add"):
                found[name] = next(a for a in operands if a is not None).ravel()
    return found, arrays


def read_weights(folder: Path) -> tuple[Weights, Weights]:
    """Weights by place of `encoder_model.ort` and of `decoder_model_merged.ort` in `folder`."""
    encoder, _ = _collect(_read_graph(folder / "encoder_model.ort"))
    graph = _read_graph(folder / "decoder_model_merged.ort")
    outer = _initializers(graph)
    for i in range(graph.NodesLength()):  # the branch without a cache holds every weight
        node = graph.Nodes(i)
        for j in range(node.AttributesLength()):
            if node.Attributes(j).Name() == b"else_branch":
                decoder, arrays = _collect(node.Attributes(j).G(), outer)
    embedding = "model.decoder.embed_tokens.weight_merged_0"
    decoder["embed"] = tuple(
        arrays[f"{embedding}_{part}"] for part in ("quantized", "scale", "zero_point")
    )
    return encoder, decoder


def quantise(weight: Array) -> Quantised:
    """Quantises a weight float[out, in] to uint8[in, out] with one scale per output channel."""
    w = weight.T.astype(np.float32)
    scale = np.maximum(np.abs(w).max(0), 1e-8) / 127
    q = (np.rint(w / scale) + 128).astype(np.uint8)
    return q, scale.astype(np.float32), np.full(w.shape[1], 128, np.uint8)


def joined_weights(weights: Sequence[Linear]) -> Linear:
    """Joins projections of the same input side by side, so that the input is quantised once."""
    parts = [q for q, _ in weights]
    width = [q.shape[1] for q, _, _ in parts]

    def vector(at: int) -> Array:  # one value a channel, or one for all
        return np.concatenate(
            [np.broadcast_to(p[at], n) for p, n in zip(parts, width, strict=True)]
        )

    biases = [bias for _, bias in weights]
    assert all(bias is None for bias in biases)
    return (np.concatenate([q for q, _, _ in parts], 1), vector(1), vector(2)), None


def columns(weight: Linear, some: Array) -> Linear:
    """The part of a projection with these outputs."""
    (q, scale, zero), bias = weight
    width = q.shape[1]
    scale, zero = (np.broadcast_to(value, width)[some] for value in (scale, zero))
    return (q[:, some], scale, zero), None if bias is None else bias[some]


def rows(weight: Linear, some: Array) -> Linear:
    """The part of a projection with these inputs. The bias belongs to the part that begins at 0."""
    (q, scale, zero), bias = weight
    return (q[some], scale, zero), bias if some[0] == 0 else None


def adapt(encoder: Weights, adapted: Path, share: float) -> Weights:
    """The encoder with its layers moved by `share` (0..1) towards adapted ones.

    adapted: .npz of float16 arrays with the names of upstream's encoder, weights [out, in].
    """
    result = dict(encoder)
    with np.load(adapted) as arrays:
        for name in arrays.files:
            place, _, part = name.rpartition(".")
            if part == "bias":
                continue
            new, old = arrays[name].astype(np.float32), encoder[place]
            if new.ndim == 1:
                result[place] = share * new + (1 - share) * old
                continue
            (q, scale, zero), bias = old
            mixed = share * new + (1 - share) * ((q.astype(np.float32) - zero) * scale).T
            if f"{place}.bias" in arrays.files:
                bias = share * arrays[f"{place}.bias"].astype(np.float32) + (1 - share) * bias
            result[place] = (quantise(mixed), bias)
    return result
