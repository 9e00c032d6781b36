"""The decoder's last product: which tokens are likeliest, without all logits there at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from edged.models.graph import Graph
from edged.models.weights import Linear
from edged.stt.vocabulary import EOS, Vocabulary

PARTS = 4  # of the vocabulary, one after the other: what is large is mapped anew each time
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
    of the vocabulary but `tokens` is impossible.

    A part's softmax gives the likeliest token's probability within it, and so, by its logit, the
    logarithm of the part's sum of exponentials.
    """
    (q, scale, zero), bias = weight
    assert bias is None
    assert np.size(scale) == 1
    first = (g.ints(0), g.ints(1), g.ints(1))
    found, logits, sums = [], [], []
    end = ""
    for part in np.array_split(np.asarray(tokens, np.int64), PARTS):
        some = g.linear(x, ((q[:, part], scale, zero), None))
        best, at = g.ops("TopK", some, "most", names=[None, None], axis=-1)
        p = g.op(
            "GatherElements", g.op("Softmax", some, axis=-1), g.op("Slice", at, *first), axis=-1
        )
        sums.append(g.op("Sub", g.op("Slice", best, *first), g.op("Log", p)))
        logits.append(best)
        found.append(g.op("Gather", g.const(part), at))
        if EOS in part:
            end = g.op("Gather", some, g.ints(int(np.flatnonzero(part == EOS)[0])), axis=-1)
    total = g.op("ReduceLogSumExp", g.op("Concat", *sums, axis=-1), g.ints(1), keepdims=1)
    best, at = g.ops("TopK", g.op("Concat", *logits, axis=-1), "most", names=[None, None], axis=-1)
    g.op("GatherElements", g.op("Concat", *found, axis=-1), at, axis=-1, name="tokens")
    g.op("Exp", g.op("Sub", best, total), name="p")
    g.op("Squeeze", g.op("Exp", g.op("Sub", end, total)), g.ints(1), name="p_end")
