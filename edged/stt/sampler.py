"""What may follow a token: the likeliest, or one that is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edged.stt.beam import BEAM_THRESHOLD, BEAM_WIDTH
from edged.stt.moonshine.vocabulary import EOS
from edged.stt.token_tree import Choice, Likely

_DRAWN_FROM = 64  # tokens: what is less likely than all of them is never drawn


@dataclass(frozen=True, slots=True)
class Sampler:
    """Choices under a bonus and a temperature, for a `TokenTree`.

    An object of its own: a tree that led back to its decoder would keep both, and some MB of
    keys and values, until Python looks for cycles.
    """

    temperature: float = 0.0
    eos_bonus: float = 0.0
    random: np.random.Generator | None = None

    @property
    def most(self) -> int:
        return (
            _DRAWN_FROM if self.temperature > 0 else BEAM_WIDTH + 1
        )  # one may be the end, and sink

    def __call__(self, likely: Likely, drafted: Sequence[int | None]) -> list[list[Choice]]:
        """See `edged.stt.token_tree.Choose`."""
        rows = zip(likely.tokens.tolist(), likely.p.tolist(), likely.p_end.tolist(), strict=True)
        found = [self._weighed(list(map(Choice, tokens, p)), p_end) for tokens, p, p_end in rows]
        if self.temperature > 0 and self.random is not None:
            return [
                [_drawn(row, draft, self.temperature, self.random)]
                for row, draft in zip(found, drafted, strict=True)
            ]
        return [_likeliest(row) for row in found]

    def _weighed(self, choices: list[Choice], p_end: float) -> list[Choice]:
        """`eos_bonus` added to the logit of the end, which may so come to be among them."""
        if self.eos_bonus == 0:
            return choices
        factor = math.exp(self.eos_bonus)
        total = 1 + p_end * (factor - 1)
        weighed = [Choice(token, p / total) for token, p in choices if token != EOS]
        weighed.append(Choice(EOS, p_end * factor / total))
        return sorted(weighed, key=lambda choice: -choice.p)


def _likeliest(choices: list[Choice]) -> list[Choice]:
    """The RIVALS likeliest, as far as they are nearly as likely as the first."""
    least = choices[0].p * math.exp(-BEAM_THRESHOLD)
    return [choice for choice in choices[:BEAM_WIDTH] if choice.p >= least]


def _drawn(
    choices: list[Choice], draft: int | None, temperature: float, random: np.random.Generator
) -> Choice:
    """A drafted token was drawn before; it is kept unless the decoder now finds it out of the
    question, so that drawn text settles."""
    best = choices[0].p
    kept = next((choice for choice in choices if choice.token == draft), None)
    if kept is not None and kept.p >= 0.1 * best:
        return kept
    q = (np.array([choice.p for choice in choices]) / best) ** (1 / temperature)
    return choices[int(random.choice(len(q), p=q / q.sum()))]
