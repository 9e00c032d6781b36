"""Models of the form of Moonshine's streaming ones, with random weights, as files like upstream's.

    python -m tests.support.streaming_models OUT --size tiny --bits 8

The published files cannot be had where edged is built and tested. These have the same names,
tensors, windows, states and mathematics (../../edged/stt/moonshine_streaming/README.md), written
as torch's exporter writes them: the causal mask by `Where`, rotary angles by `Cos` and `Sin`, one
tensor of all layers' keys that each layer takes its part of. Toys are narrow, so
that they are made in a second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
FRAME = 80  # samples of a raw frame
STATES = ("sample_buffer", "sample_len", "conv1_buffer", "conv2_buffer", "frame_count")
BEHIND, AHEAD = 16, 4  # frames that an encoder layer sees; most layers see none ahead
LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. wide: the encoder's dimension; the decoder's is `narrow`. rotary: how many
    dimensions of a head are rotated. sharp: scale of the logits, so that some tokens are likely.
    attentive: scale of what the audio adds to the text. With less, the text is the same whatever
    more is heard, as the beginning of a real text is."""

    wide: int
    narrow: int
    depth: int
    heads: int
    head_dim: int
    rotary: int
    vocabulary: int
    sharp: float = 1.0
    attentive: float = 1.0
    seed: int = 1

    @property
    def windows(self) -> list[tuple[int, int]]:
        """(behind, ahead) of each layer: the first two and the last two see ahead."""
        edge = (0, 1, self.depth - 2, self.depth - 1)
        return [(BEHIND, AHEAD if i in edge else 0) for i in range(self.depth)]


ENGLISH, OTHER = 32_768, 12_288
TOYS = {
    "tiny": Shape(16, 16, 4, 2, 8, 6, ENGLISH, sharp=6.0),  # the adapter has no projection
    "small": Shape(24, 16, 5, 2, 8, 4, OTHER, sharp=6.0),  # it has one
}
REAL = {
    "tiny": Shape(320, 320, 6, 8, 40, 32, ENGLISH, sharp=6.0, attentive=0.01),
    "small": Shape(620, 512, 10, 8, 64, 32, ENGLISH, sharp=6.0, attentive=0.01),
}


