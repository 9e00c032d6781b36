"""The decoder: reads a tree of tokens in one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edged.stt.family import EncoderOutput, Floats, TopTokens
from edged.stt.kv_cache import KVCache
from edged.stt.moonshine.dimensions import EOS
from edged.stt.moonshine.graphs import Graphs, feeds
from edged.stt.scoring import score_by_reading

HIDDEN = -1e9  # added to the attention of rows that a token must not see
_OUTPUTS = ["tokens", "p", "p_end", "heard", "kv"]


class TreeDecoder:
    """Decoder of one segment (see `edged.stt.family.DecoderStep`)."""

    def __init__(self, graphs: Graphs, max_rows: int) -> None:
        sizes = graphs.dimensions
        self._graphs = graphs
        self.cache = KVCache(len(sizes.kv_names), sizes.heads, sizes.head_dim, max_rows)
        self._cross: list[Floats] = []

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.cache.length

    def attend_to(self, audio: EncoderOutput) -> None:
        """From now on tokens are read against this audio."""
        self._cross = audio.state

    def read(
        self, tokens: Sequence[int], branches: Sequence[Sequence[int]], prefix: int, top_k: int
    ) -> TopTokens:
        """Reads n tokens in one run; see `edged.stt.family.DecoderStep.read`."""
        mask = np.full((len(tokens), self.cache.length + len(tokens)), HIDDEN, np.float32)
        mask[:, :prefix] = 0
        for visible, branch in zip(mask, branches, strict=True):
            visible[list(branch)] = 0
        names = self._graphs.dimensions
        feed = {
            "rows": self._graphs.embedding[tokens],
            "positions": np.array([prefix + len(branch) - 1 for branch in branches]),
            "mask": mask,
            "most": np.array([top_k]),
            **feeds(names.past_names, self.cache.arrays()),
            **feeds(names.cross_names, self._cross),
        }
        top, p, p_eos, frames, new = self._graphs.decoder.run(_OUTPUTS, feed)
        self.cache.splice(self.cache.length, [new], len(tokens))
        return TopTokens(top, p, p_eos, frames)

    def keep(self, rows: Sequence[int]) -> None:
        """These rows, in this order, become the rows 0, 1, ...; all others are forgotten."""
        self.cache.keep(rows)

    def score(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """The log probability of a text and of its end; see
        `edged.stt.family.DecoderStep.score`."""
        return score_by_reading(self, prompt, tokens, EOS)
