"""Builds what edged runs of a Moonshine streaming model from upstream's encoder and decoder.

Upstream (Moonshine AI, MIT) publishes five graphs in ORT format. Three of them run as they are.
The encoder has no state, so that every call encodes 96 frames and more again; the decoder reads
tokens one behind the other only, and copies all its caches in every call. Both are rewired, with
upstream's weights and operators unchanged:

    encoder    features[1,n,enc], mask_B_A[n,t] for each kind of window, past_* of 16 frames
               -> encoded[1,n,enc], k_*, v_* of the past and the new frames
    decoder    token[1,n], positions[n], mask[n,s], most[1], past_*, cross_*
               -> tokens[n,most], p[n,most] the most probable first, p_end[n], heard[n], kv

`heard` is the frame with the most cross-attention. Upstream's own word times normalise each head
over the frames, take the median of seven frames and the mean of all heads. Here it is the mean of
the normalised heads, in which peaks narrower than four frames are removed: the median does that
too, at many times the cost.

How a graph computes something is not known before it is seen, and another exporter may do it
another way. So its tensors are recognised by their values (`graph_surgery`), and every rewired
graph is compared with upstream's own. Where a part is not recognised, the graph stays as it is:

    encoder    features[1,w,enc] -> encoded[1,w,enc]      edged encodes windows of frames
    decoder    token, k_self, v_self, out_k_cross, out_v_cross, most -> tokens, p, p_end, heard,
               out_k_self, out_v_self                     edged reads branch by branch
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edged.errors import ModelError
from edged.export.graph_surgery import Surgery
from edged.export.weights import Array
from edged.ortsession import open_session
from edged.stt.family import Floats
from edged.stt.moonshine_streaming.build_version import DECODER, ENCODER
from edged.stt.moonshine_streaming.encoder import CachedEncoding, Encoding, WindowEncoding
from edged.stt.moonshine_streaming.specification import (
    CONFIG,
    LEFT_CONTEXT,
    TOKENIZER,
    UPSTREAM_DECODER,
    UPSTREAM_ENCODER,
    Sizes,
    read_config,
)
from edged.stt.moonshine_streaming.upstream import check_upstream
from edged.stt.moonshine_streaming.vocabulary import StreamingVocabulary

OPENED_FRAMES = 4  # narrower peaks of attention are removed
# A rewired graph may differ from upstream's by this (relative RMS), or by twice as much as that one
# differs from itself in 8 bits when it is run in other pieces.
EXACT = 0.01
_F, _I = TensorProto.FLOAT, TensorProto.INT64
_LOWEST = -1e9
_GROUP = 64  # tokens of which only the most probable one is compared first
_LENGTHS = (71, 83, 97, 101, 103, 107, 109, 113)  # of probes: none may equal a size


class _UnknownFormError(Exception):
    """A part of a graph was not recognised."""


def build(
    upstream: Path,
    out: Path,
    streaming_encoder: Path | None,
    language: str,
    rewire: bool = True,
) -> None:
    """Writes `edged.stt.moonshine_streaming.build_version.GRAPH_FILES` into `out`.

    upstream: folder of upstream's files. streaming_encoder: not used. language: of the model.
    rewire: False keeps upstream's graphs as they are, for comparison. Raises ModelError, which
    names the file, if one of them is not of the known form.
    """
    sizes = read_config(upstream / CONFIG)
    vocabulary = StreamingVocabulary.load(upstream / TOKENIZER, sizes, language)
    check_upstream(upstream, sizes)
    out.mkdir(parents=True, exist_ok=True)
    _encoder(upstream / UPSTREAM_ENCODER, out / ENCODER, sizes, rewire)
    tokens = vocabulary.transcript_tokens()
    _decoder(upstream / UPSTREAM_DECODER, out / DECODER, sizes, tokens, rewire)


# ---- encoder ------------------------------------------------------------------------------------
def _encoder(upstream: Path, out: Path, sizes: Sizes, rewire: bool) -> None:
    try:
        if not rewire:
            raise _UnknownFormError("as it was published")
        _write_cached_encoder(upstream, out, sizes)
        _compare_encoders(upstream, out, sizes)
    except _UnknownFormError as reason:
        Surgery.open(upstream).finish(out, f"windows of frames ({reason})")


def _write_cached_encoder(upstream: Path, out: Path, sizes: Sizes) -> None:
    g = Surgery.open(upstream)
    frames, others = _lengths(sizes, 2, least=LEFT_CONTEXT + 20)
    values, longer = (
        g.values({"features": _random(1, n, sizes.encoder_dim)}) for n in (frames, others)
    )
    dependent = g.dependent_on(["features"])
    layers = _softmaxes(g, values, frames)
    if len(layers) != sizes.depth:
        raise _UnknownFormError(f"{len(layers)} layers of attention were found")
    windows = [_window(values[node.output[0]]) for node in layers]
    for what, seen, expected in (
        ("behind", sum(behind for behind, _ in windows), sizes.left_context),
        ("ahead", sum(ahead for _, ahead in windows), sizes.lookahead),
    ):
        if seen != expected:
            raise ModelError(
                f"{upstream} is not of the form of a Moonshine streaming model: its layers see"
                f" {seen} frames {what} instead of {expected}"
            )
    if max(behind for behind, _ in windows) > LEFT_CONTEXT:
        raise _UnknownFormError("a layer sees further behind than others")
    masks = {w: g.input(f"mask_{w[0]}_{w[1]}", _F, ["n", "t"]) for w in sorted(set(windows))}

    def join(source: str, layer: int, kind: str, user: onnx.NodeProto) -> None:
        shape = values[source].shape
        axes = [
            i for i, (a, b) in enumerate(zip(shape, longer[source].shape, strict=True)) if a != b
        ]
        if len(axes) != 1 or shape[axes[0]] != frames:
            raise _UnknownFormError("keys or values were not found")
        lengths: list[int | str] = list(shape)
        past, both = ([*lengths[: axes[0]], n, *lengths[axes[0] + 1 :]] for n in ("past", "t"))
        cache = g.input(f"past_{kind}_{layer}", _F, past)
        joined = g.op("Concat", cache, source, out=f"{kind}_{layer}", axis=axes[0])
        g.output(joined, _F, both)
        g.replace(source, joined, only=[user])

    for layer, (softmax, window) in enumerate(zip(layers, windows, strict=True)):
        product = _masked_anew(g, softmax, masks[window], values, dependent, frames)
        transpose = g.producer(product.input[1])
        if transpose is not None and transpose.op_type == "Transpose":
            join(transpose.input[0], layer, "k", transpose)
        else:
            join(product.input[1], layer, "k", product)
        users = [n for n in g.consumers(softmax.output[0]) if n.op_type.endswith("MatMul")]
        if len(users) != 1 or users[0].input[0] != softmax.output[0]:
            raise _UnknownFormError("the product of attention and values was not found")
        join(users[0].input[1], layer, "v", users[0])
    try:
        g.finish(out, "keys and values of frames are kept")
    except ValueError as error:
        raise _UnknownFormError(str(error)) from error


def _window(attention: Array) -> tuple[int, int]:
    """(frames behind, frames ahead) that each frame attends to, both without itself."""
    seen: Array = np.any(attention > 0, tuple(range(attention.ndim - 2)))
    frames = np.arange(len(seen))
    distance = np.subtract.outer(frames, frames)
    behind, ahead = int(distance[seen].max()), int(-distance[seen].min())
    if not np.array_equal(seen, (distance <= behind) & (distance >= -ahead)):
        raise _UnknownFormError("attention has no window")
    return behind, ahead


def _masked_anew(
    g: Surgery,
    softmax: onnx.NodeProto,
    mask: str,
    values: dict[str, Array],
    dependent: set[str],
    frames: int,
) -> onnx.NodeProto:
    """Puts `mask` in the place of the graph's own and returns the product of queries and keys."""

    def is_mask(name: str) -> bool:
        array = values.get(name)
        return name not in dependent and array is not None and array.shape[-2:] == (frames, frames)

    node, masked = g.producer(softmax.input[0]), 0
    while node is not None and node.op_type in ("Add", "Where", "Mul", "Div"):
        inner = [name for name in node.input if name in dependent]
        if len(inner) != 1:
            raise _UnknownFormError("the scores of attention were not found")
        if own := [name for name in node.input if is_mask(name)]:
            masked += 1
            if node.op_type == "Add":
                g.replace(own[0], mask, only=[node])
            elif node.op_type == "Where":
                g.replace(node.output[0], g.op("Add", inner[0], mask))
            else:
                raise _UnknownFormError("the mask of attention was not found")
        node = g.producer(inner[0])
    if node is None or node.op_type not in ("MatMul", "FusedMatMul") or masked != 1:
        raise _UnknownFormError("the scores of attention were not found")
    return node


