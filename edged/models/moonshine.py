"""Rebuilds Moonshine tiny as small streaming graphs with explicit caches.

Upstream (Useful Sensors, MIT) ships two ORT-format files: a full-context encoder and a merged
decoder, uint8 weights, one scale per tensor. Their weights are lifted out unchanged and written
as graphs into which audio can be pushed a few frames at a time:

    conv1          x[1,1,S] 16 kHz              -> a[1,288,N]      kernel 127, stride 64, tanh
    conv23         a, mean, scale               -> feat[M,288]     group norm (statistics given),
                                                                   conv k7 s3, conv k3 s2
    encoder        feat[n,288], pos0, kept[1], past_*
                                                -> out[n,288], k_*, v_*   of the first `kept` frames
    encoder_full   the same with upstream's weights, for the second pass
    cross          h[n,288]                     -> k_*, v_*        what the decoder attends to
    embedding.bin  uint8[32768,288], a row for each token, of which only those in use are read
    decoder        rows[n,288], positions[n], mask[n,s+n], most[1], past_*, cross_*
                                                -> tokens[n,most], p[n,most] the likeliest first,
                                                   p_end[n], p_all[n,32768], heard[n], k_*, v_*

One encoder frame is 384 samples (24 ms); frame i needs conv1 frames 6i .. 6i+12. Keys and values
are one tensor a layer, [8 heads, time, 36], which a matrix product reads in place: a single
tensor of all layers has to be split, and a time-major one is read with strides; both were
measured to cost more than the attention itself.

`heard` is where a token was heard: the frame with the most attention in the mean of seven
cross-attention heads that follow the audio (measured on hand-labelled words, design section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edged.models.recipe import ADAPTED_SHARE, EMBEDDING
from edged.models.weights import Array, Linear, Weights, adapt, read_weights
from edged.stt.graphs import HEAD_DIM, HEADS, LAYERS, VOCABULARY, WIDTH
from edged.stt.vocabulary import EOS

ROTARY = 32  # dimensions of a head that are rotated
POSITIONS = 2048  # frames or tokens of the longest segment: 49 s
FFN = 1152
PIECE = 208  # frames that attend at a time: to 750 of them, in less memory than is mapped anew
END = 2**62
PARTS = 4  # of the vocabulary, in the last product
ALIGNED_HEADS = {3: (0, 2, 5, 6), 4: (0, 3, 6)}


class _Graph:
    """A few lines of onnx.helper per operator, and the pieces attention is made of."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.count = 0

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
        (q, scale, zero), bias = weight
        operands = [
            self.const(_signed(q)),
            self.const(np.asarray(scale, np.float32)),
            self.const(_signed(zero)),
        ]
        if bias is not None:
            operands.append(self.const(bias))
        return self.op("DynamicQuantizeMatMul", x, *operands, name=name)

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
        pieces: int = 1,
        kept: str = "",
    ) -> str:
        """Attends to the cache and to x itself: `groups` of heads, of each group `pieces` of x, one
        after the other.

        Keys and values are joined rather than scores: those are the largest tensors by far, and
        what is large is mapped anew each time (with all heads at once an update at the end of a
        long segment took half as long again, with whole heads a second pass over 18 s twice as
        long). Of x's own keys and values the first `kept` ("": all) are an output: the others need
        not outlive the layer.
        """
        own = "own_" if kept else ""
        joined = _joined([weights[f"{place}{kind}_proj"] for kind in "qkv"])
        qk, v = self.ops(
            "Split",
            self.heads(self.linear(x, joined)),
            self.ints(2 * HEADS, HEADS),
            names=[None, f"{own}v_{layer}"],
            axis=0,
        )
        q, k = self.ops(
            "Split",
            self.rotate(qk),
            self.ints(HEADS, HEADS),
            names=[None, f"{own}k_{layer}"],
            axis=0,
        )
        if kept:
            self.op("Slice", k, self.ints(0), kept, self.ints(1), name=f"k_{layer}")
            self.op("Slice", v, self.ints(0), kept, self.ints(1), name=f"v_{layer}")
        k = self.op("Concat", f"past_k_{layer}", k, axis=1)
        v = self.op("Concat", f"past_v_{layer}", v, axis=1)
        if groups == 1:
            value = self.attend(q, k, v, mask)
        else:
            sizes = self.ints(*[HEADS // groups] * groups)
            parts = [self.ops("Split", a, sizes, names=[None] * groups, axis=0) for a in (q, k, v)]
            values = [
                self.attend_in_pieces(*qkv, pieces)
                for qkv in zip(parts[0], parts[1], parts[2], strict=True)
            ]
            value = self.op("Concat", *values, axis=0)
        return self.linear(self.merge(value), weights[place + "o_proj"])

    def attend_in_pieces(self, q: str, k: str, v: str, pieces: int) -> str:
        """PIECE rows of q at a time; the last piece has the rest, others may be empty."""
        if pieces == 1:
            return self.attend(q, k, v, "")
        firsts = [PIECE * n for n in range(pieces)]
        ends = [*firsts[1:], END]
        values = [
            self.attend(self.op("Slice", q, *map(self.ints, (first, end, 1))), k, v, "")
            for first, end in zip(firsts, ends, strict=True)
        ]
        return self.op("Concat", *values, axis=1)

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


_MICROSOFT = {"DynamicQuantizeMatMul", "FusedMatMul", "Gelu", "QuickGelu", "RotaryEmbedding"}
_F, _I = TensorProto.FLOAT, TensorProto.INT64


def _signed(q: Array) -> Array:
    """uint8 -> int8, 128 less: the same weights, which most x86-64 processors of today multiply two
    to four times as fast (`edged.ortsession` sees to those that cannot)."""
    return (q.astype(np.int16) - 128).astype(np.int8)


def _joined(weights: Sequence[Linear]) -> Linear:
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


def _caches(prefix: str, length: str) -> dict[str, Any]:
    return {
        f"{prefix}{kind}_{layer}": (_F, [HEADS, length, HEAD_DIM])
        for layer in range(LAYERS)
        for kind in ("k", "v")
    }


def _conv1(weights: Weights, path: Path) -> None:
    g = _Graph()
    g.op("Tanh", g.op("Conv", "x", g.const(weights["conv1"][0]), strides=[64]), name="a")
    g.save(path, {"x": (_F, [1, 1, "S"])}, {"a": (_F, [1, WIDTH, "N"])})


def _conv23(weights: Weights, path: Path) -> None:
    g = _Graph()
    x = g.op("Mul", g.op("Sub", "a", "mean"), "scale")
    x = g.op("Mul", x, g.const(weights["groupnorm.Mul"][None, :, None]))
    x = g.op("Add", x, g.const(weights["groupnorm.Add"][None, :, None]))
    for name, stride in (("conv2", 3), ("conv3", 2)):
        kernel, bias = weights[name]
        x = g.op("Gelu", g.op("Conv", x, g.const(kernel), g.const(bias), strides=[stride]))
    g.op("Squeeze", g.op("Transpose", x, perm=[0, 2, 1]), g.ints(0), name="feat")
    inputs = {"a": (_F, [1, WIDTH, "N"]), "mean": (_F, []), "scale": (_F, [])}
    g.save(path, inputs, {"feat": (_F, ["M", WIDTH])})


def _encoder(weights: Weights, path: Path, groups: int, pieces: int = 1) -> None:
    g = _Graph()
    g.op("Unsqueeze", "pos0", g.ints(0), name="start")
    x = "feat"
    for layer in range(LAYERS):
        place = f"layers.{layer}."
        h = g.norm(x, weights[place + "input_layernorm"])
        h = g.self_attention(
            h, weights, place + "self_attn.", layer, groups=groups, pieces=pieces, kept="kept"
        )
        x = g.op("Add", x, h)
        h = g.norm(x, weights[place + "post_attention_layernorm"])
        h = g.op("Gelu", g.linear(h, weights[place + "mlp.fc1"]))
        x = g.op("Add", x, g.linear(h, weights[place + "mlp.fc2"]))
    g.norm(x, weights["layer_norm"], name="out")
    inputs = {"feat": (_F, ["n", WIDTH]), "pos0": (_I, []), "kept": (_I, [1])}
    outputs = {"out": (_F, ["n", WIDTH]), **_caches("", "f")}
    g.save(path, inputs | _caches("past_", "t"), outputs)


def _cross(weights: Weights, path: Path) -> None:
    g = _Graph()
    for layer in range(LAYERS):
        place = f"model.decoder.layers.{layer}.encoder_attn."
        joined = _joined([weights[f"{place}{kind}_proj"] for kind in "kv"])
        names = [f"k_{layer}", f"v_{layer}"]
        g.ops("Split", g.heads(g.linear("h", joined)), g.ints(HEADS, HEADS), names=names, axis=0)
    g.save(path, {"h": (_F, ["n", WIDTH])}, _caches("", "n"))


def _decoder(weights: Weights, path: Path) -> None:
    g = _Graph()
    _, scale, zero = weights["embed"]
    x = g.op("DequantizeLinear", "rows", g.const(np.float32(scale)), g.const(zero))
    g.op("Unsqueeze", "positions", g.ints(0), name="start")
    aligned = []
    for layer in range(LAYERS):
        place = f"model.decoder.layers.{layer}."
        h = g.norm(x, weights[place + "input_layernorm"])
        h = g.self_attention(h, weights, place + "self_attn.", layer, mask="mask")
        x = g.op("Add", x, h)
        h = g.norm(x, weights[place + "post_attention_layernorm"])
        q = g.heads(g.linear(h, weights[place + "encoder_attn.q_proj"]))
        attention = g.op("Softmax", g.scores(q, f"cross_k_{layer}"), axis=-1)
        if layer in ALIGNED_HEADS:
            aligned.append(g.op("Gather", attention, g.ints(*ALIGNED_HEADS[layer]), axis=0))
        h = g.merge(g.op("MatMul", attention, f"cross_v_{layer}"))
        x = g.op("Add", x, g.linear(h, weights[place + "encoder_attn.o_proj"]))
        h = g.norm(x, weights[place + "final_layernorm"])
        h = g.linear(h, weights[place + "mlp.fc1"])
        up, gate = g.ops("Split", h, g.ints(FFN, FFN), names=[None] * 2, axis=-1)
        silu = g.op("QuickGelu", gate, alpha=1.0)
        x = g.op("Add", x, g.linear(g.op("Mul", up, silu), weights[place + "mlp.fc2"]))
    _likeliest(g, g.norm(x, weights["model.decoder.norm"]), weights["proj_out"])
    attention = g.op("ReduceMean", g.op("Concat", *aligned, axis=0), g.ints(0), keepdims=0)
    g.op("ArgMax", attention, axis=-1, keepdims=0, name="heard")
    inputs = {
        "rows": (TensorProto.UINT8, ["n", WIDTH]),
        "positions": (_I, ["n"]),
        "mask": (_F, ["n", "m"]),
        "most": (_I, [1]),
        **_caches("past_", "s"),
        **_caches("cross_", "t"),
    }
    outputs = {
        "tokens": (_I, ["n", "most"]),
        "p": (_F, ["n", "most"]),
        "p_end": (_F, ["n"]),
        "heard": (_I, ["n"]),
        **_caches("", "n"),
    }
    g.save(path, inputs, outputs)


def _likeliest(g: _Graph, x: str, weight: Linear) -> None:
    """Tokens and their probabilities out of logits that are never there as a whole: a part of the
    vocabulary after the other, for what is large is mapped anew each time.

    A part's softmax gives the likeliest token's probability within it, and so, by its logit, the
    logarithm of the part's sum of exponentials.
    """
    (q, scale, zero), bias = weight
    assert bias is None
    assert np.size(scale) == 1
    wide = VOCABULARY // PARTS
    logits, tokens, sums = [], [], []
    for part in range(PARTS):
        first = part * wide
        some = g.linear(x, ((q[:, first : first + wide], scale, zero), None))
        best, at = g.ops("TopK", some, "most", names=[None, None], axis=-1)
        if first <= EOS < first + wide:
            end = g.op("Gather", some, g.ints(EOS - first), axis=-1)
        one = g.op("Slice", at, g.ints(0), g.ints(1), g.ints(1))
        p = g.op("GatherElements", g.op("Softmax", some, axis=-1), one, axis=-1)
        highest = g.op("Slice", best, g.ints(0), g.ints(1), g.ints(1))
        sums.append(g.op("Sub", highest, g.op("Log", p)))
        logits.append(best)
        tokens.append(g.op("Add", at, g.ints(first)) if first else at)
    total = g.op("ReduceLogSumExp", g.op("Concat", *sums, axis=-1), g.ints(1), keepdims=1)
    best, at = g.ops("TopK", g.op("Concat", *logits, axis=-1), "most", names=[None, None], axis=-1)
    g.op("GatherElements", g.op("Concat", *tokens, axis=-1), at, axis=-1, name="tokens")
    g.op("Exp", g.op("Sub", best, total), name="p")
    g.op("Squeeze", g.op("Exp", g.op("Sub", end, total)), g.ints(1), name="p_end")


def build(upstream: Path, out: Path, streaming_encoder: Path | None) -> None:
    """Writes GRAPH_FILES into `out` from upstream's two .ort files.

    `streaming_encoder` (.npz) gives the layers of the streamed pass; None keeps upstream's.
    """
    encoder, decoder = read_weights(upstream)
    out.mkdir(parents=True, exist_ok=True)
    streaming = adapt(encoder, streaming_encoder, ADAPTED_SHARE) if streaming_encoder else encoder
    _conv1(encoder, out / "conv1.onnx")
    _conv23(encoder, out / "conv23.onnx")
    _encoder(streaming, out / "encoder.onnx", groups=4)
    _encoder(encoder, out / "encoder_full.onnx", groups=8, pieces=4)
    _cross(decoder, out / "cross.onnx")
    _decoder(decoder, out / "decoder.onnx")
    (out / EMBEDDING).write_bytes(decoder["embed"][0].tobytes())
