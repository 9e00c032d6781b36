"""Upstream's weights, as they are in its two ORT-format files, and the adapted encoder's.

Places are upstream's names of modules: "layers.0.self_attn.q_proj".
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
    """Weights by their place: {'layers.0.self_attn.q_proj': ((q, scale, zero), bias), ...}."""
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
    """(encoder, decoder) weights of upstream's `encoder_model.ort`, `decoder_model_merged.ort`."""
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
    """A torch Linear's weight [out, in] as uint8 [in, out], one scale an output channel."""
    w = weight.T.astype(np.float32)
    scale = np.maximum(np.abs(w).max(0), 1e-8) / 127
    q = (np.rint(w / scale) + 128).astype(np.uint8)
    return q, scale.astype(np.float32), np.full(w.shape[1], 128, np.uint8)


def joined_weights(weights: Sequence[Linear]) -> Linear:
    """Projections of the same input as one, side by side: it is then rounded to uint8 once."""
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
    """Of a projection these outputs alone."""
    (q, scale, zero), bias = weight
    width = q.shape[1]
    scale, zero = (np.broadcast_to(value, width)[some] for value in (scale, zero))
    return (q[:, some], scale, zero), None if bias is None else bias[some]


def rows(weight: Linear, some: Array) -> Linear:
    """Of a projection what these inputs give to it; with those that begin at 0 comes the bias."""
    (q, scale, zero), bias = weight
    return (q[some], scale, zero), bias if some[0] == 0 else None


def adapt(encoder: Weights, adapted: Path, share: float) -> Weights:
    """The encoder with its layers moved by `share` towards an adapted set (.npz, float16, names
    as in upstream's encoder, weights [out, in])."""
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
