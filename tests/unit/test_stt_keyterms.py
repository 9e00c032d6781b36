"""Key terms: whole words only, all spellings alike, and a bonus that is taken back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.keyterm_list import parse_term
from edged.options import Options
from edged.stt.beam import Beam, Hypothesis, SearchBounds
from edged.stt.decoder import Decoder
from edged.stt.keyterms import START, Keyterms, TermState, compiled, keyterms_of
from edged.stt.sampler import Sampler
from edged.stt.token_tree import Choice, TokenTree
from edged.stt.words import SegmentWord
from tests.support.toy_languages import BOS, EOS, LONGEST, FakeTree, Language
from tests.support.toy_speech_model import ToySpeechModel, script, sentence


@dataclass
class PieceList:
    """A vocabulary of pieces; a piece with a space in front begins a word."""

    pieces: Sequence[bytes]
    eos: int = -1

    def __len__(self) -> int:
        return len(self.pieces)

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(self.pieces[t] for t in tokens).decode().strip()

    def word_starts(self, tokens: Sequence[int]) -> list[int]:
        return [i for i, t in enumerate(tokens) if i == 0 or self.pieces[t].startswith(b" ")]

    def spelling(self, token: int) -> bytes:
        return self.pieces[token]


LETTERS = [bytes([n]) for n in range(256)]
WORDS = [b" home", b" Home", b" assist", b"ant", b" Hom", b"e", b" room", b" the", b"work", b"'s"]
VOCABULARY = PieceList(LETTERS + WORDS)


def keyterms(*terms: str, boost: float = 1.0) -> Keyterms:
    return Keyterms([parse_term(term) for term in terms], VOCABULARY, boost)


def letters(text: str) -> list[int]:
    return list(text.encode())


def pieces(*spelled: bytes) -> list[int]:
    return [len(LETTERS) + WORDS.index(piece) for piece in spelled]


def ended(made: Keyterms, tokens: Sequence[int]) -> float:
    """The bonus of a whole text."""
    state = made.end(made.after(tokens))
    assert state.pending == 0
    return state.earned


def test_each_step_along_a_term_gives_a_bonus_which_stays_once_the_word_has_ended() -> None:
    made = keyterms("Home Assistant")
    pending = [made.after(letters("home assistant"[:n])).pending for n in range(15)]
    assert pending == sorted(pending)
    assert pending[0] == 0.0
    assert made.after(letters("home assistant")).earned == 0.0
    whole = made.after(letters("home assistant "))
    assert whole.pending == 0.0
    assert whole.earned == pytest.approx(pending[-1])
    assert ended(made, letters("home assistant")) == whole.earned


@pytest.mark.parametrize("text", ["home assist", "home assistants", "home", "home, assistant"])
def test_the_bonus_is_taken_back_when_the_term_fails(text: str) -> None:
    assert ended(keyterms("Home Assistant"), letters(text)) == 0.0


@pytest.mark.parametrize("text", ["annabel", "joann", "hannah", "banned", "o'ann"])
def test_there_is_no_bonus_inside_another_word(text: str) -> None:
    assert ended(keyterms("Ann"), letters(text)) == 0.0


@pytest.mark.parametrize("text", ["ann", "so, ann.", "ann's", "ann’s", "(ann)", "mary-ann", "ANN?"])
def test_punctuation_and_capitals_do_not_matter(text: str) -> None:
    vocabulary = PieceList([*LETTERS, *(c.encode() for c in "’")])
    made = Keyterms([parse_term("Ann")], vocabulary, 1.0)
    tokens = [t for c in text for t in ([256] if c == "’" else letters(c))]
    assert ended(made, tokens) == pytest.approx(1.0)


def test_all_ways_to_spell_a_term_are_one_term() -> None:
    made = keyterms("Home Assistant")
    ways = [
        pieces(b" home", b" assist", b"ant"),
        pieces(b" Home", b" assist", b"ant"),
        [*pieces(b" Hom", b"e", b" assist"), *letters("ant")],
        letters(" HOME ASSISTANT"),
    ]
    bonuses = {round(ended(made, way), 6) for way in ways}
    assert len(bonuses) == 1
    assert bonuses.pop() > 0
    assert set(itertools.chain(*ways[:3])) <= made.candidates | set(letters("ant"))
    assert not made.candidates & set(pieces(b" room", b" the", b"work", b"'s"))


def test_terms_that_contain_each_other_are_not_counted_twice() -> None:
    alone = ended(keyterms("living room lamp"), letters("living room lamp"))
    nested = keyterms("living room lamp", "living room", "room", "lamp")
    assert ended(nested, letters("living room lamp")) <= alone + 4 / 3 + 1e-9
    assert ended(nested, letters("living room")) == ended(
        keyterms("living room"), letters("living room")
    )
    assert ended(nested, letters("room")) == pytest.approx(4 / 3)


def test_a_script_without_spaces_has_words_everywhere() -> None:
    made = keyterms("居間")
    assert ended(made, letters("今日の居間は")) > 0
    assert ended(made, letters("居所")) == 0


def test_a_term_that_the_vocabulary_cannot_spell_is_reported() -> None:
    made = Keyterms([parse_term("home"), parse_term("ж-2жж")], PieceList(WORDS), 1.0)
    assert [t.term for t in made.terms] == ["home"]
    assert [t.term for t in made.unspellable] == ["ж-2жж"]


def words(text: str) -> list[SegmentWord]:
    return [SegmentWord(w, n, n + 0.5, n + 1, 0.9 - n / 10) for n, w in enumerate(text.split())]


def test_how_a_term_sounds_is_replaced_exactly() -> None:
    made = keyterms("Ecobee: echo bee", "Réaltín")
    for heard, written in (
        ("the echo bee is", "the Ecobee is"),
        ("Echo bee's on.", "Ecobee's on."),
        ("my Echo Bee.", "my Ecobee."),
        ("echo, bee", "echo, bee"),
        ("echo beer", "echo beer"),
        ("hello Realtin?", "hello Réaltín?"),
    ):
        assert " ".join(w.text for w in made.replaced(words(heard))) == written
    (_, joined, _) = made.replaced(words("the echo bee is"))
    assert (joined.start_s, joined.stop_s, joined.end_token) == (1, 2.5, 3)
    assert joined.probability == pytest.approx(0.7)


def test_the_beginning_of_a_replaced_spelling_waits_for_the_next_word() -> None:
    """Committed words are never revised: "echo" must not be said before "bee" is decoded."""
    made = keyterms("Ecobee: echo bee")
    assert made.closed(words("the echo")) == 1
    assert made.closed(words("the echo is")) == 3
    assert made.closed(words("the echo.")) == 2
    assert keyterms("Echo Bee").closed(words("the echo")) == 2


# ---- in the search ------------------------------------------------------------------------------
TOY = PieceList([b"<x>"] * 10 + [b" al", b"ba", b" no"])


def search(
    language: Language, made: Keyterms | None, width: int = 2, horizon: int | None = None
) -> Hypothesis:
    tree, bounds = FakeTree(language), SearchBounds(LONGEST, horizon)
    return Beam(cast(TokenTree, tree), bounds, EOS, width, 1.5, keyterms=made).search(
        Hypothesis(BOS, None)
    )


def toy_terms(*terms: str, boost: float) -> Keyterms:
    return Keyterms([parse_term(term) for term in terms], TOY, boost)


languages = st.integers(0, 2**32 - 1).map(Language)
some_terms = st.sets(st.sampled_from(["alba", "alba no", "no alba", "baba", "noba no"]), min_size=1)


@settings(deadline=None, max_examples=300)
@given(
    languages,
    some_terms,
    st.floats(0.1, 6),
    st.integers(1, 3),
    st.sampled_from([None, 10, 20, 30]),
)
def test_a_term_that_is_not_complete_changes_nothing(
    language: Language, terms: set[str], boost: float, width: int, horizon: int | None
) -> None:
    """Neither the text nor its probabilities. (With a horizon the search may go on behind it.)"""
    made = toy_terms(*terms, boost=boost)
    without, found = search(language, None, width, horizon), search(language, made, width, horizon)
    if horizon is None and found.term.earned == 0:
        assert (found.tokens, found.probabilities) == (without.tokens, without.probabilities)
    pairs = zip(found.tokens, found.probabilities, strict=True)
    for i, (token, p) in enumerate(pairs):
        assert dict(language.choices(found.tokens[:i]))[token] == p
    assert not found.rescued


class Misheard(Language):
    """Hears "no no" where "alba" is said: its second part is the likelier one, but both begin
    alike improbably."""

    def __init__(self, first: float, second: float) -> None:
        self.first, self.second = first, second

    def choices(self, text: tuple[int, ...]) -> list[Choice]:
        al, ba, no = 10, 11, 12
        if not text:
            found = [Choice(no, 1 - self.first), Choice(al, self.first)]
        elif len(text) == 1 and text[0] == al:
            found = [Choice(ba, self.second), Choice(no, 1 - self.second)]
        elif len(text) == 1:
            found = [Choice(no, 1.0)]
        else:
            found = [Choice(EOS, 1.0)]
        return sorted(found, key=lambda choice: -choice.p)


def test_an_improbable_beginning_is_kept_and_a_whole_term_wins() -> None:
    language, made = Misheard(0.1, 0.9), toy_terms("Alba", boost=2.5)
    assert search(language, None).tokens == (12, 12)
    found = search(language, made)
    assert found.tokens == (10, 11)
    assert found.probabilities == (0.1, 0.9), "those of the audio, without a bonus"
    assert search(language, toy_terms("Alba", boost=0.5)).tokens == (12, 12)


def test_a_wrong_beginning_is_taken_back() -> None:
    assert search(Misheard(0.1, 0.001), toy_terms("Alba", boost=2.5)).tokens == (12, 12)


def test_at_the_horizon_the_search_goes_on_until_the_term_is_complete() -> None:
    """Else its first word would have to be committed before it is known whether the term is said:
    with the bonus too boldly, without it the term would be lost."""
    made = toy_terms("Alba", boost=4.0)
    assert search(Misheard(0.1, 0.9), made, horizon=5).tokens == (10, 11)
    assert search(Misheard(0.1, 0.001), made, horizon=5).tokens[:1] == (12,)


def test_a_text_that_is_the_best_without_its_term_ends_at_the_horizon() -> None:
    """The search went on behind it whenever the last word was the beginning of some term: with 100
    terms a tenth more decoder runs."""
    assert search(Misheard(0.9, 0.5), toy_terms("Alba", boost=4.0), horizon=5).tokens == (10,)


def test_without_terms_nothing_is_asked_of_the_decoder_that_was_not_asked_before() -> None:
    assert Sampler(EOS).top_k == 4
    assert compiled((), 2.0, TOY) is None
    assert compiled(("Alba",), 0.0, TOY) is None
    assert Hypothesis(BOS, None, score=-1.0).settled == -1.0
    assert TermState() == START


def test_a_family_that_has_no_key_terms_gets_none() -> None:
    model = ToySpeechModel(script(*sentence("one two")))
    options = Options(keyterms=("Alba",))
    model.vocabulary.token(" alba")
    made = keyterms_of(model, options)
    assert made is not None
    assert len(made.terms) == 1
    assert keyterms_of(replace(model, has_keyterms=False), options) is None


def test_sampling_does_not_use_terms() -> None:
    model = ToySpeechModel(script(*sentence("one two")))
    made = toy_terms("Alba", boost=2)
    decoder = Decoder(model, "en", 20, temperature=0.5, keyterms=made)
    assert decoder._keyterms is None
