"""Incremental decoding: what is believed of a segment is read again as more of it is heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edged.stt.beam import MOST_LOOSE, Beam, Bounds, Line
from edged.stt.moonshine.graphs import Floats, Graphs
from edged.stt.moonshine.vocabulary import BOS
from edged.stt.sampler import Sampler
from edged.stt.token_tree import MOST_ROWS, TokenTree, common_prefix

# Runs of an update in a step, which must stay short: after so many the likeliest text goes on
# alone, and after so many it is cut off, unless it is the last. (Cut off after 8, words came
# later: p99 1.28 s behind their delay in place of 1.02 s.)
ALONE_AFTER, LONGEST_UPDATE = 8, 12


@dataclass(slots=True)
class Hypothesis:
    """What the decoder now believes the whole segment says.

    tokens: without BOS and EOS. heard: encoder frame at which each token was heard.
    probability: of each token. agreed: how many tokens the previous update had, too. undisputed:
    how many no rival that was left has otherwise; 0 for drawn text, which has no rivals.
    ended: the decoder says that nothing more was said. p_end: how sure it was of that at the
    last token; None if it stopped before.
    """

    tokens: list[int] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    agreed: int = 0
    undisputed: int = 0
    ended: bool = False
    p_end: float | None = None


class Decoder:
    """Decoding of one segment: the likeliest of a few texts, or a sampled one.

    Tokens before `locked` are fixed, with their self-attention keys and values in a cache; the
    rest, and its rivals, are drafts that each update reads again against the newest audio.
    """

    def __init__(
        self,
        graphs: Graphs,
        capacity: int,
        temperature: float = 0.0,
        eos_bonus: float = 0.0,
        random: np.random.Generator | None = None,
        in_step: bool = False,
    ) -> None:
        """`capacity`: most tokens. `eos_bonus` is added to the logit of "nothing more was said":
        above 0 words come later, below 0 sooner. `random` is needed where `temperature` > 0.
        `in_step`: somebody waits for each update."""
        chooser = Sampler(temperature, eos_bonus, random)
        self._tree = TokenTree(graphs, capacity + 2 * MOST_LOOSE + 2 * MOST_ROWS, chooser)
        self._capacity = capacity
        self._alone = ALONE_AFTER if in_step else None
        self._drawn = temperature > 0
        self._rivals: list[list[int]] = []  # what else was weighed in the last update, from its
        self._rivals_from = 0  # tokens locked then on
        self.locked = 0
        self.hypothesis = Hypothesis()

    @property
    def runs(self) -> int:
        return self._tree.runs

    def update(
        self,
        cross: list[Floats],
        limit: int,
        horizon: int | None,
        last: bool = True,
        early: bool = True,
    ) -> Hypothesis:
        """Decodes against `cross` (keys and values of all frames).

        limit: most tokens of the whole segment. horizon: encoder frame beyond which a token
        is of no use yet, so that decoding stops there; None: decode to the end. last: however long
        that takes. Else it stops after LONGEST_UPDATE runs: the hypothesis may then be shorter
        than it was, and the next update goes on from its end. early: see `edged.stt.beam.Bounds`.
        """
        old, base = self.hypothesis, self.locked
        limit = min(limit, self._capacity - 1)
        if base >= limit:
            return old
        self._tree.hear(cross)
        self._forget(base)
        runs = None if last else LONGEST_UPDATE
        bounds = Bounds(limit - base, horizon, runs, self._alone, early)
        # Drawn text has no second chance: it would bend it.
        beam = Beam(self._tree, bounds, resume=not self._drawn)
        token = old.tokens[base - 1] if base else BOS
        line = beam.search(Line(token, None, old.tokens[base:]), self._drafts())
        self._rivals, self._rivals_from = _leaves(beam.visited), base
        tokens = [*old.tokens[:base], *line.tokens]
        self.hypothesis = Hypothesis(
            tokens,
            [*old.heard[:base], *line.heard],
            [*old.probability[:base], *line.probability],
            agreed=common_prefix(tokens, old.tokens),
            undisputed=0 if self._drawn else base + beam.undisputed,
            ended=line.p_end is not None,
            p_end=line.p_end,
        )
        return self.hypothesis

    def lock(self, tokens: int) -> None:
        """The first `tokens` tokens of the hypothesis will not be read again."""
        self.locked = max(self.locked, min(tokens, len(self.hypothesis.tokens)))

    def _forget(self, locked: int) -> None:
        """All that was read but the tokens in front of the last locked one: the tree's trunk."""
        trunk = [BOS, *self.hypothesis.tokens][:locked]
        self._tree.settle(self._tree.rows(trunk))
        while (known := len(self._tree.rows(trunk))) < locked:  # forgotten in a long search
            self._tree.read([(None, trunk[known:])])
            self._tree.settle(self._tree.rows(trunk))

    def _drafts(self) -> list[list[int]]:
        """What was weighed in the last update, as far as it agrees with what was locked since."""
        since = self.hypothesis.tokens[self._rivals_from : self.locked]
        n = len(since)
        return [rival[n:] for rival in self._rivals if rival[:n] == since]


def _leaves(paths: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Those that are not the beginning of another."""
    inner = {path[:-1] for path in paths}
    return [list(path) for path in dict.fromkeys(paths) if path and path not in inner]
