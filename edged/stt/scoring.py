"""How probable a given text is, by a decoder that gives its most probable tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edged.stt.family import DecoderStep

CANDIDATES = 1000  # for each token; a token that is not among them counts as the last of them


def score_by_reading(
    step: DecoderStep, prompt: Sequence[int], tokens: Sequence[int], eos: int
) -> float:
    """Implements `edged.stt.family.DecoderStep.score` by `read`."""
    step.keep([])
    read, expected = [*prompt, *tokens], np.array([*tokens, eos])
    top = step.read(read, [range(n + 1) for n in range(len(read))], 0, CANDIDATES)
    first = len(prompt) - 1
    same = top.tokens[first:] == expected[:, None]
    found, p = same.any(1), top.p[first:]
    each = np.where(found, np.where(same, p, 0).max(1), p[:, -1])
    return float(np.log(np.maximum(each, 1e-30)).sum())
