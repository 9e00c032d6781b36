"""A few lines of onnx.helper per operator, and the pieces that attention is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edged.export.weights import Array, Linear, Quantised, Weights, joined_weights
from edged.stt.moonshine.graphs import HEAD_DIM, HEADS

ROTARY = 32  # dimensions of a head that are rotated
POSITIONS = 2048  # frames or tokens of the longest segment: 49 s


class Graph:
    """One graph as it is built; operators give the name of their output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.count = 0
        self.own_kv: list[str] = []  # keys and values of the layers' own input, for `join_kv`

    def const(self, value: Any, name: str | None = None) -> str:
        name = name or f"c{len(self.constants)}"
        if name not in self.constants:
            array = np.asarray(value)
            self.constants[name] = numpy_helper.from_array(
                array if array.ndim == 0 else np.ascontiguousarray(array), name
            )
        return name

    def ints(self, *values: int) -> str:
        name = "i_" + "_".join(str(v).replace("-", "m") for v in values)
        return self.const(np.array(values, np.int64), name)

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        return self.ops(kind, *inputs, names=[name], **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, names: Sequence[str | None], **attributes: Any
    ) -> list[str]:
        outputs = []
        for name in names:
            self.count += name is None
            outputs.append(name or f"t{self.count}")
        domain = "com.microsoft" if kind in _MICROSOFT else ""
        node = helper.make_node(kind, list(inputs), outputs, domain=domain)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.nodes.append(node)
        return outputs

    def linear(self, x: str, weight: Linear, name: str | None = None) -> str:
        quantised, bias = weight
        operands = self.weight(quantised)
        if bias is not None:
            operands.append(self.const(bias))
        return self.op("DynamicQuantizeMatMul", x, *operands, name=name)

    def weight(self, quantised: Quantised) -> list[str]:
        """As operators take it: int8, scale, zero point."""
        q, scale, zero = quantised
        values = (_signed(q), np.asarray(scale, np.float32), _signed(zero))
        return [self.const(value) for value in values]

    def norm(self, x: str, weight: Array, name: str | None = None) -> str:
        return self.op(
            "LayerNormalization", x, self.const(weight), axis=-1, epsilon=1e-5, name=name
        )

    def heads(self, x: str, name: str | None = None) -> str:
        """[n,36*heads] -> [heads,n,36]"""
        split = self.op("Reshape", x, self.ints(0, -1, HEAD_DIM))
        return self.op("Transpose", split, perm=[1, 0, 2], name=name)

    def rotate(self, x: str) -> str:
        """[heads,n,36] at positions start .. start+n-1, or those of `start` where it has n: pairs
        of the first ROTARY dimensions."""
        frequencies = 1.0 / 10000 ** (np.arange(0, ROTARY, 2) / ROTARY)
        angles = np.arange(POSITIONS)[:, None] * frequencies
        cos = self.const(np.cos(angles).astype(np.float32), "cos")
        sin = self.const(np.sin(angles).astype(np.float32), "sin")
        rotated = self.op(
            "RotaryEmbedding",
            self.op("Unsqueeze", x, self.ints(0)),
            "start",
            cos,
            sin,
            interleaved=1,
            rotary_embedding_dim=ROTARY,
            num_heads=HEADS,
        )
        return self.op("Squeeze", rotated, self.ints(0))

    def scores(self, q: str, k: str) -> str:
        """q[8,n,36], k[8,t,36] -> [8,n,t]"""
        return self.op("FusedMatMul", q, k, transB=1, alpha=float(HEAD_DIM**-0.5))

    def merge(self, x: str) -> str:
        """[8,n,36] -> [n,288]"""
        return self.op(
            "Reshape", self.op("Transpose", x, perm=[1, 0, 2]), self.ints(-1, HEADS * HEAD_DIM)
        )

    def self_attention(
        self,
        x: str,
        weights: Weights,
        place: str,
        layer: int,
        mask: str = "",
        groups: int = 1,
        kept: str = "",
    ) -> str:
        """Attends to the cache and to x itself, `groups` of heads one after the other.

        Keys and values are joined rather than scores: those are the largest tensors by far. The
        groups keep them small, in the second pass for the memory's sake, in the first because what
        is large is mapped anew each time (with all heads at once an update at the end of a long
        segment took half as long again). Of x's own keys and values the first `kept` ("": all) go
        to `own_kv`: the others need not outlive the layer.
        """
        joined = joined_weights([weights[f"{place}{kind}_proj"] for kind in "qkv"])
        qk, v = self.ops(
            "Split",
            self.heads(self.linear(x, joined)),
            self.ints(2 * HEADS, HEADS),
            names=[None, None],
            axis=0,
        )
        q, k = self.ops(
            "Split",
            self.rotate(qk),
            self.ints(HEADS, HEADS),
            names=[None, None],
            axis=0,
        )
        for own in (k, v):
            cut = (self.ints(0), kept, self.ints(1))
            self.own_kv.append(self.op("Slice", own, *cut) if kept else own)
        k = self.op("Concat", f"past_k_{layer}", k, axis=1)
        v = self.op("Concat", f"past_v_{layer}", v, axis=1)
        if groups == 1:
            value = self.attend(q, k, v, mask)
        else:
            sizes = self.ints(*[HEADS // groups] * groups)
            parts = [self.ops("Split", a, sizes, names=[None] * groups, axis=0) for a in (q, k, v)]
            values = [
                self.attend(*qkv, mask) for qkv in zip(parts[0], parts[1], parts[2], strict=True)
            ]
            value = self.op("Concat", *values, axis=0)
        return self.linear(self.merge(value), weights[place + "o_proj"])

    def join_kv(self) -> None:
        """Output `kv`[heads of all layers, n, 36], the layers' keys and values in turn."""
        self.op("Concat", *self.own_kv, axis=0, name="kv")

    def attend(self, q: str, k: str, v: str, mask: str) -> str:
        scores = self.scores(q, k)
        if mask:
            scores = self.op("Add", scores, mask)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def save(self, path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        def described(values: dict[str, Any]) -> list[Any]:
            return [helper.make_tensor_value_info(k, t, s) for k, (t, s) in values.items()]

        graph = helper.make_graph(
            self.nodes,
            path.stem,
            described(inputs),
            described(outputs),
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


_MICROSOFT = {
    "DynamicQuantizeMatMul",
    "FusedMatMul",
    "Gelu",
    "MatMulIntegerToFloat",
    "QuickGelu",
    "RotaryEmbedding",
}


def _signed(q: Array) -> Array:
    """uint8 -> int8, 128 less: the same weights, which most x86-64 processors of today multiply two
    to four times as fast (`edged.ortsession` sees to those that cannot)."""
    return (q.astype(np.int16) - 128).astype(np.int8)
