"""The decoder's last product: the most probable tokens, without all logits in memory at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edged.export.graph import Graph
from edged.export.weights import Array, Linear, columns

PARTS = 4  # of the vocabulary, one after the other, which keeps the largest tensors small
GROUP = 64  # tokens of which only the most probable one is compared first


def add_top_tokens(
    g: Graph,
    x: str,
    weight: Linear,
    tokens: Sequence[int],
    eos: int,
    total: str | None = None,
) -> None:
    """Adds the outputs `tokens` and `p`, [n, most], the most probable first, and `p_end`, [n].

    x: name of the decoder's states [n, width]. weight: of the output projection. tokens: the
    vocabulary that a transcript may have; all other tokens are impossible, and so are the last few
    that do not fill a group, which in upstream's vocabulary are the rarest letters. eos: the token
    whose probability is `p_end`. total: name of an output [n, 1], the logarithm of the sum of all
    tokens' exponentials. The graph needs an input `most`, [1].

    The maximum of each group is much cheaper than a search of all logits, and the groups with the
    `most` highest maxima contain the `most` most probable tokens.
    """
    even = len(tokens) // (PARTS * GROUP) * PARTS * GROUP
    searched = g.op("Min", "most", g.ints(even // (PARTS * GROUP)))  # groups of a part
    found, logits, sums = [], [], []
    for part in np.split(np.asarray(tokens[:even], np.int64), PARTS):
        some = g.linear(x, _columns(weight, part))
        groups = g.op("Reshape", some, g.ints(0, -1, GROUP))
        peaks = g.op("ReduceMax", groups, g.ints(2), keepdims=0)
        _, at = g.ops("TopK", peaks, searched, names=[None, None], axis=-1)
        few = g.op("GatherND", groups, g.op("Unsqueeze", at, g.ints(2)), batch_dims=1)
        few = g.op("Reshape", few, g.ints(0, -1))
        names = g.op("Gather", g.const(part.reshape(-1, GROUP)), at)
        logits.append(few)
        found.append(g.op("Reshape", names, g.ints(0, -1)))
        # The last operators that need `some`, so that they reuse its memory. Otherwise ONNX Runtime
        # would run the first half of every part before the second half of any.
        highest = g.op("ReduceMax", few, g.ints(1), keepdims=1)
        shares = g.op("Exp", g.op("Sub", some, highest))
        log_sum = g.op("Log", g.op("ReduceSum", shares, g.ints(1), keepdims=1))
        sums.append(g.op("Add", log_sum, highest))
        if eos in part:
            end = g.op("Gather", shares, g.ints(int(np.flatnonzero(part == eos)[0])), axis=-1)
            end = g.op("Add", g.op("Log", end), highest)
    joined = g.op("Concat", *sums, axis=-1)
    total = g.op("ReduceLogSumExp", joined, g.ints(1), keepdims=1, name=total)
    best, at = g.ops("TopK", g.op("Concat", *logits, axis=-1), "most", names=[None, None], axis=-1)
    g.op("GatherElements", g.op("Concat", *found, axis=-1), at, axis=-1, name="tokens")
    g.op("Exp", g.op("Sub", best, total), name="p")
    g.op("Squeeze", g.op("Exp", g.op("Sub", end, total)), g.ints(1), name="p_end")


def _columns(weight: Linear, some: Array) -> Linear:
    """`columns`, but one scale for all outputs stays one."""
    (q, scale, zero), bias = weight
    if np.size(scale) > 1 or bias is not None:
        return columns(weight, some)
    return (q[:, some], scale, zero), None
