"""The decoder's last product: which tokens are likeliest, without all logits there at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from edged.export.graph import Graph
from edged.export.weights import Linear
from edged.stt.moonshine.vocabulary import EOS, Vocabulary

PARTS = 4  # of the vocabulary, one after the other: what is large is mapped anew each time
GROUP = 64  # tokens of which only the likeliest is looked at first
_MARKS = set(" 0123456789'\"’‘“”.,?!-–—…%&/:;()$£€°+")


def spoken(vocabulary: Vocabulary, language: str) -> list[int]:
    """Tokens that a transcript may have. The makers' vocabulary is one of text and code in many
    scripts; a fifth of it can't be a part of English."""
    if language != "en":
        return list(range(len(vocabulary)))
    return [n for n in range(len(vocabulary)) if n == EOS or _is_latin(vocabulary.spelled(n))]


def _is_latin(text: str) -> bool:
    return bool(text) and all(
        letter in _MARKS or unicodedata.name(letter, "").startswith("LATIN") for letter in text
    )


def add_likeliest(g: Graph, x: str, weight: Linear, tokens: Sequence[int]) -> None:
    """Outputs `tokens` and `p`, [n, most], the likeliest first, and `p_end`, [n], of x[n, 288]. All
    of the vocabulary but `tokens` is impossible, and of those the last few that fill no group: the
    makers' vocabulary ends with the rarest letters.

    To search all logits for the likeliest took longer than all else that is done with them (8 rows:
    0.54 of 0.86 ms). A group's highest is found in a fifth of that, and among the groups with the
    `most` highest of these are the `most` likeliest tokens.
    """
    (q, scale, zero), bias = weight
    assert bias is None
    assert np.size(scale) == 1
    even = len(tokens) // (PARTS * GROUP) * PARTS * GROUP
    searched = g.op("Min", "most", g.ints(even // (PARTS * GROUP)))  # groups of a part
    found, logits, sums = [], [], []
    for part in np.split(np.asarray(tokens[:even], np.int64), PARTS):
        some = g.linear(x, ((q[:, part], scale, zero), None))
        groups = g.op("Reshape", some, g.ints(0, -1, GROUP))
        peaks = g.op("ReduceMax", groups, g.ints(2), keepdims=0)
        _, at = g.ops("TopK", peaks, searched, names=[None, None], axis=-1)
        few = g.op("GatherND", groups, g.op("Unsqueeze", at, g.ints(2)), batch_dims=1)
        few = g.op("Reshape", few, g.ints(0, -1))
        names = g.op("Gather", g.const(part.reshape(-1, GROUP)), at)
        logits.append(few)
        found.append(g.op("Reshape", names, g.ints(0, -1)))
        # The last that needs `some`, so that it is done in its memory: ONNX Runtime would else
        # do all parts' first half before any second one.
        highest = g.op("ReduceMax", few, g.ints(1), keepdims=1)
        shares = g.op("Exp", g.op("Sub", some, highest))
        total = g.op("Log", g.op("ReduceSum", shares, g.ints(1), keepdims=1))
        sums.append(g.op("Add", total, highest))
        if EOS in part:
            end = g.op("Gather", shares, g.ints(int(np.flatnonzero(part == EOS)[0])), axis=-1)
            end = g.op("Add", g.op("Log", end), highest)
    total = g.op("ReduceLogSumExp", g.op("Concat", *sums, axis=-1), g.ints(1), keepdims=1)
    best, at = g.ops("TopK", g.op("Concat", *logits, axis=-1), "most", names=[None, None], axis=-1)
    g.op("GatherElements", g.op("Concat", *found, axis=-1), at, axis=-1, name="tokens")
    g.op("Exp", g.op("Sub", best, total), name="p")
    g.op("Squeeze", g.op("Exp", g.op("Sub", end, total)), g.ints(1), name="p_end")
