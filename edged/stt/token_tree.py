"""What the decoder has read of a segment: a tree of tokens, each read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edged.stt.kv_cache import Cache
from edged.stt.moonshine.graphs import CROSS, PAST, Floats, Graphs, feeds

MOST_ROWS = 16  # tokens read in one run

_OUTPUTS = ["tokens", "p", "p_end", "heard", "kv"]


class Choice(NamedTuple):
    """A token that may come next, and its probability."""

    token: int
    p: float


class Likely(NamedTuple):
    """The likeliest tokens behind each of n rows, the likeliest first."""

    tokens: NDArray[np.int64]  # [n, most]
    p: Floats  # [n, most]
    p_end: Floats  # [n], of the end of the text


class Choose(Protocol):
    """What may follow each row, the likeliest first. `most`: how many tokens it looks at."""

    @property
    def most(self) -> int: ...

    def __call__(self, likely: Likely, drafted: Sequence[int | None]) -> list[list[Choice]]:
        """`drafted`: the token that was drafted behind each row, None without one."""


@dataclass(slots=True)
class Node:
    """A token that was read. `branch`: rows of the cache from the trunk to it, its own the last.
    `heard`: encoder frame at which the token behind it is heard."""

    token: int
    position: int
    branch: tuple[int, ...]
    heard: int
    choices: list[Choice]
    children: dict[int, int] = field(default_factory=dict)


class TokenTree:
    """A trunk of tokens that are fixed, and what was read behind it.

    A token's keys and values stand in its row of the cache. A run reads many tokens at little
    more than the cost of one, each seeing its own ancestors alone, so that several continuations
    go in one run (as in SpecInfer, Miao et al. 2023).
    """

    def __init__(self, graphs: Graphs, capacity: int, choose: Choose) -> None:
        """`capacity`: most rows, of the trunk and behind it."""
        self._graphs = graphs
        self._choose = choose
        self._cache = Cache(capacity)
        self._cross: list[Floats] = []
        self._trunk: list[int] = []
        self._nodes: dict[int, Node] = {}  # by row
        self._first: dict[int, int] = {}  # rows of the tokens that follow the trunk
        self.runs = 0

    @property
    def loose(self) -> int:
        """Rows behind the trunk."""
        return self._cache.length - len(self._trunk)

    def node(self, row: int) -> Node:
        return self._nodes[row]

    def rows(self, tokens: Sequence[int]) -> list[int]:
        """Rows of the longest beginning of this text that was read."""
        n = common_prefix(tokens, self._trunk)
        rows, row = list(range(n)), None
        if n < len(self._trunk):
            return rows
        for token in tokens[n:]:
            if (row := self.child(row, token)) is None:
                break
            rows.append(row)
        return rows

    def child(self, row: int | None, token: int) -> int | None:
        """The row of `token` behind that of `row` (None: behind the trunk); None: not read."""
        children = self._first if row is None else self._nodes[row].children
        return children.get(token)

    def hear(self, cross: list[Floats]) -> None:
        """From now on tokens are read against this audio. What was read behind the trunk must
        be forgotten before anything else is read: it was read against other audio."""
        self._cross = cross

    def settle(self, rows: Sequence[int]) -> None:
        """These rows, in order, become the trunk; all else is forgotten."""
        fixed = len(self._trunk)
        self._trunk = [self._trunk[r] if r < fixed else self._nodes[r].token for r in rows]
        self._cache.keep(rows)
        self._nodes.clear()
        self._first.clear()

    def settle_on(self, row: int | None) -> None:
        """The tokens up to that of `row` (None: the trunk's) become the trunk."""
        branch = () if row is None else self._nodes[row].branch
        self.settle([*range(len(self._trunk)), *branch])

    def read(self, chains: Sequence[tuple[int | None, Sequence[int]]]) -> None:
        """In one run each chain's tokens behind its row (None: the trunk). What was read before is
        not read again; of more than MOST_ROWS the rest is left."""
        fed: list[int] = []
        drafted: list[int | None] = []
        base = self._cache.length
        for row, tokens in chains:
            for n, token in enumerate(tokens):
                known = self.child(row, token)
                if known is None:
                    if len(fed) == MOST_ROWS:
                        break
                    known = self._grow(row, token, base + len(fed))
                    fed.append(token)
                    drafted.append(tokens[n + 1] if n + 1 < len(tokens) else None)
                row = known
        if not fed:
            return
        nodes = [self._nodes[base + i] for i in range(len(fed))]
        likely, heard = self._run(fed, nodes)
        for node, frame, choices in zip(nodes, heard, self._choose(likely, drafted), strict=True):
            node.heard, node.choices = frame, choices

    def _grow(self, parent: int | None, token: int, row: int) -> int:
        branch = () if parent is None else self._nodes[parent].branch
        siblings = self._first if parent is None else self._nodes[parent].children
        self._nodes[row] = Node(token, len(self._trunk) + len(branch), (*branch, row), 0, [])
        siblings[token] = row
        return row

    def _run(self, fed: Sequence[int], nodes: Sequence[Node]) -> tuple[Likely, list[int]]:
        mask = np.full((len(fed), self._cache.length + len(fed)), -1e9, np.float32)
        mask[:, : len(self._trunk)] = 0
        for seen, node in zip(mask, nodes, strict=True):
            seen[list(node.branch)] = 0
        feed = {
            "rows": self._graphs.embedding[fed],
            "positions": np.array([node.position for node in nodes]),
            "mask": mask,
            "most": np.array([self._choose.most]),
            **feeds(PAST, self._cache.arrays()),
            **feeds(CROSS, self._cross),
        }
        tokens, p, p_end, heard, new = self._graphs.decoder.run(_OUTPUTS, feed)
        self.runs += 1
        self._cache.splice(self._cache.length, [new], len(fed))
        return Likely(tokens, p, p_end), heard.tolist()


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
