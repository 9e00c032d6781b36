"""Builds Whisper's streaming graphs, with explicit caches, from CTranslate2's model.bin.

The weights are quantised to 8 bits, one scale for each output channel; convolutions, norms and
positions stay float:

    features       mel[2n+3,80], live[2n+1,1]   -> feat[n,width]   two convolutions
    encoder        feat[n,width], pos0, kept[1], bias[t], past_*, padding_*
                                                -> out[n,width], kv of the first `kept` frames
    cross          h[n,width]                   -> kv_*            what the decoder attends to
    decoder        rows[n,width], positions[n], mask[n,s+n], most[1], heard_frames[1], past_*,
                   cross_*
                                                -> tokens[n,most], p[n,most] the most probable
                                                   first, p_end[n], heard[n], kv, state[n,width],
                                                   total[n,1]
    embedding.bin  a row for each token: int8[width] and its scale, float32
    padding.npy, cross_padding.bin  what padded frames contribute (`padding_constants`)

One encoder frame is 320 samples (20 ms); frame i needs the mel frames 2i-2 .. 2i+2. `live` is 0 for
outputs of the first convolution in front of the segment, else 1. An encoder frame attends to the
cache, to the frames that are encoded with it and to padded frames, in this order; `bias` is added
to the attention of all of them. `state` and `total` give the log probability of any token: its
embedding times `state`, less `total`.

`heard` is the frame with the most attention, among the first `heard_frames`, in the mean of the
cross-attention heads that follow the audio. edged/stt/README.md says what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from onnx import TensorProto

from edged import resources
from edged.export.graph import Attention, Graph
from edged.export.topk import GROUP, PARTS, add_top_tokens
from edged.export.weights import Array, Linear, columns, quantise, rows
from edged.stt.family import Floats
from edged.stt.whisper.build_version import CROSS_PADDING, EMBEDDING, PADDING
from edged.stt.whisper.dimensions import (
    ALIGNMENT_HEADS,
    FRAME_SAMPLES,
    PADDING_STRIDE,
    WINDOW_FRAMES,
)
from edged.stt.whisper.reference import Reference
from edged.stt.whisper.vocabulary import BpeVocabulary

END = 2**62  # of a slice: to the end
IMPOSSIBLE = -1e9  # logit of a column that fills a group
MELS = 80
_F, _I = TensorProto.FLOAT, TensorProto.INT64


class _Exporter:
    def __init__(self, reference: Reference) -> None:
        self.reference, self.sizes = reference, reference.sizes

    def graph(self) -> Graph:
        return Graph(Attention(self.sizes.heads, self.sizes.head_dim))

    def linear(self, place: str) -> Linear:
        weight = self.reference.weight
        return quantise(weight(place + "/weight")), weight(place + "/bias")

    def norm(self, g: Graph, place: str, x: str, name: str | None = None) -> str:
        weight = self.reference.weight
        return g.norm(x, weight(place + "/gamma"), name, weight(place + "/beta"))

    def caches(self, names: Sequence[str], length: str) -> dict[str, Any]:
        return {name: (_F, [self.sizes.heads, length, self.sizes.head_dim]) for name in names}

    def kv(self, length: str) -> Any:
        heads = len(self.sizes.kv_names) * self.sizes.heads
        return (_F, [heads, length, self.sizes.head_dim])

    def self_qkv(self, g: Graph, place: str, x: str) -> list[str]:
        h = self.norm(g, place + "self_attention/layer_norm", x)
        joined = g.heads(g.linear(h, self.linear(place + "self_attention/linear_0")))
        heads = self.sizes.heads
        return g.ops("Split", joined, g.ints(heads, heads, heads), names=[None] * 3, axis=0)

    def feed_forward(self, g: Graph, place: str, x: str, parts: int) -> str:
        """parts: hidden units are processed in so many parts, which keeps tensors small."""
        h = self.norm(g, place + "ffn/layer_norm", x)
        up, down = self.linear(place + "ffn/linear_0"), self.linear(place + "ffn/linear_1")
        for part in np.array_split(np.arange(down[0][0].shape[0]), parts):
            inner = g.op("Gelu", g.linear(h, columns(up, part)))
            x = g.op("Add", x, g.linear(inner, rows(down, part)))
        return x

    # ---- the graphs
    def features(self, path: Path) -> None:
        g, width = self.graph(), self.sizes.width
        x = g.op("Gelu", self._convolved(g, "mel", 1, "encoder/conv1"))
        x = g.op("Mul", x, "live")
        g.op("Gelu", self._convolved(g, x, 2, "encoder/conv2"), name="feat")
        inputs = {"mel": (_F, ["t", MELS]), "live": (_F, ["m", 1])}
        g.save(path, inputs, {"feat": (_F, ["n", width])})

    def _convolved(self, g: Graph, x: str, stride: int, place: str) -> str:
        """x[time, channels] -> [frames, channels out]: a convolution of width 3 as one product."""
        kernel = self.reference.weight(place + "/weight")
        taps = [
            g.op("Slice", x, *map(g.ints, (tap, end, 0, stride)))
            for tap, end in ((0, -2), (1, -1), (2, END))
        ]
        flat = np.concatenate([kernel[:, :, tap].T for tap in range(3)])
        product = g.op("MatMul", g.op("Concat", *taps, axis=1), g.const(flat))
        return g.op("Add", product, g.const(self.reference.weight(place + "/bias")))

    def encoder(self, path: Path, groups: int, parts: int) -> None:
        """groups: attention heads are processed in so many groups, one after the other."""
        g, sizes = self.graph(), self.sizes
        positions = g.const(self.reference.weight("encoder/position_encodings/encodings"))
        start = g.op("Unsqueeze", "pos0", g.ints(0))
        stop = g.op("Add", start, g.op("Slice", g.op("Shape", "feat"), g.ints(0), g.ints(1)))
        x = g.op("Add", "feat", g.op("Slice", positions, start, stop, g.ints(0)))
        for layer in range(sizes.layers):
            place = f"encoder/layer_{layer}/"
            q, k, v = self.self_qkv(g, place, x)
            for own in (k, v):
                g.own_kv.append(g.op("Slice", own, g.ints(0), "kept", g.ints(1)))
            k = g.op("Concat", f"past_k_{layer}", k, f"padding_k_{layer}", axis=1)
            v = g.op("Concat", f"past_v_{layer}", v, f"padding_v_{layer}", axis=1)
            split = g.ints(*[sizes.heads // groups] * groups)
            each = [g.ops("Split", a, split, names=[None] * groups, axis=0) for a in (q, k, v)]
            grouped = zip(each[0], each[1], each[2], strict=True)
            values = [g.attend(*qkv, "bias") for qkv in grouped]
            value = g.op("Concat", *values, axis=0) if groups > 1 else values[0]
            h = g.linear(g.merge(value), self.linear(place + "self_attention/linear_1"))
            x = self.feed_forward(g, place, g.op("Add", x, h), parts)
        self.norm(g, "encoder/layer_norm", x, "out")
        g.join_kv()
        inputs = {
            "feat": (_F, ["n", sizes.width]),
            "pos0": (_I, []),
            "kept": (_I, [1]),
            "bias": (_F, ["all"]),
            **self.caches(sizes.past_names, "t"),
            **self.caches(sizes.padding_names, "p"),
        }
        g.save(path, inputs, {"out": (_F, ["n", sizes.width]), "kv": self.kv("f")})

    def cross(self, path: Path) -> None:
        g, sizes = self.graph(), self.sizes
        for layer in range(sizes.layers):
            weight = self.linear(f"decoder/layer_{layer}/attention/linear_1")
            g.heads(g.linear("h", weight), name=f"kv_{layer}")
        shape = [2 * sizes.heads, "n", sizes.head_dim]
        outputs = {f"kv_{layer}": (_F, shape) for layer in range(sizes.layers)}
        g.save(path, {"h": (_F, ["n", sizes.width])}, outputs)

    def decoder(self, path: Path, tokens: Sequence[int], eos: int) -> None:
        """tokens: those that a text may have, with `eos`."""
        g, sizes = self.graph(), self.sizes
        positions = g.const(self.reference.weight("decoder/position_encodings/encodings"))
        x = g.op("Add", "rows", g.op("Gather", positions, "positions", axis=0))
        followed = dict[int, list[int]]()
        for layer, head in ALIGNMENT_HEADS[sizes.layers]:
            followed.setdefault(layer, []).append(head)
        alignment = []
        for layer in range(sizes.layers):
            place = f"decoder/layer_{layer}/"
            q, k, v = self.self_qkv(g, place, x)
            g.own_kv += [k, v]
            k = g.op("Concat", f"past_k_{layer}", k, axis=1)
            v = g.op("Concat", f"past_v_{layer}", v, axis=1)
            h = g.merge(g.attend(q, k, v, "mask"))
            x = g.op("Add", x, g.linear(h, self.linear(place + "self_attention/linear_1")))
            h = self.norm(g, place + "attention/layer_norm", x)
            q = g.heads(g.linear(h, self.linear(place + "attention/linear_0")))
            attention = g.op("Softmax", g.scores(q, f"cross_k_{layer}"), axis=-1)
            if layer in followed:
                some = g.op("Gather", attention, g.ints(*followed[layer]), axis=0)
                alignment.append(g.op("Slice", some, g.ints(0), "heard_frames", g.ints(2)))
            h = g.merge(g.op("MatMul", attention, f"cross_v_{layer}"))
            x = g.op("Add", x, g.linear(h, self.linear(place + "attention/linear_2")))
            x = self.feed_forward(g, place, x, parts=1)
        x = self.norm(g, "decoder/layer_norm", x, "state")
        weight, filled = self._projection(tokens)
        add_top_tokens(g, x, weight, filled, eos, total="total")
        attention = g.op("ReduceMean", g.op("Concat", *alignment, axis=0), g.ints(0), keepdims=0)
        g.op("ArgMax", attention, axis=-1, keepdims=0, name="heard")
        g.join_kv()
        inputs = {
            "rows": (_F, ["n", sizes.width]),
            "positions": (_I, ["n"]),
            "mask": (_F, ["n", "m"]),
            "most": (_I, [1]),
            "heard_frames": (_I, [1]),
            **self.caches(sizes.past_names, "s"),
            **self.caches(sizes.cross_names, "t"),
        }
        outputs = {
            "tokens": (_I, ["n", "most"]),
            "p": (_F, ["n", "most"]),
            "p_end": (_F, ["n"]),
            "heard": (_I, ["n"]),
            "kv": self.kv("n"),
            "state": (_F, ["n", sizes.width]),
            "total": (_F, ["n", 1]),
        }
        g.save(path, inputs, outputs)

    def _projection(self, tokens: Sequence[int]) -> tuple[Linear, list[int]]:
        """The output projection and the tokens, both longer by impossible ones, so that tokens fill
        groups of groups."""
        weight = self.reference.weight("decoder/projection/weight")
        count, missing = len(weight), -len(tokens) % (PARTS * GROUP)
        q, scale, zero = quantise(np.pad(weight, ((0, missing), (0, 0))))
        bias = np.zeros(count + missing, np.float32)
        bias[count:] = IMPOSSIBLE
        return ((q, scale, zero), bias), [*tokens, *range(count, count + missing)]

    def embedding(self, path: Path) -> None:
        q, scale, zero = quantise(self.reference.weight("decoder/embeddings/weight"))
        signed = (q.T.astype(np.int16) - zero[:, None]).astype(np.int8)
        table = np.concatenate((signed, scale.astype("<f4")[:, None].view(np.int8)), 1)
        path.write_bytes(table.tobytes())


def padding_constants(reference: Reference, clips: Sequence[Floats]) -> dict[str, Array]:
    """What padded frames contribute, as means over windows of 30 s that begin with speech.

    kv: float32[2 * layers, heads, p, head_dim], the encoder's keys and values of every
    PADDING_STRIDE-th frame of the window. cross: float16[1500, 2 * layers * width], what the
    decoder attends to, by frame: keys and then values of each layer. Both where the window holds
    nothing but padding, which for each clip begins behind its end; one window is silence alone.
    """
    sizes = reference.sizes
    count = np.zeros((WINDOW_FRAMES, 1), np.float32)
    states = np.zeros((WINDOW_FRAMES, sizes.width), np.float32)
    grid = slice(PADDING_STRIDE // 2, None, PADDING_STRIDE)
    kv: Any = 0
    for clip in [*clips, np.zeros(1600, np.float32)]:
        out, own = reference.window(clip)
        padded = np.arange(WINDOW_FRAMES) >= -(-len(clip) // FRAME_SAMPLES) + 2
        weight = padded.astype(np.float32)[:, None]
        count, states = count + weight, states + weight * out
        kv = kv + np.stack([half[:, grid] * weight[grid] for layer in own for half in layer])
    count = np.maximum(count, 1)
    return {
        "kv": (kv / count[grid]).astype(np.float32),
        "cross": reference.cross(states / count).astype("<f2"),
    }


def _sample_speech() -> Iterator[Floats]:
    for path in sorted(resources.sample_speech().rglob("*.flac")):
        yield soundfile.read(path, dtype="float32")[0]


def build(upstream: Path, out: Path, streaming_encoder: Path | None, language: str) -> None:
    """Writes `edged.stt.whisper.build_version.GRAPH_FILES` into `out`.

    upstream: folder of model.bin, config.json and vocabulary.txt.
    """
    reference = Reference.load(upstream / "model.bin")
    vocabulary = BpeVocabulary.load(upstream / "vocabulary.txt")
    suppressed = set(json.loads((upstream / "config.json").read_bytes())["suppress_ids"])
    out.mkdir(parents=True, exist_ok=True)
    exporter = _Exporter(reference)
    exporter.features(out / "features.onnx")
    exporter.encoder(out / "encoder.onnx", groups=reference.sizes.heads // 2, parts=2)
    exporter.cross(out / "cross.onnx")
    tokens = [token for token in range(vocabulary.eos + 1) if token not in suppressed]
    exporter.decoder(out / "decoder.onnx", tokens, vocabulary.eos)
    exporter.embedding(out / EMBEDDING)
    constants = padding_constants(reference, list(_sample_speech()))
    np.save(out / PADDING, constants["kv"])
    (out / CROSS_PADDING).write_bytes(constants["cross"].tobytes())
