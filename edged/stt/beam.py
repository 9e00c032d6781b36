"""Which of several texts the decoder finds likeliest: beam search over a tree of read tokens.

Taking the likeliest token each time can't be taken back. With rivals fewer of 2962 words are wrong
(180 clips): in whole clips 318 in place of 357, as they are said at 0.8 s of delay 380 in place of
419, for a fifth more runs. Two rivals do two thirds of that, four no more than three. Which tokens
are read in one run is the tree's matter; drafts only make that cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edged.stt.moonshine.vocabulary import EOS
from edged.stt.token_tree import Choice, Node, TokenTree, common_prefix

BATCH = 8  # tokens read in one run, but for drafts
DRAFT_RUNS = 2  # most runs in which drafts are read
BEAM_WIDTH = 3  # texts that are weighed against each other at a time
BEAM_THRESHOLD = 1.5  # a text this much (natural logarithm) less likely than the best is given up
# Rows behind the trunk: with more a text without rivals is settled, with twice as many the best is.
MOST_LOOSE = 64
RESUME_WITHIN = 5  # how far ahead a draft is searched for a token that came out earlier


@dataclass(frozen=True, slots=True)
class Line:
    """A text as it grows: tokens behind those that are fixed.

    row: of the token in front of the last one (None: the trunk). draft: tokens that may follow.
    """

    token: int
    row: int | None
    draft: Sequence[int] = ()
    score: float = 0.0
    tokens: tuple[int, ...] = ()
    heard: tuple[int, ...] = ()
    probability: tuple[float, ...] = ()
    p_end: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a search ends.

    tokens: most of them. horizon: a text that was heard beyond this frame is long enough; None:
    to the end. runs: most of them. alone: after so many only the likeliest text goes on. early:
    with a horizon, a text may end in front of it as if that were one more token.
    """

    tokens: int
    horizon: int | None = None
    runs: int | None = None
    alone: int | None = None
    early: bool = True


@dataclass(slots=True)
class Beam:
    """One search.

    rivals, margin: see RIVALS and MARGIN. resume: whether a draft goes on behind a token that it
    did not have. visited: the texts that were weighed, as drafts for a search of the same audio
    with a little more of it. undisputed: how many tokens of the likeliest text all others have that
    were left in the end.
    """

    tree: TokenTree
    bounds: Bounds
    beam_width: int = BEAM_WIDTH
    beam_threshold: float = BEAM_THRESHOLD
    resume: bool = True
    visited: list[tuple[int, ...]] = field(default_factory=list)
    undisputed: int = 0

    def search(self, start: Line, drafts: Sequence[Sequence[int]] = ()) -> Line:
        """The likeliest text behind `start`. `drafts` are read with it, before all else."""
        first_run = self.tree.runs
        known = [(start.row, [start.token, *draft]) for draft in (start.draft, *drafts)]
        for _ in range(DRAFT_RUNS):
            self.tree.read(known)
        live, done = [start], list[Line]()
        while live:
            runs, loose = self.tree.runs - first_run, self.tree.loose
            if self.bounds.alone is not None and runs >= self.bounds.alone:
                live = live[:1]
            if loose > 2 * MOST_LOOSE or (loose > MOST_LOOSE and len(live) == 1):
                live = [self._settled(live[0])]
            if missing := [x for x in live if self.tree.child(x.row, x.token) is None]:
                if self.bounds.runs is not None and runs >= self.bounds.runs:
                    break
                each = max(1, BATCH // len(missing))
                self.tree.read([(x.row, [x.token, *x.draft[: each - 1]]) for x in missing])
            live = self._grown(live, done)
        best = max(done + live, key=_score)
        left = [line for line in done + live if line.score >= best.score - self.beam_threshold]
        self.undisputed = min(common_prefix(line.tokens, best.tokens) for line in left)
        return best

    def _settled(self, line: Line) -> Line:
        """All but the tokens in front of its last is forgotten."""
        self.tree.settle_on(line.row)
        return replace(line, row=None)

    def _grown(self, live: list[Line], done: list[Line]) -> list[Line]:
        """Each text with each of its likeliest next tokens: the best of them all. Those at their
        end go to `done`."""
        longer: list[Line] = []
        for line in live:
            self.visited.append(line.tokens)
            row = self.tree.child(line.row, line.token)
            assert row is not None
            node = self.tree.node(row)
            longer += [self._longer(line, row, node, c) for c in self._allowed(node.choices)]
        longer.sort(key=_score, reverse=True)
        least = _score(max(longer[:1] + done, key=_score)) - self.beam_threshold
        grown: list[Line] = []
        for line in longer[: self.beam_width]:
            if line.score < least:
                continue
            if self._is_done(line):
                done.append(line)
                self.visited.append(line.tokens)
            else:
                grown.append(line)
        best = max(map(_score, done), default=-math.inf)  # a text gets no likelier as it grows
        return [line for line in grown if line.score > best]

    def _allowed(self, choices: list[Choice]) -> list[Choice]:
        """To the end of the audio a text ends where its end is likelier than any token, and only
        there: what goes on gets less likely with each token, and any pause would be the end. With
        a horizon an early end is mostly no harm: the next look goes on."""
        if self.bounds.horizon is not None and self.bounds.early:
            return choices
        ends = choices[0].token == EOS
        return choices[:1] if ends else [choice for choice in choices if choice.token != EOS]

    def _longer(self, line: Line, row: int, node: Node, choice: Choice) -> Line:
        score = line.score + math.log(choice.p)
        if choice.token == EOS:
            return replace(line, score=score, p_end=choice.p)
        return Line(
            token=choice.token,
            row=row,
            draft=self._resumed(line.draft, choice.token),
            score=score,
            tokens=(*line.tokens, choice.token),
            heard=(*line.heard, node.heard),
            probability=(*line.probability, choice.p),
        )

    def _is_done(self, line: Line) -> bool:
        if line.p_end is not None or len(line.tokens) >= self.bounds.tokens:
            return True
        horizon = self.bounds.horizon
        return horizon is not None and line.heard[-1] > horizon

    def _resumed(self, draft: Sequence[int], token: int) -> Sequence[int]:
        """What may follow `token`, given the draft from where it stands on: behind a token that
        differs it goes on as if one had been exchanged, or from where it has the new one."""
        if draft and draft[0] == token:
            return draft[1:]
        if not self.resume:
            return ()
        near = draft[:RESUME_WITHIN]
        return draft[near.index(token) + 1 :] if token in near else draft[1:]


def _score(line: Line) -> float:
    return line.score
