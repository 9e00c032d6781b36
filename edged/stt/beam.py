"""Beam search over a tree of tokens that the decoder has read.

Greedy decoding cannot undo a wrong token. Which tokens are read in one run is the tree's matter;
drafts change only the cost of a search, never its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edged.stt.keyterms import START, TERM_HYPOTHESES, Keyterms, TermState
from edged.stt.token_tree import Choice, Node, TokenTree, common_prefix

MAX_BATCH_TOKENS = 8  # tokens read in one run, drafts not counted
MAX_DRAFT_RUNS = 2  # runs spent on reading drafts before the search
BEAM_WIDTH = 3  # hypotheses that are kept at a time
BEAM_THRESHOLD = 1.5  # natural logarithm: hypotheses this much below the best are dropped
# Rows behind the committed prefix. With more, a single hypothesis has its beginning committed; with
# twice as many, the best of several has.
MAX_DRAFT_ROWS = 64
RESUME_WINDOW = 5  # how far ahead in a draft a token is searched that was decoded earlier


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text as it grows behind the committed prefix.

    last: its last token. row: the row of the token before that one (None: the prefix). draft:
    tokens that may follow. score: log probability. frames: the encoder frame of each token.
    p_eos: probability of the end of the text, once it has ended. term: where it stands within key
    terms. rescued: whether only the bonus of a term that is not complete has kept it.
    """

    last: int
    row: int | None
    draft: Sequence[int] = ()
    score: float = 0.0
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    p_eos: float | None = None
    term: TermState = START
    rescued: bool = False

    @property
    def settled(self) -> float:
        """The score with the bonus of key terms that are complete."""
        return self.score + self.term.earned

    @property
    def hopeful(self) -> float:
        """The score with the bonus of a key term that is not complete, too."""
        return self.settled + self.term.pending


@dataclass(frozen=True, slots=True)
class SearchBounds:
    """Where a search ends.

    max_tokens: the most tokens of a text. horizon: a text whose last token lies behind this encoder
    frame is long enough; None: search to the end of the text. max_runs: the most decoder runs.
    greedy_after: after so many runs only the best hypothesis goes on. early_eos: with a horizon,
    whether the end of the text competes like any other token before the horizon is reached; else it
    must be more probable than every other token.
    """

    max_tokens: int
    horizon: int | None = None
    max_runs: int | None = None
    greedy_after: int | None = None
    early_eos: bool = True