class _Graph:
    """Collects operators and weights of one graph."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.random = shape, np.random.default_rng(shape.seed * 100 + seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def const(self, value: Any, name: str = "") -> str:
        name = name or f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, outs=[out], **attributes)[0]

    def ops(self, kind: str, *inputs: str, outs: list[str], **attributes: Any) -> list[str]:
        outs = [out or f"{kind}_{len(self.nodes)}_{i}" for i, out in enumerate(outs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outs, **attributes))
        return outs

    def weight(self, *shape: int, scale: float = 1.0, name: str = "") -> str:
        """Random, [in, out] or a kernel [out, in, taps]."""
        fan = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        value = self.random.standard_normal(shape) * (scale / np.sqrt(fan))
        return self.const(value.astype(np.float32), name)

    def vector(self, size: int, mean: float = 0.0, name: str = "") -> str:
        value = mean + 0.1 * self.random.standard_normal(size)
        return self.const(value.astype(np.float32), name)

    def norm(self, x: str, size: int) -> str:
        return self.op("LayerNormalization", x, self.vector(size, 1.0), axis=-1, epsilon=1e-5)

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def heads(self, x: str) -> str:
        """[1, n, heads * head_dim] -> [1, heads, n, head_dim]"""
        split = self.op("Reshape", x, self.ints(1, -1, self.shape.heads, self.shape.head_dim))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def merge(self, x: str) -> str:
        flat = self.ints(1, -1, self.shape.heads * self.shape.head_dim)
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1, 3]), flat)

    def scores(self, q: str, k: str) -> str:
        product = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        return self.op("Mul", product, self.const(np.float32(self.shape.head_dim**-0.5)))

    def length(self, x: str, axis: int) -> str:
        """A number: the length of an axis."""
        return self.op("Gather", self.op("Shape", x), self.const(np.int64(axis)), axis=0)

    def save(self, path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        def described(values: dict[str, Any]) -> list[Any]:
            return [helper.make_tensor_value_info(k, t, s) for k, (t, s) in values.items()]

        graph = helper.make_graph(
            self.nodes, path.stem, described(inputs), described(outputs), self.constants
        )
        opsets = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def _states(shape: Shape, suffix: str = "") -> dict[str, Any]:
    tensors = [
        (FLOAT, [1, FRAME - 1]),
        (INT, [1]),
        (FLOAT, [1, shape.wide, 4]),
        (FLOAT, [1, 2 * shape.wide, 4]),
        (INT, [1]),
    ]
    return {f"{name}{suffix}": tensor for name, tensor in zip(STATES, tensors, strict=True)}


def _frontend(shape: Shape, path: Path) -> None:
    g, wide = _Graph(shape, 1), shape.wide
    kept = g.op("Slice", "sample_buffer", g.ints(0), "sample_len", g.ints(1))
    audio = g.op("Concat", kept, "audio_chunk", axis=1)
    frames = g.op("Div", g.length(audio, 1), g.const(np.int64(FRAME)))
    used = g.op("Unsqueeze", g.op("Mul", frames, g.const(np.int64(FRAME))), g.ints(0))
    x = g.op("Slice", audio, g.ints(0), used, g.ints(1))
    x = g.op("Reshape", x, g.ints(1, -1, FRAME))
    x = g.op("Sub", x, g.op("ReduceMean", x, g.ints(-1), keepdims=1))
    power = g.op("ReduceMean", g.op("Mul", x, x), g.ints(-1), keepdims=1)
    x = g.op("Div", x, g.op("Sqrt", g.op("Add", power, g.const(np.float32(1e-6)))))
    x = g.op("Asinh", g.op("Mul", x, g.const(np.float32(0.75))))
    h = g.silu(g.op("MatMul", x, g.weight(FRAME, wide, name="linear.weight")))
    h = g.op("Concat", "conv1_buffer", g.op("Transpose", h, perm=[0, 2, 1]), axis=2)
    weights = g.weight(2 * wide, wide, 5, name="conv1.weight"), g.vector(2 * wide)
    c = g.silu(g.op("Conv", h, *weights, strides=[2]))
    c = g.op("Concat", "conv2_buffer", c, axis=2)
    weights = g.weight(wide, 2 * wide, 5, name="conv2.weight"), g.vector(wide)
    f = g.op("Conv", c, *weights, strides=[2])
    g.op("Transpose", f, perm=[0, 2, 1], out="features")
    rest = g.op("Slice", audio, used, g.ints(2**62), g.ints(1))
    padded = g.op("Concat", rest, g.const(np.zeros((1, FRAME - 1), np.float32)), axis=1)
    cut = g.ints(0), g.ints(FRAME - 1), g.ints(1)
    g.op("Slice", padded, *cut, out="sample_buffer_out")
    g.op("Unsqueeze", g.length(rest, 1), g.ints(0), out="sample_len_out")
    last = g.ints(-4), g.ints(2**62), g.ints(2)
    g.op("Slice", h, *last, out="conv1_buffer_out")
    g.op("Slice", c, *last, out="conv2_buffer_out")
    g.op("Add", "frame_count", frames, out="frame_count_out")
    outputs = {"features": (FLOAT, [1, "t", wide]), **_states(shape, "_out")}
    g.save(path, {"audio_chunk": (FLOAT, [1, "n"]), **_states(shape)}, outputs)


def _encoder(shape: Shape, path: Path) -> None:
    g, wide, inner = _Graph(shape, 2), shape.wide, shape.heads * shape.head_dim
    frames = g.op("Range", g.const(np.int64(0)), g.length("features", 1), g.const(np.int64(1)))
    distance = g.op(
        "Sub", g.op("Unsqueeze", frames, g.ints(1)), g.op("Unsqueeze", frames, g.ints(0))
    )
    x = "features"
    for behind, ahead in shape.windows:
        seen = g.op(
            "And",
            g.op("GreaterOrEqual", distance, g.const(np.int64(-ahead))),
            g.op("LessOrEqual", distance, g.const(np.int64(behind))),
        )
        seen = g.op("Unsqueeze", seen, g.ints(0, 1))
        mask = g.op("Where", seen, g.const(np.float32(0)), g.const(np.float32(LOWEST)))
        n = g.norm(x, wide)
        q, k = (g.heads(g.op("MatMul", n, g.weight(wide, inner, scale=1.6))) for _ in "qk")
        v = g.heads(g.op("MatMul", n, g.weight(wide, inner)))
        attention = g.op("Softmax", g.op("Add", g.scores(q, k), mask), axis=-1)
        a = g.op("MatMul", g.merge(g.op("MatMul", attention, v)), g.weight(inner, wide))
        x = g.op("Add", x, a)
        h = g.op("MatMul", g.norm(x, wide), g.weight(wide, 4 * wide))
        h = g.op("Add", h, g.vector(4 * wide))
        erf = g.op("Erf", g.op("Div", h, g.const(np.float32(np.sqrt(2)))))
        h = g.op(
            "Mul",
            g.op("Mul", h, g.op("Add", erf, g.const(np.float32(1)))),
            g.const(np.float32(0.5)),
        )
        h = g.op("Add", g.op("MatMul", h, g.weight(4 * wide, wide)), g.vector(wide))
        x = g.op("Add", x, h)
    g.op("Mul", g.norm(x, wide), g.const(np.ones(wide, np.float32)), out="encoded")
    tensor = (FLOAT, [1, "w", wide])
    g.save(path, {"features": tensor}, {"encoded": tensor})


def _adapter(shape: Shape, path: Path) -> None:
    g = _Graph(shape, 3)
    count = g.length("encoded", 1)
    frames = g.op("Range", g.const(np.int64(0)), count, g.const(np.int64(1)))
    table = g.random.standard_normal((4096, shape.wide)).astype(np.float32)
    places = g.op("Gather", g.const(0.5 * table), g.op("Add", frames, "pos_offset"), axis=0)
    projected = shape.wide != shape.narrow
    x = g.op(
        "Add", "encoded", g.op("Unsqueeze", places, g.ints(0)), out="" if projected else "memory"
    )
    if projected:
        g.op("MatMul", x, g.weight(shape.wide, shape.narrow), out="memory")
    inputs = {"encoded": (FLOAT, [1, "f", shape.wide]), "pos_offset": (INT, [1])}
    g.save(path, inputs, {"memory": (FLOAT, [1, "f", shape.narrow])})


def _cache(shape: Shape, length: str) -> Any:
    return (FLOAT, [shape.depth, 1, shape.heads, length, shape.head_dim])


def _cross_kv(shape: Shape, path: Path) -> None:
    g, inner = _Graph(shape, 4), shape.heads * shape.head_dim
    for name, scale in (("k_cross", 1.6), ("v_cross", 1.0)):
        layers = [
            g.heads(g.op("MatMul", "memory", g.weight(shape.narrow, inner, scale=scale)))
            for _ in range(shape.depth)
        ]
        each = [g.op("Unsqueeze", layer, g.ints(0)) for layer in layers]
        g.op("Concat", *each, axis=0, out=name)
    outputs = {name: _cache(shape, "m") for name in ("k_cross", "v_cross")}
    g.save(path, {"memory": (FLOAT, [1, "m", shape.narrow])}, outputs)


def _decoder(shape: Shape, path: Path) -> None:
    g, narrow, inner = _Graph(shape, 5), shape.narrow, shape.heads * shape.head_dim
    one, zero = g.const(np.int64(1)), g.const(np.int64(0))
    new, past = g.length("token", 1), g.length("k_self", 3)
    total = g.op("Add", past, new)
    words = g.random.standard_normal((shape.vocabulary, narrow)).astype(np.float32)
    x = g.op("Gather", g.const(0.5 * words), "token", axis=0)
    places = g.op("Range", past, total, one)
    rates = 10000.0 ** (-np.arange(0, shape.rotary, 2) / shape.rotary)
    turns = g.op("Cast", g.op("Unsqueeze", places, g.ints(0, 1)), to=FLOAT)
    angles = g.op("MatMul", g.const(rates.astype(np.float32)[None, :, None]), turns)
    angles = g.op("Transpose", angles, perm=[0, 2, 1])
    cos, sin = (g.op("Unsqueeze", g.op(f, angles), g.ints(1)) for f in ("Cos", "Sin"))
    keys = g.op("Range", zero, total, one)
    causal = g.op(
        "GreaterOrEqual", g.op("Unsqueeze", places, g.ints(1)), g.op("Unsqueeze", keys, g.ints(0))
    )
    hidden = g.op("Not", g.op("Unsqueeze", causal, g.ints(0, 1)))

    def rotated(y: str) -> str:
        pairs = g.ints(1, shape.heads, -1, shape.rotary // 2, 2)
        turning, still = g.ops(
            "Split", y, g.ints(shape.rotary, shape.head_dim - shape.rotary), outs=["", ""], axis=-1
        )
        a, b = g.ops(
            "Split", g.op("Reshape", turning, pairs), outs=["", ""], axis=-1, num_outputs=2
        )
        a, b = (g.op("Squeeze", half, g.ints(-1)) for half in (a, b))
        first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        second = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
        both = [g.op("Unsqueeze", half, g.ints(-1)) for half in (first, second)]
        flat = g.ints(1, shape.heads, -1, shape.rotary)
        return g.op("Concat", g.op("Reshape", g.op("Concat", *both, axis=-1), flat), still, axis=-1)

    def part(name: str, layer: int) -> str:
        return g.op("Gather", name, g.const(np.int64(layer)), axis=0)

    kept: dict[str, list[str]] = {"out_k_self": [], "out_v_self": []}
    for layer in range(shape.depth):
        n = g.norm(x, narrow)
        q, k = (
            rotated(g.heads(g.op("MatMul", n, g.weight(narrow, inner, scale=1.6)))) for _ in "qk"
        )
        v = g.heads(g.op("MatMul", n, g.weight(narrow, inner)))
        k = g.op("Concat", part("k_self", layer), k, axis=2)
        v = g.op("Concat", part("v_self", layer), v, axis=2)
        for name, value in (("out_k_self", k), ("out_v_self", v)):
            kept[name].append(g.op("Unsqueeze", value, g.ints(0)))
        scores = g.op("Where", hidden, g.const(np.float32(LOWEST)), g.scores(q, k))
        a = g.merge(g.op("MatMul", g.op("Softmax", scores, axis=-1), v))
        x = g.op("Add", x, g.op("MatMul", a, g.weight(inner, narrow)))
        q = g.heads(g.op("MatMul", g.norm(x, narrow), g.weight(narrow, inner, scale=1.6)))
        look = g.op("Softmax", g.scores(q, part("out_k_cross", layer)), axis=-1)
        a = g.merge(g.op("MatMul", look, part("out_v_cross", layer)))
        out = g.weight(inner, narrow, scale=shape.attentive)
        x = g.op("Add", x, g.op("MatMul", a, out))
        h = g.op("MatMul", g.norm(x, narrow), g.weight(narrow, 8 * narrow))
        h = g.op("Add", h, g.vector(8 * narrow))
        up, gate = g.ops("Split", h, outs=["", ""], axis=-1, num_outputs=2)
        h = g.op("MatMul", g.op("Mul", g.silu(gate), up), g.weight(4 * narrow, narrow))
        x = g.op("Add", x, g.op("Add", h, g.vector(narrow)))
    head = g.weight(narrow, shape.vocabulary, scale=shape.sharp)
    g.op("MatMul", g.norm(x, narrow), head, out="logits")
    for name, layers in kept.items():
        g.op("Concat", *layers, axis=0, out=name)
    inputs = {
        "token": (INT, [1, "l"]),
        **dict.fromkeys(("k_self", "v_self"), _cache(shape, "c")),
        **dict.fromkeys(("out_k_cross", "out_v_cross"), _cache(shape, "m")),
    }
    outputs = {
        "logits": (FLOAT, [1, "l", shape.vocabulary]),
        **dict.fromkeys(kept, _cache(shape, "s")),
        **dict.fromkeys(("out_k_cross", "out_v_cross"), _cache(shape, "m")),
    }
    g.save(path, inputs, outputs)


def config(shape: Shape) -> dict[str, Any]:
    """The content of `streaming_config.json`, in upstream's order."""
    return {
        "encoder_dim": shape.wide,
        "decoder_dim": shape.narrow,
        "depth": shape.depth,
        "nheads": shape.heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "bos_id": 1,
        "eos_id": 2,
        "frame_len": FRAME,
        "total_lookahead": sum(ahead for _, ahead in shape.windows),
        "d_model_frontend": shape.wide,
        "c1": 2 * shape.wide,
        "c2": shape.wide,
        "frontend_state_shapes": {k: list(s) for k, (_, s) in _states(shape).items()},
    }