def _compare_encoders(upstream: Path, out: Path, sizes: Sizes) -> None:
    """Raises if the rewired encoder, a few frames at a time, differs from upstream's."""
    features = _random(8 * sizes.lookahead + 7, sizes.encoder_dim)
    theirs = open_session(upstream, 1)
    whole = theirs.run(["encoded"], {"features": features[None]})[0][0]
    rounding = _difference(_streamed(WindowEncoding(theirs, sizes), features, sizes), whole)
    ours = _streamed(CachedEncoding(open_session(out, 1), sizes), features, sizes)
    _raise_if_different(ours, whole, rounding)


def _streamed(encoding: Encoding, features: Floats, sizes: Sizes) -> Floats:
    done, parts = 0, []
    for stop in (*range(sizes.lookahead + 1, len(features), 11), len(features)):
        final = stop if stop == len(features) else stop - sizes.lookahead
        parts.append(encoding.encode(features[done:stop], final - done))
        done = final
    return np.concatenate(parts)


# ---- decoder ------------------------------------------------------------------------------------
def _decoder(upstream: Path, out: Path, sizes: Sizes, tokens: Sequence[int], rewire: bool) -> None:
    try:
        if not rewire:
            raise _UnknownFormError("as it was published")
        _write_tree_decoder(upstream, out, sizes, tokens)
        _compare_decoders(upstream, out, sizes, tokens)
    except _UnknownFormError as reason:
        g = Surgery.open(upstream)
        lengths = _lengths(sizes, 3)
        values = g.values(_decoder_feed(sizes, *lengths))
        _add_results(g, values, sizes, tokens, lengths[2], upstream)
        _keep_outputs(g, (*_RESULTS, "out_k_self", "out_v_self"))
        g.finish(out, f"branch by branch ({reason})")