@dataclass(slots=True)
class Beam:
    """One search.

    eos: the token that ends a text. beam_width, beam_threshold: see BEAM_WIDTH, BEAM_THRESHOLD.
    resume_drafts: whether a draft is used further behind a token in which the text differs from it.
    explored: the texts that were extended, which serve as drafts when the same audio with a little
    more of it is searched again. shared_prefix: how many tokens of the best text all hypotheses
    share that survived. keyterms: terms with a bonus.
    """

    tree: TokenTree
    bounds: SearchBounds
    eos: int
    beam_width: int = BEAM_WIDTH
    beam_threshold: float = BEAM_THRESHOLD
    resume_drafts: bool = True
    explored: list[tuple[int, ...]] = field(default_factory=list)
    shared_prefix: int = 0
    keyterms: Keyterms | None = None

    def search(self, start: Hypothesis, drafts: Sequence[Sequence[int]] = ()) -> Hypothesis:
        """Returns the most probable text behind `start`. Reads `drafts` together with its own."""
        first_run = self.tree.runs
        known = [(start.row, [start.last, *draft]) for draft in (start.draft, *drafts)]
        for _ in range(MAX_DRAFT_RUNS):
            self.tree.read(known)
        live, finished = [start], list[Hypothesis]()
        while live:
            runs, drafted = self.tree.runs - first_run, self.tree.draft_rows
            if self.bounds.greedy_after is not None and runs >= self.bounds.greedy_after:
                live = live[:1]
            if drafted > 2 * MAX_DRAFT_ROWS or (drafted > MAX_DRAFT_ROWS and len(live) == 1):
                live = [self._commit_beginning(live[0])]
            if unread := [h for h in live if self.tree.child(h.row, h.last) is None]:
                if self.bounds.max_runs is not None and runs >= self.bounds.max_runs:
                    break
                each = max(1, MAX_BATCH_TOKENS // len(unread))
                self.tree.read([(h.row, [h.last, *h.draft[: each - 1]]) for h in unread])
            live = self._expand(live, finished)
        best = max([h for h in finished + live if not h.rescued], key=_score)
        left = [h for h in finished + live if h.hopeful >= best.settled - self.beam_threshold]
        self.shared_prefix = min(common_prefix(h.tokens, best.tokens) for h in left)
        return best

    def _commit_beginning(self, hypothesis: Hypothesis) -> Hypothesis:
        """Commits all but the last token; every other hypothesis is forgotten."""
        self.tree.commit_to(hypothesis.row)
        return replace(hypothesis, row=None)

    def _expand(self, live: list[Hypothesis], finished: list[Hypothesis]) -> list[Hypothesis]:
        """Extends each hypothesis by each of its choices and keeps the best. Those that end are
        added to `finished`."""
        longer: list[Hypothesis] = []
        for hypothesis in live:
            self.explored.append(hypothesis.tokens)
            row = self.tree.child(hypothesis.row, hypothesis.last)
            assert row is not None
            node = self.tree.node(row)
            longer += [self._extend(hypothesis, row, node, c) for c in self._allowed(node.choices)]
        plain = sorted((h for h in longer if not h.rescued), key=_score, reverse=True)
        ended = [h for h in finished if not h.rescued]
        least = _score(max(plain[:1] + ended, key=_score)) - self.beam_threshold
        survivors = [h for h in plain[: self.beam_width] if h.settled >= least]
        if self.keyterms is not None:
            survivors += self._within_terms(longer, survivors, least)
        goes_on = self._depends_on_term(survivors, finished)
        kept: list[Hypothesis] = []
        for hypothesis in survivors:
            if self._is_finished(hypothesis, goes_on):
                finished.append(hypothesis)
                self.explored.append(hypothesis.tokens)
            else:
                kept.append(hypothesis)
        best = max((h.settled for h in finished if not h.rescued), default=-math.inf)
        return [h for h in kept if h.hopeful > best]  # a text gets no likelier as it grows

    def _within_terms(
        self, longer: list[Hypothesis], survivors: list[Hypothesis], least: float
    ) -> list[Hypothesis]:
        """The best hypotheses that only the bonus of an incomplete term keeps.

        They come on top of the beam's own and end with their term if it fails, so that such a term
        changes nothing.
        """
        within = [h for h in longer if h.term.pending and h.hopeful >= least and h not in survivors]
        within.sort(key=lambda h: h.hopeful, reverse=True)
        return [replace(h, rescued=True) for h in within[:TERM_HYPOTHESES]]

    def _depends_on_term(self, survivors: list[Hypothesis], finished: list[Hypothesis]) -> bool:
        """Whether the text would be another one if an incomplete term became complete. Then the
        search goes on behind the horizon, until the term is complete or fails."""
        if not survivors or self.keyterms is None:
            return False
        best = max(survivors, key=lambda h: h.hopeful)
        plain = max((h for h in survivors + finished if not h.rescued), key=_score)
        return best is not plain and best.term.pending > 0 and best.hopeful > plain.settled

    def _allowed(self, choices: list[Choice]) -> list[Choice]:
        """The choices that may be taken.

        Towards the end of the audio a text ends exactly where its end is more probable than any
        token: every further token makes a text less likely, so that otherwise any pause would end
        it. With a horizon an early end is mostly harmless, because the next update goes on.
        """
        if self.bounds.horizon is not None and self.bounds.early_eos:
            return choices
        ends = choices[0].token == self.eos
        return choices[:1] if ends else [choice for choice in choices if choice.token != self.eos]

    def _extend(self, hypothesis: Hypothesis, row: int, node: Node, choice: Choice) -> Hypothesis:
        score, term = hypothesis.score + math.log(choice.p), hypothesis.term
        ends = choice.token == self.eos
        if self.keyterms is not None:
            term = self.keyterms.end(term) if ends else self.keyterms.move(term, choice.token)
        rescued = hypothesis.rescued and term.earned == hypothesis.term.earned
        if ends:
            return replace(hypothesis, score=score, p_eos=choice.p, term=term, rescued=rescued)
        return Hypothesis(
            last=choice.token,
            row=row,
            draft=self._resume_draft(hypothesis.draft, choice.token),
            score=score,
            tokens=(*hypothesis.tokens, choice.token),
            frames=(*hypothesis.frames, node.frame),
            probabilities=(*hypothesis.probabilities, choice.p),
            term=term,
            rescued=rescued,
        )

    def _is_finished(self, hypothesis: Hypothesis, goes_on: bool) -> bool:
        """goes_on: whether the search goes on behind the horizon."""
        if hypothesis.p_eos is not None or len(hypothesis.tokens) >= self.bounds.max_tokens:
            return True
        horizon = self.bounds.horizon
        return horizon is not None and not goes_on and hypothesis.frames[-1] > horizon

    def _resume_draft(self, draft: Sequence[int], token: int) -> Sequence[int]:
        """What may follow `token`, given the draft from its place on.

        Behind a token that differs the draft goes on as if one token had been exchanged, or from
        where the draft has the new token.
        """
        if draft and draft[0] == token:
            return draft[1:]
        if not self.resume_drafts:
            return ()
        near = draft[:RESUME_WINDOW]
        return draft[near.index(token) + 1 :] if token in near else draft[1:]


def _score(hypothesis: Hypothesis) -> float:
    return hypothesis.settled
