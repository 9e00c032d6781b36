"""Beam search, on a made-up language in which every text's probability is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edged.stt.beam import RESUME_WINDOW, Beam, Hypothesis, SearchBounds
from edged.stt.token_tree import Choice, TokenTree
from tests.support.toy_languages import BOS, EOS, LETTERS, LONGEST, FakeTree, Language

ALL = 1000  # rivals: more than there are texts


def searched(
    language: Language,
    drafts: Sequence[Sequence[int]] = ((),),
    beam_width: int = ALL,
    beam_threshold: float = math.inf,
    bounds: SearchBounds | None = None,
) -> tuple[Hypothesis, int]:
    """The text found, and the runs it took."""
    tree = FakeTree(language)
    beam = Beam(
        cast(TokenTree, tree), bounds or SearchBounds(LONGEST), EOS, beam_width, beam_threshold
    )
    return beam.search(Hypothesis(BOS, None, drafts[0]), drafts[1:]), tree.runs


class Fork(Language):
    """Every text begins with the first letter; then the second has `p`, the third the rest."""

    def __init__(self, p: float) -> None:
        self.p = p

    def choices(self, text: tuple[int, ...]) -> list[Choice]:
        if len(text) != 1:
            return [Choice(LETTERS[0], 1.0)]
        forked = [Choice(LETTERS[1], self.p), Choice(LETTERS[2], 1 - self.p)]
        return sorted(forked, key=lambda choice: -choice.p)


languages = st.integers(0, 2**32 - 1).map(Language)
texts = st.lists(st.sampled_from(LETTERS), max_size=6)


@settings(deadline=None, max_examples=40)
@given(languages)
def test_a_wide_beam_finds_the_most_probable_text(
    language: Language,
) -> None:
    """Of those that end where their end is likelier than any token."""
    every = itertools.chain.from_iterable(
        itertools.product(LETTERS, repeat=n) for n in range(LONGEST + 1)
    )
    allowed = [text for text in every if language.ends(text)]
    best = max(allowed, key=language.score)
    found, _ = searched(language)
    assert found.tokens == best
    assert math.isclose(found.score, language.score(best))
    assert (found.p_eos is None) == (len(best) == LONGEST)


@settings(deadline=None)
@given(languages, st.integers(1, 4))
def test_a_text_never_ends_where_going_on_is_likelier(language: Language, beam_width: int) -> None:
    """Else every pause would do: behind it each token makes a text less likely, and half a
    sentence would be the likelier one."""
    assert language.ends(searched(language, beam_width=beam_width)[0].tokens)


@settings(deadline=None)
@given(languages)
def test_without_rivals_each_token_is_the_most_probable_after_those_before_it(
    language: Language,
) -> None:
    greedy: tuple[int, ...] = ()
    while len(greedy) < LONGEST and (token := language.choices(greedy)[0].token) != EOS:
        greedy = (*greedy, token)
    assert searched(language, beam_width=1)[0].tokens == greedy
    for beam_threshold in (0.0, 1e-9):
        assert searched(language, beam_threshold=beam_threshold)[0].tokens == greedy


@settings(deadline=None)
@given(languages, st.lists(texts, min_size=1, max_size=4), st.integers(1, 4))
def test_drafts_right_or_wrong_change_nothing(
    language: Language, drafts: list[list[int]], beam_width: int
) -> None:
    alone, runs = searched(language, beam_width=beam_width)
    helped, fewer = searched(language, drafts, beam_width)
    assert (helped.tokens, helped.score) == (alone.tokens, alone.score)
    assert fewer <= runs


@settings(deadline=None)
@given(languages, st.integers(1, 4))
def test_what_was_weighed_is_weighed_again_in_one_run(language: Language, beam_width: int) -> None:
    tree = FakeTree(language)
    beam = Beam(cast(TokenTree, tree), SearchBounds(LONGEST), EOS, beam_width)
    beam.search(Hypothesis(BOS, None))
    again, runs = searched(language, [[], *beam.explored], beam_width, beam.beam_threshold)
    assert runs == 1
    assert again.score == beam.search(Hypothesis(BOS, None)).score


@settings(deadline=None)
@given(languages, st.integers(1, 4), st.integers(0, 50))
def test_a_text_ends_with_the_first_token_behind_the_horizon(
    language: Language, beam_width: int, horizon: int
) -> None:
    found, _ = searched(language, beam_width=beam_width, bounds=SearchBounds(LONGEST, horizon))
    assert all(frame <= horizon for frame in found.frames[:-1])
    if found.p_eos is None and len(found.tokens) < LONGEST:
        assert found.frames[-1] > horizon


@settings(deadline=None)
@given(languages, st.integers(1, 4), st.integers(1, 3))
def test_a_search_has_no_more_runs_than_its_bound(
    language: Language, beam_width: int, runs: int
) -> None:
    assert (
        searched(language, beam_width=beam_width, bounds=SearchBounds(LONGEST, max_runs=runs))[1]
        <= runs
    )


@settings(deadline=None)
@given(languages, st.integers(1, 4), st.integers(0, 4))
def test_when_time_is_up_the_most_probable_text_goes_on_alone(
    language: Language, beam_width: int, greedy_after: int
) -> None:
    """At the end of a segment nothing may be left out, but a step has 80 ms: one had taken 168."""
    hurried, runs = searched(
        language, beam_width=beam_width, bounds=SearchBounds(LONGEST, greedy_after=greedy_after)
    )
    assert runs <= greedy_after + LONGEST + 1
    assert hurried.p_eos is not None or len(hurried.tokens) == LONGEST
    if greedy_after == 0:
        assert hurried.tokens == searched(language, beam_width=1)[0].tokens


@given(texts, st.sampled_from(LETTERS))
def test_a_draft_goes_on_behind_the_token_or_as_if_one_had_been_exchanged(
    draft: list[int], token: int
) -> None:
    beam = Beam(cast(TokenTree, FakeTree(Language(0))), SearchBounds(LONGEST), EOS)
    resumed = list(beam._resume_draft(draft, token))
    assert resumed == draft[len(draft) - len(resumed) :]
    if token in draft[:RESUME_WINDOW]:
        assert draft[len(draft) - len(resumed) - 1] == token
    beam.resume_drafts = False
    assert beam._resume_draft(draft, token) == (draft[1:] if draft[:1] == [token] else ())


@given(st.floats(0.01, 0.99), st.integers(1, 3))
def test_what_a_rival_that_is_left_has_otherwise_is_disputed(p: float, beam_width: int) -> None:
    beam = Beam(
        cast(TokenTree, FakeTree(Fork(p))),
        SearchBounds(LONGEST),
        EOS,
        beam_width,
        beam_threshold=1.5,
    )
    found = beam.search(Hypothesis(BOS, None))
    apart = abs(math.log(p / (1 - p)))
    assume(abs(apart - 1.5) > 1e-6)
    assert beam.shared_prefix == (1 if beam_width > 1 and apart < 1.5 else len(found.tokens))


class Interrupted(Language):
    """Behind the first letter the end has 0.4, and a long word, token by token, the rest."""

    def __init__(self) -> None:
        pass

    def choices(self, text: tuple[int, ...]) -> list[Choice]:
        if len(text) == 0:
            return [Choice(LETTERS[0], 1.0)]
        if len(text) == 1:
            return [Choice(LETTERS[1], 0.5), Choice(EOS, 0.4), Choice(LETTERS[2], 0.1)]
        return [Choice(LETTERS[2], 0.6), Choice(LETTERS[1], 0.4)]


def test_an_end_in_front_of_the_horizon_is_one_more_token_unless_it_must_be_the_best() -> None:
    """Any text gets less likely as it grows, so that an early end beat all that was really said
    behind a "Yeah.", for six seconds."""
    bounds = SearchBounds(LONGEST, horizon=100)
    early, _ = searched(Interrupted(), beam_width=3, bounds=bounds)
    assert early.tokens == LETTERS[:1]
    assert early.p_eos == 0.4
    going_on, _ = searched(Interrupted(), beam_width=3, bounds=replace(bounds, early_eos=False))
    assert len(going_on.tokens) == LONGEST
