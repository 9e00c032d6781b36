"""The decoder: reads a tree of tokens in one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.stt.family import EncoderOutput, Floats, TopTokens
from edged.stt.kv_cache import KVCache
from edged.stt.whisper.graphs import Graphs, feeds

HIDDEN = -1e9  # added to the attention of rows that a token must not see
_TOP = ["tokens", "p", "p_end", "heard", "kv"]
_STATE = ["state", "total", "kv"]


class TreeDecoder:
    """Decoder of one segment (see `edged.stt.family.DecoderStep`)."""

    def __init__(
        self, graphs: Graphs, max_rows: int, prompt_end: int, blank: int, eos: int
    ) -> None:
        """prompt_end: the token behind which a text begins. blank: a token with which it may not
        begin. eos: the token that ends it."""
        sizes = graphs.dimensions
        self._graphs = graphs
        self._prompt_end, self._blank, self._eos = prompt_end, blank, eos
        self.cache = KVCache(len(sizes.kv_names), sizes.heads, sizes.head_dim, max_rows)
        self._cross: list[Floats] = []
        self._frames = 0

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.cache.length

    def attend_to(self, audio: EncoderOutput) -> None:
        """From now on tokens are read against this audio."""
        self._cross, self._frames = audio.state, audio.frames

    def read(
        self, tokens: Sequence[int], branches: Sequence[Sequence[int]], prefix: int, top_k: int
    ) -> TopTokens:
        """Reads n tokens in one run; see `edged.stt.family.DecoderStep.read`."""
        begins = self._prompt_end in tokens
        found = self._run(_TOP, tokens, branches, prefix, top_k + begins)
        top, p, p_eos, frames = found[:4]
        if begins:
            top, p = self._without_blank(tokens, top, p)
        return TopTokens(top, p, p_eos, frames)

    def keep(self, rows: Sequence[int]) -> None:
        """These rows, in this order, become the rows 0, 1, ...; all others are forgotten."""
        self.cache.keep(rows)

    def score(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """The log probability of a text and of its end; see
        `edged.stt.family.DecoderStep.score`."""
        self.keep([])
        states, totals = self.states([*prompt, *tokens])
        first = len(prompt) - 1
        expected = self._graphs.embedded([*tokens, self._eos])
        return float(((states[first:] * expected).sum(-1) - totals[first:]).sum())

    def states(self, tokens: Sequence[int]) -> tuple[Floats, Floats]:
        """Reads tokens, each behind the one before it, from the first row on -> the decoder's
        states [n, width], and the logarithm of the sum of all tokens' exponentials [n]."""
        branches = [range(n + 1) for n in range(len(tokens))]
        state, total, _ = self._run(_STATE, tokens, branches, 0, 1)
        return state, total[:, 0]

    def _run(
        self,
        outputs: list[str],
        tokens: Sequence[int],
        branches: Sequence[Sequence[int]],
        prefix: int,
        top_k: int,
    ) -> list[Any]:
        """Runs the graph and appends the keys and values, its last output, to the cache."""
        mask = np.full((len(tokens), self.cache.length + len(tokens)), HIDDEN, np.float32)
        mask[:, :prefix] = 0
        for visible, branch in zip(mask, branches, strict=True):
            visible[list(branch)] = 0
        names = self._graphs.dimensions
        feed = {
            "rows": self._graphs.embedded(tokens),
            "positions": np.array([prefix + len(branch) - 1 for branch in branches]),
            "mask": mask,
            "most": np.array([top_k]),
            "heard_frames": np.array([self._frames]),
            **feeds(names.past_names, self.cache.arrays()),
            **feeds(names.cross_names, self._cross),
        }
        found: list[Any] = self._graphs.decoder.run(outputs, feed)
        self.cache.splice(self.cache.length, [found[-1]], len(tokens))
        return found

    def _without_blank(
        self, tokens: Sequence[int], top: NDArray[np.int64], p: Floats
    ) -> tuple[NDArray[np.int64], Floats]:
        """One candidate less: the blank behind the prompt, elsewhere the last one."""
        kept = np.ones(top.shape, bool)
        for row, token in enumerate(tokens):
            blank = np.flatnonzero(top[row] == self._blank)
            kept[row, blank[0] if token == self._prompt_end and len(blank) else -1] = False
        shape = (len(top), top.shape[1] - 1)
        return top[kept].reshape(shape), p[kept].reshape(shape)
