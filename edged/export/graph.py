"""Builds one ONNX graph: an operator per call, and the pieces that attention is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edged.export.weights import Array, Linear, Quantised, Weights, joined_weights


@dataclass(frozen=True, slots=True)
class Attention:
    """Sizes of an attention layer.

    rotary: how many dimensions of a head are rotated by the position, 0 for none. max_positions:
    the most positions that are rotated.
    """

    heads: int
    head_dim: int
    rotary: int = 0
    max_positions: int = 0


class Graph:
    """One graph while it is built. Methods that add an operator return the name of its output.

    The comments after a method give shapes: n new positions, t positions in all.
    """

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.count = 0
        self.own_kv: list[str] = []  # keys and values of the layers' own input, for `join_kv`

    def const(self, value: Any, name: str | None = None) -> str:
        """Adds an initialiser, or finds the one with that name."""
        name = name or f"c{len(self.constants)}"
        if name not in self.constants:
            array = np.asarray(value)
            self.constants[name] = numpy_helper.from_array(
                array if array.ndim == 0 else np.ascontiguousarray(array), name
            )
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        name = "i_" + "_".join(str(v).replace("-", "m") for v in values)
        return self.const(np.array(values, np.int64), name)

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Adds an operator with one output."""
        return self.ops(kind, *inputs, names=[name], **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, names: Sequence[str | None], **attributes: Any
    ) -> list[str]:
        """Adds an operator with as many outputs as names; None gives an output a name."""
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
        """x[n, in] -> [n, out], with the activations quantised to 8 bits."""
        quantised, bias = weight
        operands = self.weight(quantised)
        if bias is not None:
            operands.append(self.const(bias))
        return self.op("DynamicQuantizeMatMul", x, *operands, name=name)

    def weight(self, quantised: Quantised) -> list[str]:
        """Constants as operators take them: int8 weights, scale, zero point."""
        q, scale, zero = quantised
        values = (_signed(q), np.asarray(scale, np.float32), _signed(zero))
        return [self.const(value) for value in values]

    def norm(
        self, x: str, weight: Array, name: str | None = None, bias: Array | None = None
    ) -> str:
        """Layer norm over the last axis."""
        operands = [self.const(weight), *([] if bias is None else [self.const(bias)])]
        return self.op("LayerNormalization", x, *operands, axis=-1, epsilon=1e-5, name=name)

    def heads(self, x: str, name: str | None = None) -> str:
        """x[n, heads * head_dim] -> [heads, n, head_dim]; any number of heads."""
        split = self.op("Reshape", x, self.ints(0, -1, self._attention.head_dim))
        return self.op("Transpose", split, perm=[1, 0, 2], name=name)

    def rotate(self, x: str) -> str:
        """Rotary embedding of x[heads, n, head_dim].

        The input `start` gives the first position, or all n of them. Neighbouring dimensions are
        rotated in pairs.
        """
        rotary = self._attention.rotary
        frequencies = 1.0 / 10000 ** (np.arange(0, rotary, 2) / rotary)
        angles = np.arange(self._attention.max_positions)[:, None] * frequencies
        cos = self.const(np.cos(angles).astype(np.float32), "cos")
        sin = self.const(np.sin(angles).astype(np.float32), "sin")
        rotated = self.op(
            "RotaryEmbedding",
            self.op("Unsqueeze", x, self.ints(0)),
            "start",
            cos,
            sin,
            interleaved=1,
            rotary_embedding_dim=rotary,
            num_heads=self._attention.heads,
        )
        return self.op("Squeeze", rotated, self.ints(0))

    def scores(self, q: str, k: str) -> str:
        """q[heads, n, head_dim], k[heads, t, head_dim] -> [heads, n, t]"""
        return self.op("FusedMatMul", q, k, transB=1, alpha=float(self._attention.head_dim**-0.5))

    def merge(self, x: str) -> str:
        """x[heads, n, head_dim] -> [n, heads * head_dim]"""
        width = self._attention.heads * self._attention.head_dim
        return self.op("Reshape", self.op("Transpose", x, perm=[1, 0, 2]), self.ints(-1, width))

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
        """Self-attention of x[n, width] to the cache and to x itself -> [n, width].

        weights, place: projections `{place}q_proj` and so on. layer: names the cache's inputs,
        `past_k_{layer}` and `past_v_{layer}`. mask: name of an additive mask [n, t]. groups: the
        heads are processed in so many groups, one after the other, which keeps the largest tensors,
        the scores, small. kept: name of a length; only so many of x's own keys and values ("": all)
        go to `own_kv`, because the others need not outlive the layer.

        Keys and values are joined with the cache rather than scores, which are larger by far.
        """
        heads = self._attention.heads
        joined = joined_weights([weights[f"{place}{kind}_proj"] for kind in "qkv"])
        qk, v = self.ops(
            "Split",
            self.heads(self.linear(x, joined)),
            self.ints(2 * heads, heads),
            names=[None, None],
            axis=0,
        )
        q, k = self.ops(
            "Split",
            self.rotate(qk),
            self.ints(heads, heads),
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
            sizes = self.ints(*[heads // groups] * groups)
            parts = [self.ops("Split", a, sizes, names=[None] * groups, axis=0) for a in (q, k, v)]
            values = [
                self.attend(*qkv, mask) for qkv in zip(parts[0], parts[1], parts[2], strict=True)
            ]
            value = self.op("Concat", *values, axis=0)
        return self.linear(self.merge(value), weights[place + "o_proj"])

    def join_kv(self) -> None:
        """Adds the output `kv`[heads of all layers, n, head_dim]: each layer's keys, then its
        values."""
        self.op("Concat", *self.own_kv, axis=0, name="kv")

    def attend(self, q: str, k: str, v: str, mask: str) -> str:
        """-> [heads, n, head_dim]"""
        scores = self.scores(q, k)
        if mask:
            scores = self.op("Add", scores, mask)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def save(self, path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Writes the graph. inputs, outputs: (element type, shape) by name."""

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
    """uint8 -> int8, 128 less: the same weights. Most x86-64 processors of today multiply int8 two
    to four times as fast; `edged.ortsession` takes care of those that cannot."""
    return (q.astype(np.int16) - 128).astype(np.int8)
