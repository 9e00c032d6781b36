"""Builds Moonshine tiny's streaming graphs, with explicit caches, from upstream's files.

Upstream (Useful Sensors, MIT) publishes two files in ORT format: a full-context encoder and a
merged decoder, with uint8 weights. Their weights are taken over unchanged and written as graphs
that take audio a few frames at a time:

    conv1          x[1,1,S] 16 kHz              -> a[1,288,N]      kernel 127, stride 64, tanh
    conv23         a, mean, scale               -> feat[M,288]     group norm (statistics given),
                                                                   conv k7 s3, conv k3 s2
    encoder        feat[n,288], pos0, kept[1], past_*
                                                -> out[n,288], kv of the first `kept` frames
    encoder_full   the same with upstream's weights: for the second pass, and for long delays
    cross          h[n,288]                     -> kv_*            what the decoder attends to
    decoder        rows[n,288], positions[n], mask[n,s+n], most[1], past_*, cross_*
                                                -> tokens[n,most], p[n,most] the most probable
                                                   first, p_end[n], heard[n], kv
    embedding.bin  uint8[32768,288], a row for each token, of which only those in use are read

One encoder frame is 384 samples (24 ms); frame i needs conv1 frames 6i .. 6i+12. Keys and values
are inputs as two tensors a layer, [8 heads, time, 36], which a matrix product reads in place. They
are outputs as one tensor a layer (`kv_*`, [16, time, 36], keys and then values) or, where they are
few, as one tensor of all layers (`kv`, [96, time, 36]); `edged.stt.kv_cache` appends them.

`heard` is the frame with the most attention in the mean of seven cross-attention heads that follow
the audio. edged/stt/README.md says what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from edged.export.graph import Attention, Graph
from edged.export.topk import add_top_tokens
from edged.export.transcript_tokens import transcript_tokens
from edged.export.weights import (
    Array,
    Weights,
    adapt,
    columns,
    joined_weights,
    quantise,
    read_weights,
    rows,
)
from edged.stt.moonshine.build_version import ADAPTED_SHARE, EMBEDDING
from edged.stt.moonshine.dimensions import EOS, TINY
from edged.stt.moonshine.vocabulary import PieceVocabulary

END = 2**62  # of a slice: to the end
ALIGNMENT_HEADS = {3: (0, 2, 5, 6), 4: (0, 3, 6)}  # cross-attention heads, by layer
_F, _I = TensorProto.FLOAT, TensorProto.INT64


def _graph() -> Graph:
    return Graph(Attention(TINY.heads, TINY.head_dim, TINY.rotary, TINY.max_positions))


def _kv(length: str) -> Any:
    return (_F, [len(TINY.kv_names) * TINY.heads, length, TINY.head_dim])


def _caches(prefix: str, length: str) -> dict[str, Any]:
    return {f"{prefix}{name}": (_F, [TINY.heads, length, TINY.head_dim]) for name in TINY.kv_names}


def _conv1(weights: Weights, path: Path) -> None:
    g = _graph()
    g.op("Tanh", g.op("Conv", "x", g.const(weights["conv1"][0]), strides=[64]), name="a")
    g.save(path, {"x": (_F, [1, 1, "S"])}, {"a": (_F, [1, TINY.width, "N"])})


def _conv23(weights: Weights, path: Path) -> None:
    g = _graph()
    x = g.op("Transpose", g.op("Squeeze", "a", g.ints(0)), perm=[1, 0])
    x = g.op("Mul", g.op("Sub", x, "mean"), "scale")
    x = g.op("Mul", x, g.const(weights["groupnorm.Mul"]))
    x = g.op("Add", x, g.const(weights["groupnorm.Add"]))
    x = g.op("Gelu", _convolved_in_8_bits(g, x, 3, *weights["conv2"]))
    g.op("Gelu", _convolved(g, x, 2, *weights["conv3"]), name="feat")
    inputs = {"a": (_F, [1, TINY.width, "N"]), "mean": (_F, []), "scale": (_F, [])}
    g.save(path, inputs, {"feat": (_F, ["M", TINY.width])})


def _convolved(g: Graph, x: str, stride: int, kernel: Array, bias: Array) -> str:
    """x[time, channels] -> [frames, channels out]: a convolution as one matrix product, which is
    faster for the few frames of an update."""
    taps = _taps(g, x, stride, kernel.shape[2])
    return g.op("Add", g.op("MatMul", taps, g.const(_flat(kernel))), g.const(bias))


def _convolved_in_8_bits(g: Graph, x: str, stride: int, kernel: Array, bias: Array) -> str:
    """As `_convolved`, but faster: with weights of 8 bits, and x of 15 bits as two parts of 8.

    8 bits of x alone would be too coarse, because some of its values are 40 times its root mean
    square.
    """
    weight, weight_scale, weight_zero = g.weight(quantise(_flat(kernel).T))
    high, scale, zero = g.ops("DynamicQuantizeLinear", x, names=[None] * 3)
    rest = g.op("Sub", x, g.op("DequantizeLinear", high, scale, zero))
    finer = g.const(np.float32(1 / 128))
    low = g.op("QuantizeLinear", rest, g.op("Mul", scale, finer), zero)
    both = g.op("Concat", *(_taps(g, x, stride, kernel.shape[2]) for x in (high, low)), axis=0)
    product = g.op("MatMulIntegerToFloat", both, weight, scale, weight_scale, zero, weight_zero)
    coarse, fine = g.ops("Split", product, names=[None] * 2, axis=0, num_outputs=2)
    return g.op("Add", g.op("Add", coarse, g.op("Mul", fine, finer)), g.const(bias))


def _taps(g: Graph, x: str, stride: int, width: int) -> str:
    """x[time, channels] -> [frames, width * channels]: what each output frame sees."""
    ends = [*range(1 - width, 0), END]
    taps = [
        g.op("Slice", x, *map(g.ints, (tap, end, 0, stride)))
        for tap, end in zip(range(width), ends, strict=True)
    ]
    return g.op("Concat", *taps, axis=1)


def _flat(kernel: Array) -> Array:
    """[out, channels, width] -> [width * channels, out]"""
    return np.concatenate([kernel[:, :, tap].T for tap in range(kernel.shape[2])])


def _encoder(weights: Weights, path: Path, groups: int, parts: int) -> None:
    """groups, parts: the heads, and the feed-forward layers, are processed in so many parts, one
    after the other, which keeps the largest tensors small."""
    g = _graph()
    g.op("Unsqueeze", "pos0", g.ints(0), name="start")
    x = "feat"
    for layer in range(TINY.layers):
        place = f"layers.{layer}."
        h = g.norm(x, weights[place + "input_layernorm"])
        h = g.self_attention(h, weights, place + "self_attn.", layer, groups=groups, kept="kept")
        x = g.op("Add", x, h)
        h = g.norm(x, weights[place + "post_attention_layernorm"])
        for part in np.split(np.arange(TINY.feed_forward), parts):
            inner = g.op("Gelu", g.linear(h, columns(weights[place + "mlp.fc1"], part)))
            x = g.op("Add", x, g.linear(inner, rows(weights[place + "mlp.fc2"], part)))
    g.norm(x, weights["layer_norm"], name="out")
    g.join_kv()
    inputs = {"feat": (_F, ["n", TINY.width]), "pos0": (_I, []), "kept": (_I, [1])}
    outputs = {"out": (_F, ["n", TINY.width]), "kv": _kv("f")}
    g.save(path, inputs | _caches("past_", "t"), outputs)


def _cross(weights: Weights, path: Path) -> None:
    g = _graph()
    for layer in range(TINY.layers):
        place = f"model.decoder.layers.{layer}.encoder_attn."
        joined = joined_weights([weights[f"{place}{kind}_proj"] for kind in "kv"])
        g.heads(g.linear("h", joined), name=f"kv_{layer}")
    shape = [2 * TINY.heads, "n", TINY.head_dim]
    outputs = {f"kv_{layer}": (_F, shape) for layer in range(TINY.layers)}
    g.save(path, {"h": (_F, ["n", TINY.width])}, outputs)


def _decoder(weights: Weights, path: Path, tokens: Sequence[int]) -> None:
    g = _graph()
    _, scale, zero = weights["embed"]
    x = g.op("DequantizeLinear", "rows", g.const(np.float32(scale)), g.const(zero))
    g.op("Unsqueeze", "positions", g.ints(0), name="start")
    alignment = []
    for layer in range(TINY.layers):
        place = f"model.decoder.layers.{layer}."
        h = g.norm(x, weights[place + "input_layernorm"])
        h = g.self_attention(h, weights, place + "self_attn.", layer, mask="mask")
        x = g.op("Add", x, h)
        h = g.norm(x, weights[place + "post_attention_layernorm"])
        q = g.heads(g.linear(h, weights[place + "encoder_attn.q_proj"]))
        attention = g.op("Softmax", g.scores(q, f"cross_k_{layer}"), axis=-1)
        if layer in ALIGNMENT_HEADS:
            alignment.append(g.op("Gather", attention, g.ints(*ALIGNMENT_HEADS[layer]), axis=0))
        h = g.merge(g.op("MatMul", attention, f"cross_v_{layer}"))
        x = g.op("Add", x, g.linear(h, weights[place + "encoder_attn.o_proj"]))
        h = g.norm(x, weights[place + "final_layernorm"])
        h = g.linear(h, weights[place + "mlp.fc1"])
        halves = g.ints(TINY.feed_forward, TINY.feed_forward)
        up, gate = g.ops("Split", h, halves, names=[None] * 2, axis=-1)
        silu = g.op("QuickGelu", gate, alpha=1.0)
        x = g.op("Add", x, g.linear(g.op("Mul", up, silu), weights[place + "mlp.fc2"]))
    add_top_tokens(g, g.norm(x, weights["model.decoder.norm"]), weights["proj_out"], tokens, EOS)
    attention = g.op("ReduceMean", g.op("Concat", *alignment, axis=0), g.ints(0), keepdims=0)
    g.op("ArgMax", attention, axis=-1, keepdims=0, name="heard")
    g.join_kv()
    inputs = {
        "rows": (TensorProto.UINT8, ["n", TINY.width]),
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
        "kv": _kv("n"),
    }
    g.save(path, inputs, outputs)


def build(upstream: Path, out: Path, streaming_encoder: Path | None, language: str) -> None:
    """Writes `edged.stt.moonshine.build_version.GRAPH_FILES` into `out`.

    upstream: folder of the two .ort files and tokenizer.bin. streaming_encoder: .npz with the
    adapted layers of the first pass's encoder; None keeps upstream's. language: of the model, which
    decides which tokens a transcript may have.
    """
    encoder, decoder = read_weights(upstream)
    out.mkdir(parents=True, exist_ok=True)
    streaming = adapt(encoder, streaming_encoder, ADAPTED_SHARE) if streaming_encoder else encoder
    _conv1(encoder, out / "conv1.onnx")
    _conv23(encoder, out / "conv23.onnx")
    _encoder(streaming, out / "encoder.onnx", groups=4, parts=1)
    _encoder(encoder, out / "encoder_full.onnx", groups=8, parts=4)
    _cross(decoder, out / "cross.onnx")
    vocabulary = PieceVocabulary.load(upstream / "tokenizer.bin")
    _decoder(decoder, out / "decoder.onnx", transcript_tokens(vocabulary, language))
    (out / EMBEDDING).write_bytes(decoder["embed"][0].tobytes())