def _write_tree_decoder(upstream: Path, out: Path, sizes: Sizes, tokens: Sequence[int]) -> None:
    g = Surgery.open(upstream)
    new, past, heard = _lengths(sizes, 3)
    values = g.values(_decoder_feed(sizes, new, past, heard))
    _add_results(g, values, sizes, tokens, heard, upstream)
    layers = _softmaxes(g, values, past + new)
    if len(layers) != sizes.depth:
        raise _UnknownFormError(f"{len(layers)} layers of attention were found")
    mask = g.input("mask", _F, ["n", "s"])
    for softmax in layers:
        g.replace(softmax.input[0], g.op("Add", softmax.input[0], mask), only=[softmax])
    _take_positions(g, values, new, past)
    own: list[str] = []
    caches = {}
    for kind in ("k", "v"):
        caches[kind] = _take_layers(g, values, f"{kind}_self", f"past_{kind}", past)
        _take_layers(g, values, f"out_{kind}_cross", f"cross_{kind}", heard)
    for layer in range(sizes.depth):
        for kind in ("k", "v"):
            joined = [n for n in g.consumers(caches[kind][layer]) if n.op_type == "Concat"]
            expected = values[f"out_{kind}_self"][layer, 0, :, past:]
            if len(joined) != 1 or len(joined[0].input) != 2:
                raise _UnknownFormError("new keys and values were not found")
            name = joined[0].input[1]
            if not np.array_equal(values[name].ravel(), expected.ravel()):
                raise _UnknownFormError("new keys and values were not found")
            own.append(g.op("Reshape", name, g.ints(sizes.heads, -1, sizes.head_dim)))
    g.op("Concat", *own, out="kv", axis=0)
    g.output("kv", _F, [len(own) * sizes.heads, "n", sizes.head_dim])
    _keep_outputs(g, (*_RESULTS, "kv"))
    try:
        g.finish(out, "trees of tokens")
    except ValueError as error:
        raise _UnknownFormError(str(error)) from error
    stacks = {"k_self", "v_self", "out_k_cross", "out_v_cross"}
    if stacks.intersection(value.name for value in g.graph.input):
        raise _UnknownFormError("the caches of all layers are still needed")