def pieces(vocabulary: int) -> list[bytes]:
    """Three marks, the bytes, words and parts of words; an empty piece, a long one and marks at the
    end, as upstream's files have them."""
    found = [b"<unk>", b"<s>", b"</s>", *(bytes([b]) for b in range(256))]
    letters = "abcdefghijklmnopqrstuvwxyz"
    found += [
        f"{start}{a}{b}".encode() for start in ("\u2581", "") for a in letters for b in letters
    ]
    found += ["日本".encode(), "です".encode(), "\u2581straße".encode()]
    marks = vocabulary // 40
    found += [f"\u2581w{n}".encode() for n in range(vocabulary - len(found) - marks - 2)]
    found += [b"", ("\u2581" * 43).encode(), *(f"<<ST_{n}>>".encode() for n in range(marks))]
    return found


def tokenizer(of: list[bytes]) -> bytes:
    """The bytes of `tokenizer.bin`: each piece behind its length, in one byte or two."""

    def length(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n % 128 + 128, n // 128])

    return b"".join(length(len(piece)) + piece for piece in of)


def write_model(folder: Path, shape: Shape, bits: int = 32, single: bool = False) -> None:
    """Writes a model folder as upstream publishes it.

    bits: 8 multiplies with 8-bit weights and activations, as the published files do. single: with
    `frontend.ort` in place of the two files of later revisions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "streaming_config.json").write_text(json.dumps(config(shape), indent=2))
    (folder / "tokenizer.bin").write_bytes(tokenizer(pieces(shape.vocabulary)))
    writers = {
        "frontend": _frontend,
        "encoder": _encoder,
        "adapter": _adapter,
        "cross_kv": _cross_kv,
        "decoder_kv": _decoder,
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name, write in writers.items():
            source = Path(scratch, f"{name}.onnx")
            write(shape, source)
            if name == "frontend" and not single:
                _split_frontend(source, folder)
                continue
            if bits == 8 and name != "frontend":
                source = _quantised(source)
            to_ort(source, folder / f"{name}.ort")


def _quantised(source: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = source.with_name(f"8-bit-{source.name}")
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QUInt8)
    return target


def to_ort(source: Path, target: Path) -> None:
    """Saves a graph in ORT's format, optimised, as upstream's are."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(
        str(source),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["NchwcTransformer"],
    )


