"""What may follow a token: the likeliest, or one that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edged.stt.beam import MARGIN, RIVALS
from edged.stt.graphs import Floats
from edged.stt.tree import Choice
from edged.stt.vocabulary import EOS


@dataclass(frozen=True, slots=True)
class Chooser:
    """Choices under a bonus and a temperature, for a `TokenTree`.

    An object of its own: a tree that led back to its decoder would keep both, and some MB of
    keys and values, until Python looks for cycles.
    """

    temperature: float = 0.0
    eos_bonus: float = 0.0
    random: np.random.Generator | None = None

    def __call__(self, p: Floats, drafted: Sequence[int | None]) -> list[list[Choice]]:
        """p: float32[n, 32768], changed by the bonus. drafted: see `edged.stt.tree.Choose`."""
        if self.eos_bonus != 0:
            p[:, EOS] *= np.exp(self.eos_bonus)
            p /= p.sum(-1, keepdims=True)
        if self.temperature > 0 and self.random is not None:
            return [
                [_drawn(row, draft, self.temperature, self.random)]
                for row, draft in zip(p, drafted, strict=True)
            ]
        least = p.max(-1) * np.exp(-MARGIN)
        return [_likeliest(row, bound) for row, bound in zip(p, least, strict=True)]


def _likeliest(p: Floats, least: np.float32) -> list[Choice]:
    """The RIVALS likeliest tokens, as far as they are as likely as that."""
    tokens = np.flatnonzero(p >= least)
    best = tokens[np.argsort(-p[tokens], kind="stable")][:RIVALS]
    return [Choice(int(token), float(p[token])) for token in best]


def _drawn(p: Floats, draft: int | None, temperature: float, random: np.random.Generator) -> Choice:
    """A drafted token was drawn before; it is kept unless the decoder now finds it out of the
    question, so that drawn text settles."""
    best = p.max()
    token = draft
    if token is None or p[token] < 0.1 * best:
        q = (p / best).astype(np.float64) ** (1 / temperature)
        token = int(random.choice(len(q), p=q / q.sum()))
    return Choice(token, float(p[token]))