def _take_positions(g: Surgery, values: dict[str, Array], new: int, past: int) -> None:
    """Rotary angles come from the input `positions`, in place of those of consecutive tokens."""
    places = g.op("Cast", g.input("positions", _I, ["n"]), to=_F)
    users = g.nodes("Cos", "Sin")
    if not users:
        raise _UnknownFormError("rotary angles were not found")
    for angle in dict.fromkeys(node.input[0] for node in users):
        array = values[angle]
        if list(array.shape).count(new) != 1:
            raise _UnknownFormError("rotary angles were not found")
        axis = array.shape.index(new)
        rows = np.moveaxis(array, axis, 0)
        whole = 1 << (past + new - 1).bit_length() - 1  # the angle of a power of two is exact
        frequencies = rows[whole - past] / whole
        turns = (past + np.arange(new)).reshape(-1, *[1] * (array.ndim - 1))
        if not np.allclose(rows, turns * frequencies, rtol=1e-4, atol=1e-4):
            raise _UnknownFormError("rotary angles were not found")
        shape = [-1 if i == axis else 1 for i in range(array.ndim)]
        factors = g.const(np.expand_dims(frequencies, axis).astype(np.float32))
        g.replace(angle, g.op("Mul", g.op("Reshape", places, g.ints(*shape)), factors), only=users)


def _take_layers(
    g: Surgery, values: dict[str, Array], stack: str, prefix: str, length: int
) -> list[str]:
    """The parts of an input that holds all layers become inputs of their own; returns their names,
    a layer each."""
    layers = values[stack]
    names: list[str] = []
    for layer, part in enumerate(layers):
        same = [
            name
            for node in g.graph.node
            for name in node.output
            if name in values
            and values[name].dtype == part.dtype
            and values[name].size == part.size
            and np.array_equal(values[name].ravel(), part.ravel())
        ]
        if not same or list(values[same[-1]].shape).count(length) != 1:
            raise _UnknownFormError(f"the layers of {stack} were not found")
        found = same[-1]  # the last one, because a part may be taken in several steps
        shape = ["past" if n == length else n for n in values[found].shape]
        names.append(g.input(f"{prefix}_{layer}", _F, shape))
        g.replace(found, names[-1])
    # Lengths are often computed from the shape of the whole input.
    sample = next(v for v in g.graph.input if v.name == names[0])
    axis = next(i for i, d in enumerate(sample.type.tensor_type.shape.dim) if d.dim_param)
    for node in [n for n in g.consumers(stack) if n.op_type == "Shape"]:
        count = g.op("Slice", g.op("Shape", names[0]), g.ints(axis), g.ints(axis + 1))
        lengths = [count if n == length else g.ints(n) for n in layers.shape]
        attributes = {a.name: a.i for a in node.attribute}
        some = lengths[attributes.get("start", 0) : attributes.get("end", len(lengths))]
        g.replace(node.output[0], g.op("Concat", *some, axis=0))
    return names


_RESULTS = ("tokens", "p", "p_end", "heard")


def _add_results(
    g: Surgery,
    values: dict[str, Array],
    sizes: Sizes,
    tokens: Sequence[int],
    heard: int,
    upstream: Path,
) -> None:
    """Adds the outputs `_RESULTS`. tokens: those that a transcript may have; all others are
    impossible. heard: how many frames were attended to."""
    looks = _softmaxes(g, values, heard)
    if len(looks) != sizes.depth:
        raise ModelError(
            f"{upstream} is not of the form of a Moonshine streaming model: cross-attention of"
            f" {len(looks)} layers was found instead of {sizes.depth}, without which words have no"
            " times"
        )
    _add_heard(g, [node.output[0] for node in looks])
    bias = np.full(sizes.vocabulary, _LOWEST, np.float32)
    bias[list(tokens)] = 0
    size = next(n for n in (_GROUP, 32, 16, 8, 4, 2, 1) if sizes.vocabulary % n == 0)
    count = sizes.vocabulary // size
    most = g.op("Min", g.input("most", _I, [1]), g.ints(count))
    logits = g.op("Add", g.op("Reshape", "logits", g.ints(-1, sizes.vocabulary)), g.const(bias))
    groups = g.op("Reshape", logits, g.ints(-1, count, size))
    peaks = _reduced(g, "ReduceMax", groups, 2, keepdims=0)
    _, at = g.ops("TopK", peaks, most, outs=["", ""], axis=-1)
    few = g.op("GatherND", groups, g.op("Unsqueeze", at, g.ints(2)), batch_dims=1)
    best, found = g.ops(
        "TopK",
        g.op(
            "Reshape",
            few,
            g.op(
                "Concat", g.op("Slice", g.op("Shape", at), g.ints(0), g.ints(1)), g.ints(-1), axis=0
            ),
        ),
        most,
        outs=["", ""],
        axis=-1,
    )
    group = g.op("GatherElements", at, g.op("Div", found, g.const(np.int64(size))), axis=1)
    rest = g.op("Mod", found, g.const(np.int64(size)))
    g.op("Add", g.op("Mul", group, g.const(np.int64(size))), rest, out="tokens")
    highest = _reduced(g, "ReduceMax", peaks, 1, keepdims=1)
    shares = g.op("Exp", g.op("Sub", logits, highest))
    total = g.op("Add", g.op("Log", _reduced(g, "ReduceSum", shares, 1, keepdims=1)), highest)
    g.op("Exp", g.op("Sub", best, total), out="p")
    end = g.op("Gather", logits, g.ints(sizes.eos), axis=1)
    g.op("Squeeze", g.op("Exp", g.op("Sub", end, total)), g.ints(1), out="p_end")
    g.output("tokens", _I, ["n", "k"])
    g.output("p", _F, ["n", "k"])
    g.output("p_end", _F, ["n"])
    g.output("heard", _I, ["n"])


