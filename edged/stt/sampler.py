"""Chooses what may follow a token: the most probable tokens, or one drawn at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edged.stt.beam import BEAM_THRESHOLD, BEAM_WIDTH
from edged.stt.family import TopTokens
from edged.stt.keyterms import STEP_MARGIN, TERM_TOP_K, Keyterms
from edged.stt.token_tree import Choice

SAMPLED_FROM = 64  # the most probable tokens from which one is drawn
KEEP_DRAFT_P = 0.1  # a drafted token is kept down to this share of the best one's probability


@dataclass(frozen=True, slots=True)
class Sampler:
    """Chooses next tokens for a `TokenTree` (see `edged.stt.token_tree.ChooseNext`).

    eos: the token that ends a text. temperature: 0 takes the most probable tokens; above, one is
    drawn with `random`. eos_bonus: added to the logit of `eos`. keyterms: terms whose tokens the
    search needs even if they are improbable.

    It holds no reference to the decoder: a tree that led back to its decoder would keep both, and
    some MB of keys and values, until Python's garbage collector looks for cycles.
    """

    eos: int
    temperature: float = 0.0
    eos_bonus: float = 0.0
    random: np.random.Generator | None = None
    beam_width: int = BEAM_WIDTH
    keyterms: Keyterms | None = None

    @property
    def top_k(self) -> int:
        """One more than the beam has, because `eos` may be among them and be made less probable."""
        if self.temperature > 0:
            return SAMPLED_FROM
        return self.beam_width + 1 if self.keyterms is None else TERM_TOP_K

    def __call__(self, top: TopTokens, drafted: Sequence[int | None]) -> list[list[Choice]]:
        rows = zip(top.tokens.tolist(), top.p.tolist(), top.p_eos.tolist(), strict=True)
        found = [
            self._with_eos_bonus(list(map(Choice, tokens, p)), p_eos) for tokens, p, p_eos in rows
        ]
        if self.temperature > 0 and self.random is not None:
            return [
                [_draw(row, draft, self.temperature, self.random)]
                for row, draft in zip(found, drafted, strict=True)
            ]
        return [self._most_probable(row) for row in found]

    def _with_eos_bonus(self, choices: list[Choice], p_eos: float) -> list[Choice]:
        """Adds `eos_bonus` to the logit of `eos`, which may bring it among the choices."""
        if self.eos_bonus == 0:
            return choices
        factor = math.exp(self.eos_bonus)
        total = 1 + p_eos * (factor - 1)
        weighed = [Choice(token, p / total) for token, p in choices if token != self.eos]
        weighed.append(Choice(self.eos, p_eos * factor / total))
        return sorted(weighed, key=lambda choice: -choice.p)

    def _most_probable(self, choices: list[Choice]) -> list[Choice]:
        """At most `beam_width` choices, none less probable than BEAM_THRESHOLD allows; and those
        that a key term's bonus might bring among them."""
        least = choices[0].p * math.exp(-BEAM_THRESHOLD)
        found = [choice for choice in choices[: self.beam_width] if choice.p >= least]
        if self.keyterms is not None:
            least *= math.exp(-STEP_MARGIN)
            terms = self.keyterms.candidates
            found += [c for c in choices[len(found) :] if c.token in terms and c.p >= least]
        return found


def _draw(
    choices: list[Choice], draft: int | None, temperature: float, random: np.random.Generator
) -> Choice:
    """Draws one. A drafted token was drawn in an earlier update; it is kept unless it has become
    improbable, so that the drawn text does not change with every update."""
    best = choices[0].p
    kept = next((choice for choice in choices if choice.token == draft), None)
    if kept is not None and kept.p >= KEEP_DRAFT_P * best:
        return kept
    q = (np.array([choice.p for choice in choices]) / best) ** (1 / temperature)
    return choices[int(random.choice(len(q), p=q / q.sum()))]
