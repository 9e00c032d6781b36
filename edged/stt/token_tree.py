"""The tokens that the decoder has read of a segment: a tree in which each token is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from edged.stt.family import DecoderStep, EncoderOutput, TopTokens

MAX_TOKENS_PER_RUN = 16


class Choice(NamedTuple):
    """A token that may come next, and its probability."""

    token: int
    p: float


class ChooseNext(Protocol):
    """Chooses what may follow each token that was read, the most probable first."""

    @property
    def top_k(self) -> int:
        """How many candidates it needs."""

    def __call__(self, top: TopTokens, drafted: Sequence[int | None]) -> list[list[Choice]]:
        """drafted: the token that the draft has behind each one read, None without a draft."""


@dataclass(slots=True)
class Node:
    """A token that was read.

    position: in the text, the prompt included. branch: the rows behind the committed prefix up to
    this token, its own last. frame: the encoder frame of the token that follows. choices: what may
    follow. children: row by token.
    """

    token: int
    position: int
    branch: tuple[int, ...]
    frame: int
    choices: list[Choice]
    children: dict[int, int] = field(default_factory=dict)


class TokenTree:
    """A committed prefix of tokens, and draft tokens read behind it.

    A run of the decoder reads many tokens at little more than the cost of one, each seeing only its
    own ancestors, so that several continuations are read in one run (as in SpecInfer, Miao et al.
    2023).
    """

    def __init__(self, step: DecoderStep, choose: ChooseNext) -> None:
        self.step = step
        self._choose = choose
        self._prefix: list[int] = []
        self._nodes: dict[int, Node] = {}  # by row
        self._roots: dict[int, int] = {}  # rows of the tokens that follow the prefix, by token
        self.runs = 0

    @property
    def draft_rows(self) -> int:
        """Rows behind the committed prefix."""
        return self.step.rows - len(self._prefix)

    def node(self, row: int) -> Node:
        return self._nodes[row]

    def rows_of(self, tokens: Sequence[int]) -> list[int]:
        """Rows of the longest beginning of this text that was read."""
        n = common_prefix(tokens, self._prefix)
        rows, row = list(range(n)), None
        if n < len(self._prefix):
            return rows
        for token in tokens[n:]:
            if (row := self.child(row, token)) is None:
                break
            rows.append(row)
        return rows

    def child(self, row: int | None, token: int) -> int | None:
        """The row of `token` behind that of `row` (None: behind the prefix); None: not read."""
        children = self._roots if row is None else self._nodes[row].children
        return children.get(token)

    def attend_to(self, audio: EncoderOutput) -> None:
        """From now on tokens are read against this audio. Draft tokens were read against other
        audio: they must be forgotten (`commit`) before anything else is read."""
        self.step.attend_to(audio)

    def commit(self, rows: Sequence[int]) -> None:
        """These rows, in order, become the committed prefix; all others are forgotten."""
        fixed = len(self._prefix)
        self._prefix = [self._prefix[r] if r < fixed else self._nodes[r].token for r in rows]
        self.step.keep(rows)
        self._nodes.clear()
        self._roots.clear()

    def commit_to(self, row: int | None) -> None:
        """The tokens up to that of `row` (None: the prefix alone) become the committed prefix."""
        branch = () if row is None else self._nodes[row].branch
        self.commit([*range(len(self._prefix)), *branch])

    def read(self, chains: Sequence[tuple[int | None, Sequence[int]]]) -> None:
        """Reads, in one run, each chain's tokens behind its row (None: behind the prefix).

        What was read before is not read again. What exceeds MAX_TOKENS_PER_RUN is left unread.
        """
        tokens: list[int] = []
        drafted: list[int | None] = []
        base = self.step.rows
        for row, chain in chains:
            for n, token in enumerate(chain):
                known = self.child(row, token)
                if known is None:
                    if len(tokens) == MAX_TOKENS_PER_RUN:
                        break
                    known = self._add(row, token, base + len(tokens))
                    tokens.append(token)
                    drafted.append(chain[n + 1] if n + 1 < len(chain) else None)
                row = known
        if not tokens:
            return
        nodes = [self._nodes[base + i] for i in range(len(tokens))]
        branches = [node.branch for node in nodes]
        top = self.step.read(tokens, branches, len(self._prefix), self._choose.top_k)
        self.runs += 1
        chosen = self._choose(top, drafted)
        for node, frame, choices in zip(nodes, top.frames.tolist(), chosen, strict=True):
            node.frame, node.choices = frame, choices

    def _add(self, parent: int | None, token: int, row: int) -> int:
        branch = () if parent is None else self._nodes[parent].branch
        siblings = self._roots if parent is None else self._nodes[parent].children
        self._nodes[row] = Node(token, len(self._prefix) + len(branch), (*branch, row), 0, [])
        siblings[token] = row
        return row


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
