"""Made-up languages in which every text's probability is known, in the place of a decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edged.stt.token_tree import Choice, Node

BOS, EOS = 1, 2
LETTERS = (10, 11, 12)
LONGEST = 4


@dataclass
class Language:
    """Probabilities of what follows each text, drawn from its seed; heard: 10 frames a token."""

    seed: int

    def choices(self, text: tuple[int, ...]) -> list[Choice]:
        random = np.random.default_rng([self.seed, *text])
        p = random.dirichlet(np.full(len(LETTERS) + 1, 0.5)) + 1e-6
        pairs = zip((*LETTERS, EOS), p / p.sum(), strict=True)
        return sorted((Choice(t, float(q)) for t, q in pairs), key=lambda choice: -choice.p)

    def ends(self, text: Sequence[int]) -> bool:
        """Whether the end is the most probable behind the whole text, and behind no beginning."""
        tops = [self.choices(tuple(text[:n]))[0].token for n in range(len(text) + 1)]
        return EOS not in tops[:-1] and (tops[-1] == EOS or len(text) == LONGEST)

    def score(self, text: Sequence[int]) -> float:
        """Log probability of the text and of its end; one of LONGEST tokens needs no end."""
        whole = (*text, EOS) if len(text) < LONGEST else tuple(text)
        return sum(math.log(dict(self.choices(whole[:n]))[token]) for n, token in enumerate(whole))


@dataclass
class FakeTree:
    """What TokenTree is for a search, with the language in the decoder's place."""

    language: Language
    runs: int = 0
    texts: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def draft_rows(self) -> int:
        return 0

    def child(self, row: int | None, token: int) -> int | None:
        before = () if row is None else self.texts[row]
        text = () if token == BOS else (*before, token)
        return next((r for r, known in self.texts.items() if known == text), None)

    def node(self, row: int) -> Node:
        text = self.texts[row]
        return Node(0, len(text), (row,), 10 * (len(text) + 1), self.language.choices(text))

    def read(self, chains: Sequence[tuple[int | None, Sequence[int]]]) -> None:
        before_it = len(self.texts)
        for row, tokens in chains:
            for token in tokens:
                known = self.child(row, token)
                if known is None:
                    known = len(self.texts)
                    before = () if row is None else self.texts[row]
                    self.texts[known] = () if token == BOS else (*before, token)
                row = known
        self.runs += len(self.texts) > before_it