def _split_frontend(source: Path, folder: Path) -> None:
    """A graph whose three large weights are inputs, and one that gives them."""
    model = onnx.load(source)
    nodes, constants, outputs = [], [], []
    for large in [
        i for i in model.graph.initializer if len(i.dims) >= 2 and i.name[-6:] == "weight"
    ]:
        value, name = numpy_helper.to_array(large), f"{large.name}_add_tensor"
        axes = (0,) if value.ndim == 2 else (1, 2)
        step = (np.abs(value).max(axes, keepdims=True) / 127).astype(np.float32)
        whole = np.rint(value / step).astype(np.int8)
        parts = {"quantized": whole, "scale": step, "zero_point": np.zeros_like(step)}
        constants += [numpy_helper.from_array(v, f"{large.name}_{k}") for k, v in parts.items()]
        q, scale, zero = (f"{large.name}_{k}" for k in parts)
        nodes += [
            helper.make_node("Cast", [q], [f"{q}_float"], to=FLOAT),
            helper.make_node("Mul", [f"{q}_float", scale], [f"{q}_scaled"]),
            helper.make_node("Add", [f"{q}_scaled", zero], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, FLOAT, list(large.dims)))
        for node in model.graph.node:
            for at, used in enumerate(node.input):
                if used == large.name:
                    node.input[at] = name
        model.graph.input.append(outputs[-1])
        model.graph.initializer.remove(large)
    weights = helper.make_model(
        helper.make_graph(nodes, "weights", [], outputs, constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    for part, name in ((weights, "weights"), (model, "model")):
        onnx.save(part, source.with_name(f"{name}.onnx"))
        _plain_ort(source.with_name(f"{name}.onnx"), folder / f"frontend.{name}.ort")


def _plain_ort(source: Path, target: Path) -> None:
    """Without optimisation, which would compute the weights and store them as floats."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=REAL, default="tiny")
    parser.add_argument("--toy", action="store_true", help="narrow, for tests")
    parser.add_argument("--vocabulary", type=int, default=ENGLISH)
    parser.add_argument("--bits", type=int, choices=(8, 32), default=8)
    given = parser.parse_args()
    shape = (TOYS if given.toy else REAL)[given.size]
    write_model(given.out, replace(shape, vocabulary=given.vocabulary), given.bits)


if __name__ == "__main__":
    main()