def _add_heard(g: Surgery, looks: Sequence[str]) -> None:
    layers = []
    for look in looks:  # [1, heads, n, frames]
        off = g.op("Sub", look, _reduced(g, "ReduceMean", look, -1, keepdims=1))
        power = _reduced(g, "ReduceMean", g.op("Mul", off, off), -1, keepdims=1)
        spread = g.op("Sqrt", g.op("Add", power, g.const(np.float32(1e-12))))
        layers.append(_reduced(g, "ReduceMean", g.op("Div", off, spread), 1, keepdims=0))
    mean = g.op("Sum", *layers)  # [1, n, frames]
    before, behind = (OPENED_FRAMES - 1) // 2, OPENED_FRAMES // 2
    size = [OPENED_FRAMES]
    lowest = g.op("MaxPool", g.op("Neg", mean), kernel_shape=size, pads=[before, behind])
    opened = g.op("MaxPool", g.op("Neg", lowest), kernel_shape=size, pads=[behind, before])
    g.op("Reshape", g.op("ArgMax", opened, axis=2, keepdims=0), g.ints(-1), out="heard")


def _keep_outputs(g: Surgery, names: Iterable[str]) -> None:
    wanted = set(names)
    kept = [value for value in g.graph.output if value.name in wanted]
    del g.graph.output[:]
    g.graph.output.extend(kept)


def _reduced(g: Surgery, kind: str, x: str, axis: int, keepdims: int) -> str:
    """Axes are an input from opset 18 on (of sums from 13 on), before that an attribute."""
    opset = next(o.version for o in g.model.opset_import if o.domain in ("", "ai.onnx"))
    if opset >= 18 or kind == "ReduceSum":
        return g.op(kind, x, g.ints(axis), keepdims=keepdims)
    return g.op(kind, x, axes=[axis], keepdims=keepdims)


def _compare_decoders(upstream: Path, out: Path, sizes: Sizes, tokens: Sequence[int]) -> None:
    """Raises if the rewired decoder differs from upstream's: on tokens one behind the other, and on
    a fork of two branches, which it reads at once and upstream's one after the other."""
    new, past, heard = _lengths(sizes, 3)
    feed = _decoder_feed(sizes, new, past, heard)
    branch = [int(token) for token in feed["token"][0]]
    theirs, ours = open_session(upstream, 1), open_session(out, 1)

    def read(given: dict[str, Array], some: list[int]) -> tuple[Array, Array]:
        """(new keys and values, probabilities) of upstream's decoder behind the caches given."""
        names = ["logits", "out_k_self", "out_v_self"]
        logits, *kv = theirs.run(names, {**given, "token": np.array([some])})
        chosen = logits[0][:, list(tokens)].astype(np.float64)
        shares = np.exp(chosen - chosen.max(1, keepdims=True))
        kv = np.stack(kv)[:, :, 0, :, given["k_self"].shape[3] :]
        return kv, shares / shares.sum(1, keepdims=True)

    def differences(got: tuple[Array, ...], expected: tuple[Array, Array]) -> list[float]:
        """Of keys and values, and of probabilities."""
        kv, best, p = got
        places = {token: at for at, token in enumerate(tokens)}
        at = np.vectorize(places.__getitem__)(best)
        off = np.abs(np.take_along_axis(expected[1], at, 1) - p).max()
        return [_difference(kv, expected[0]), float(off)]

    at_once = read(feed, branch)
    # What 8 bits round depends on all that is read in one call, in upstream's graph as in ours.
    one_by_one, given = [], dict(feed)
    for token in branch:
        one_by_one.append(read(given, [token]))
        for name, new_kv in zip(("k_self", "v_self"), one_by_one[-1][0], strict=True):
            given[name] = np.concatenate((given[name], new_kv[:, None]), 3)
    singly = tuple(
        np.concatenate(parts, at)
        for at, parts in zip((3, 0), zip(*one_by_one, strict=True), strict=True)
    )
    rounding = [_difference(singly[0], at_once[0]), float(np.abs(singly[1] - at_once[1]).max())]
    chain = _read_rewired(ours, sizes, feed, branch, [branch])
    for off, most in zip(differences(chain, at_once), rounding, strict=True):
        _raise_if_unequal(off, most)
    fork = [branch[:1], branch[1:]]
    parts = [read(feed, some) for some in fork]
    expected = (
        np.concatenate([part[0] for part in parts], 3),
        np.concatenate([part[1] for part in parts]),
    )
    got = _read_rewired(ours, sizes, feed, branch, fork)
    for off, most in zip(differences(got, expected), rounding, strict=True):
        _raise_if_unequal(off, most)


