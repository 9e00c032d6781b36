"""Incremental decoding: the last hypothesis is verified in one pass, then decoded on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edged.stt.cache import Cache, untouched
from edged.stt.graphs import CROSS, KV, PAST, VOCABULARY, Floats, Graphs, feeds
from edged.stt.ortsession import run_into
from edged.stt.vocabulary import BOS, EOS

BATCH = 8  # tokens read at once: so many cost little more than one
LONGEST_UPDATE = 12  # runs while speech goes on, so that a step stays short
RESUME_WITHIN = 5  # how far ahead a draft is searched for a token that came out earlier

_OUTPUTS = ["heard", *KV]


@dataclass(slots=True)
class Hypothesis:
    """What the decoder now believes the whole segment says.

    tokens: without BOS and EOS. heard: encoder frame at which each token was heard.
    probability: of each token. agreed: how many tokens the previous update had, too.
    ended: the decoder says that nothing more was said. p_end: how sure it was of that at the
    last token; None if it stopped before.
    """

    tokens: list[int] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    agreed: int = 0
    ended: bool = False
    p_end: float | None = None


class Decoder:
    """Greedy (or sampled) decoding of one segment.

    Tokens before `locked` are fixed, with their self-attention keys and values in a cache; the
    rest is a draft that each update reads again, in one batch, against the newest audio.
    """

    def __init__(
        self,
        graphs: Graphs,
        capacity: int,
        temperature: float = 0.0,
        eos_bonus: float = 0.0,
        random: np.random.Generator | None = None,
    ) -> None:
        """`eos_bonus` is added to the logit of "nothing more was said": above 0 words come
        later, below 0 sooner. `random` is needed where `temperature` > 0."""
        self._graphs = graphs
        self._cache = Cache(capacity)
        self._p = untouched(BATCH, VOCABULARY)
        self._capacity = capacity
        self._temperature = temperature
        self._eos_bonus = eos_bonus
        self._random = random
        self.locked = 0
        self.runs = 0
        self.hypothesis = Hypothesis()

    def update(self, cross: list[Floats], limit: int, horizon: int | None) -> Hypothesis:
        """Decodes against `cross` (keys and values of all frames).

        limit: most tokens of the whole segment. horizon: encoder frame beyond which a token
        is of no use yet, so that decoding stops there; None: decode to the end, however long
        that takes. With a horizon it also stops after LONGEST_UPDATE runs: the hypothesis may then
        be shorter than it was, and the next update goes on from its end.
        """
        old, base = self.hypothesis, self.locked
        self._cache.truncate(base)
        limit = min(limit, self._capacity - 1)
        new = Hypothesis(old.tokens[:base], old.heard[:base], old.probability[:base])
        draft = old.tokens[base:]
        batch, runs = BATCH, 0
        while not new.ended and len(new.tokens) < limit:
            if horizon is not None and (runs == LONGEST_UPDATE or _is_beyond(new, base, horizon)):
                break
            guess = draft[: min(batch, limit - len(new.tokens)) - 1]
            good = self._extend(new, cross, guess)
            runs += 1
            # Where the draft was wrong the rest of it probably is, too: no use in reading much.
            batch = min(BATCH, 2 * (good + 1))
            # Behind a token that differs, the draft goes on as if one had been exchanged, or from
            # where it has the new one. Sampled text has no such second chance: it would bend it.
            draft = _resumed(draft[good:], new.tokens[-1:]) if self._temperature == 0 else []
        if not new.ended:
            new.p_end = None
        new.agreed = _common_prefix(new.tokens, old.tokens)
        self.hypothesis = new
        return new

    def lock(self, tokens: int) -> None:
        """The first `tokens` tokens of the hypothesis will not be read again."""
        self.locked = max(self.locked, min(tokens, len(self.hypothesis.tokens)))

    def _extend(self, to: Hypothesis, cross: list[Floats], guess: list[int]) -> int:
        """Reads the last token and `guess` behind it in one batch; appends what the decoder says
        as far as it confirms the guess, and the one token after that.

        Returns how many tokens of the guess held.
        """
        position = len(to.tokens)
        fed = [to.tokens[-1] if to.tokens else BOS, *guess]
        feed = {
            "rows": self._graphs.embedding[fed],
            "pos0": np.array(position),
            "mask": _causal(len(fed), position),
            **feeds(PAST, self._cache.arrays()),
            **feeds(CROSS, cross),
        }
        p = self._p[: len(fed)]
        heard, *rest = run_into(self._graphs.decoder, feed, "logits", p, _OUTPUTS)
        # In place: ONNX Runtime reads a row before it writes it (tests/test_stt_decoder.py).
        run_into(self._graphs.softmax, {"logits": p}, "p", p)
        self.runs += 1
        best = self._choose(p, guess)
        good = 0
        while good < len(guess) and guess[good] == best[good]:
            good += 1
        self._cache.splice(position, rest, good + 1)
        for i in range(good + 1):
            to.p_end = float(p[i, EOS])
            if best[i] == EOS:
                to.ended = True
                return i
            to.tokens.append(int(best[i]))
            to.heard.append(int(heard[i]))
            to.probability.append(float(p[i, best[i]]))
        return good

    def _choose(self, p: Floats, draft: list[int]) -> NDArray[np.int64]:
        """Tokens under `eos_bonus` (which changes `p`) and temperature.

        A drafted token was sampled before; it is kept unless the decoder now finds it out of the
        question, so that sampled text settles.
        """
        if self._eos_bonus != 0:
            p[:, EOS] *= np.exp(self._eos_bonus)
            p /= p.sum(-1, keepdims=True)
        best: NDArray[np.int64] = p.argmax(-1)
        if self._temperature > 0 and self._random is not None:
            for i in range(len(best)):
                if i < len(draft) and p[i, draft[i]] >= 0.1 * p[i, best[i]]:
                    best[i] = draft[i]
                else:
                    q = (p[i] / p[i, best[i]]).astype(np.float64) ** (1 / self._temperature)
                    best[i] = self._random.choice(len(q), p=q / q.sum())
        return best


def _is_beyond(new: Hypothesis, base: int, horizon: int) -> bool:
    """Whether a token behind the first `base` was heard later than at frame `horizon`."""
    return len(new.heard) > base and new.heard[-1] > horizon


def _resumed(rest: list[int], token: list[int]) -> list[int]:
    """What may follow `token` (a list of it), given the draft from where it stands on."""
    near = rest[:RESUME_WITHIN]
    return rest[near.index(token[0]) + 1 :] if token and token[0] in near else rest[1:]


def _common_prefix(a: list[int], b: list[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _causal(n: int, past: int) -> Floats:
    """[n, past + n]: 0 where a row may see a column, -1e9 elsewhere."""
    return np.triu(np.full((n, past + n), -1e9, np.float32), past + 1)
