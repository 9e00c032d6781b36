"""The decoder: reads a tree of tokens, in one run or branch by branch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edged.stt.family import EncoderOutput, Floats, TopTokens
from edged.stt.kv_cache import KVCache
from edged.stt.moonshine_streaming.graphs import Graphs
from edged.stt.scoring import score_by_reading

_HIDDEN = -1e9  # added to the attention of rows that a token must not see
_RESULTS = ["tokens", "p", "p_end", "heard"]


class TreeDecoder:
    """Decoder of one segment (see `edged.stt.family.DecoderStep`): one run for a tree."""

    def __init__(self, graphs: Graphs, max_rows: int) -> None:
        sizes = graphs.sizes
        self._graphs, self._heads = graphs, sizes.heads
        self.cache = KVCache(2 * sizes.depth, sizes.heads, sizes.head_dim, max_rows)
        shapes = {v.name: v.shape for v in graphs.decoder.get_inputs()}
        self._past, self._attended = (
            [
                (name, tuple(n if isinstance(n, int) else -1 for n in shapes[name]))
                for name in (f"{prefix}_{kv}" for kv in sizes.kv_names)
            ]
            for prefix in ("past", "cross")
        )
        self._cross: dict[str, Floats] = {}

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.cache.length

    def attend_to(self, audio: EncoderOutput) -> None:
        """From now on tokens are read against this audio."""
        arrays = zip(self._attended, audio.state, strict=True)
        self._cross = {name: array.reshape(shape) for (name, shape), array in arrays}

    def read(
        self, tokens: Sequence[int], branches: Sequence[Sequence[int]], prefix: int, top_k: int
    ) -> TopTokens:
        """Reads n tokens in one run; see `edged.stt.family.DecoderStep.read`."""
        mask = np.full((len(tokens), self.cache.length + len(tokens)), _HIDDEN, np.float32)
        mask[:, :prefix] = 0
        for visible, branch in zip(mask, branches, strict=True):
            visible[list(branch)] = 0
        past = zip(self._past, self.cache.arrays(), strict=True)
        feed = {
            "token": np.array([tokens], np.int64),
            "positions": np.array([prefix + len(branch) - 1 for branch in branches]),
            "mask": mask,
            "most": np.array([top_k]),
            **{name: array.reshape(_filled(shape, array)) for (name, shape), array in past},
            **self._cross,
        }
        *results, new = self._graphs.decoder.run([*_RESULTS, "kv"], feed)
        self.cache.splice(self.cache.length, [new], len(tokens))
        return TopTokens(*results)

    def keep(self, rows: Sequence[int]) -> None:
        """These rows, in this order, become the rows 0, 1, ...; all others are forgotten."""
        self.cache.keep(rows)

    def score(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """The log probability of a text and of its end; see
        `edged.stt.family.DecoderStep.score`."""
        return score_by_reading(self, prompt, tokens, self._graphs.sizes.eos)


def _filled(shape: tuple[int, ...], array: Floats) -> tuple[int, ...]:
    """`shape` with the array's length in the place of -1, which an empty array would not tell."""
    return tuple(array.shape[1] if n == -1 else n for n in shape)


class BranchDecoder:
    """Decoder of one segment: one run for each branch, because the graph reads tokens one behind
    the other."""

    def __init__(self, graphs: Graphs, max_rows: int) -> None:
        sizes = graphs.sizes
        self._graphs, self._sizes = graphs, sizes
        self.cache = KVCache(2, sizes.depth * sizes.heads, sizes.head_dim, max_rows)
        self._cross: dict[str, Floats] = {}

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.cache.length

    def attend_to(self, audio: EncoderOutput) -> None:
        """From now on tokens are read against this audio."""
        names = ("out_k_cross", "out_v_cross")
        self._cross = {
            name: self._stacked(array) for name, array in zip(names, audio.state, strict=True)
        }

    def read(
        self, tokens: Sequence[int], branches: Sequence[Sequence[int]], prefix: int, top_k: int
    ) -> TopTokens:
        """Reads n tokens; see `edged.stt.family.DecoderStep.read`."""
        parts, start = [], 0
        while start < len(tokens):
            stop = start + 1
            while stop < len(tokens) and [*branches[stop][:-1]] == [*branches[stop - 1]]:
                stop += 1
            rows = [*range(prefix), *branches[start][:-1]]
            parts.append(self._read_behind(rows, tokens[start:stop], top_k))
            start = stop
        return TopTokens(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def keep(self, rows: Sequence[int]) -> None:
        """These rows, in this order, become the rows 0, 1, ...; all others are forgotten."""
        self.cache.keep(rows)

    def score(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """The log probability of a text and of its end; see
        `edged.stt.family.DecoderStep.score`."""
        return score_by_reading(self, prompt, tokens, self._graphs.sizes.eos)

    def _read_behind(self, rows: Sequence[int], tokens: Sequence[int], top_k: int) -> list[Floats]:
        """Reads tokens, one behind the other, of which the first follows `rows`."""
        past = self.cache.arrays()
        if len(rows) != self.cache.length:
            past = [array[:, rows] for array in past]
        feed = {
            "token": np.array([tokens], np.int64),
            "k_self": self._stacked(past[0]),
            "v_self": self._stacked(past[1]),
            "most": np.array([top_k]),
            **self._cross,
        }
        names = [*_RESULTS, "out_k_self", "out_v_self"]
        *results, k, v = self._graphs.decoder.run(names, feed)
        heads = self._sizes.depth * self._sizes.heads
        new = [tensor.reshape(heads, -1, self._sizes.head_dim)[:, len(rows) :] for tensor in (k, v)]
        self.cache.splice(self.cache.length, new, len(tokens))
        return list(results)

    def _stacked(self, array: Floats) -> Floats:
        """[layers * heads, n, head_dim] as the graph takes it."""
        sizes = self._sizes
        return array.reshape(sizes.depth, 1, sizes.heads, array.shape[1], sizes.head_dim)