def _read_rewired(
    session: Any, sizes: Sizes, feed: dict[str, Array], tokens: list[int], fork: list[list[int]]
) -> tuple[Array, Array, Array]:
    """(new keys and values, most probable tokens, their probabilities) of branches that all follow
    the caches given."""
    past = feed["k_self"].shape[3]
    mask = np.full((len(tokens), past + len(tokens)), _LOWEST, np.float32)
    mask[:, :past] = 0
    positions: list[int] = []
    for some in fork:
        for n in range(len(some)):
            row = len(positions)
            mask[row, past + row - n : past + row + 1] = 0
            positions.append(past + n)
    given = {
        "token": np.array([tokens]),
        "positions": np.array(positions),
        "mask": mask,
        "most": np.array([4]),
    }
    for value in session.get_inputs():
        prefix, _, rest = value.name.partition("_")
        if prefix in ("past", "cross"):
            kind, layer = rest.split("_")
            stack = f"{kind}_self" if prefix == "past" else f"out_{kind}_cross"
            shape = [-1 if isinstance(n, str) else n for n in value.shape]
            given[value.name] = feed[stack][int(layer)].reshape(shape)
    kv, best, p = session.run(["kv", "tokens", "p"], given)
    kv = kv.reshape(sizes.depth, 2, sizes.heads, len(tokens), sizes.head_dim)
    return kv.swapaxes(0, 1), best, p


# ---- both ---------------------------------------------------------------------------------------
def _softmaxes(g: Surgery, values: dict[str, Array], length: int) -> list[onnx.NodeProto]:
    """The operators that give attention to so many positions, in their order."""
    return [n for n in g.nodes("Softmax") if values[n.output[0]].shape[-1] == length]


def _lengths(sizes: Sizes, count: int, least: int = 0) -> list[int]:
    """Lengths for a probe that cannot be taken for one of the model's sizes."""
    known = {
        sizes.encoder_dim, sizes.decoder_dim, sizes.depth, sizes.heads, sizes.head_dim,
        sizes.vocabulary, 2 * sizes.heads, sizes.heads * sizes.head_dim,
    }  # fmt: skip
    return [n for n in _LENGTHS if n not in known and n >= least][:count]


def _decoder_feed(sizes: Sizes, new: int, past: int, heard: int) -> dict[str, Array]:
    """Random inputs of upstream's decoder: `new` tokens behind `past` ones."""
    random = np.random.default_rng(new)

    def cache(length: int) -> Array:
        shape = (sizes.depth, 1, sizes.heads, length, sizes.head_dim)
        return random.standard_normal(shape).astype(np.float32)

    return {
        "token": random.integers(0, sizes.vocabulary, (1, new)),
        "k_self": cache(past),
        "v_self": cache(past),
        "out_k_cross": cache(heard),
        "out_v_cross": cache(heard),
    }


def _random(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _raise_if_different(ours: Array, theirs: Array, rounding: float) -> None:
    _raise_if_unequal(_difference(ours, theirs), rounding)


def _raise_if_unequal(difference: float, rounding: float) -> None:
    """rounding: by how much upstream's own graph differs from itself."""
    if not difference <= max(EXACT, 2 * rounding):  # nor with NaN
        raise _UnknownFormError(f"it differs by {difference:.1%} when it is rewired")


def _difference(ours: Array, theirs: Array) -> float:
    """RMS of the difference relative to `theirs`."""
    scale = np.sqrt(np.mean(np.square(theirs, dtype=np.float64)))
    off = np.sqrt(np.mean(np.square(ours.astype(np.float64) - theirs)))
    return float(off / max(scale, 1e-12))
