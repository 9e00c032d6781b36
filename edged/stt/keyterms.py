"""Key terms in the beam search: a bonus for each step along a term, taken back if the term fails.

A term counts as a whole word or words: it begins where a word begins, and its bonus stays only if
it ends where a word ends. Terms are matched by their letters, whatever the tokens are that spell
them and whatever their capitals, so that all ways to write a term are one term.

The bonus takes part in the choice between texts only. The probabilities that confidence, guards and
commit rules read are those that the decoder gave.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from edged.keyterm_list import Keyterm, parse_term
from edged.options import Options
from edged.stt.family import SpeechModel, Vocabulary
from edged.stt.words import SegmentWord, normalised

# How many candidates a run of the decoder gives for each token where there are terms: those beyond
# the beam's own count only if they continue a term.
TERM_TOP_K = 8
TERM_HYPOTHESES = 1  # hypotheses within a term that are kept besides the beam's own
# The bonus grows by `boost` for each so many characters, up to so many times.
STEP_CHARACTERS = 3.0
MAX_STEPS = 2.0
# Natural logarithm: how much less probable than BEAM_THRESHOLD allows a token may be that continues
# a term.
STEP_MARGIN = 1.5

MAX_CACHED_MOVES = 50_000
_CACHED_VOCABULARIES, _CACHED_LISTS = 2, 8

_SAME_MARKS = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "."})
_SPACE = ord(" ")
_APOSTROPHE = ord("'")


@dataclass(frozen=True, slots=True)
class TermState:
    """Where a text stands within terms.

    active: for each term that the text is within, its node in the tree of spellings and how much
        of its bonus has been earned by a shorter term that it contains.
    word_start: whether a term may begin with the next letter.
    earned: bonus of the terms that are complete. pending: bonus of the term that the text is
        within, which is taken back if the term fails.
    """

    active: tuple[tuple[int, float], ...] = ()
    word_start: bool = True
    earned: float = 0.0
    pending: float = 0.0


START = TermState()


@dataclass(slots=True)
class _SpellingNode:
    """A place in a term. depth: characters up to here. ends: whether a term ends here."""

    depth: int = 0
    ends: bool = False
    children: dict[int, int] = field(default_factory=dict)  # node by byte


class Keyterms:
    """A list of terms for one vocabulary.

    terms: those that the vocabulary can spell. unspellable: the others, which have no effect.
    candidates: tokens that may begin or continue a term.
    """

    def __init__(self, terms: Sequence[Keyterm], vocabulary: Vocabulary, boost: float) -> None:
        """boost: of each step; see STEP_CHARACTERS."""
        self._boost = boost
        self._nodes = [_SpellingNode()]
        self._spellings = spellings_of(vocabulary)
        self._moves: dict[tuple[object, bool, int], TermState] = {}
        candidates: set[int] = set()
        self.terms: tuple[Keyterm, ...] = ()
        self.unspellable: tuple[Keyterm, ...] = ()
        self._replacements: dict[tuple[str, ...], str] = {}
        for term in terms:
            tokens: set[int] = set()
            replaced = [*term.sounds_like, *_unaccented(term.term)]
            for spelling in (term.term, *replaced):
                if found := self._spellings.within(folded(spelling)):
                    tokens |= found
                    self._add(folded(spelling))
            for spelling in replaced:
                key = tuple(filter(None, map(normalised, spelling.split())))
                self._replacements.setdefault(key, term.term)
            if tokens:
                self.terms += (term,)
                candidates |= tokens
            else:
                self.unspellable += (term,)
        self.candidates = frozenset(candidates)
        self._replaced_words = max(map(len, self._replacements), default=0)

    # ---- in the search --------------------------------------------------------------------------
    def after(self, tokens: Iterable[int], state: TermState = START) -> TermState:
        """The state behind a text that goes on with `tokens`."""
        for token in tokens:
            state = self.move(state, token)
        return state

    def move(self, state: TermState, token: int) -> TermState:
        """The state behind one more token."""
        key = (state.active, state.word_start, token)
        moved = self._moves.get(key)
        if moved is None:
            moved = self._read(state.active, state.word_start, self._spellings.of(token))
            if len(self._moves) >= MAX_CACHED_MOVES:
                self._moves.clear()
            self._moves[key] = moved
        if not state.earned:
            return moved
        earned = state.earned + moved.earned
        return TermState(moved.active, moved.word_start, earned, moved.pending)

    def end(self, state: TermState) -> TermState:
        """The state of a text that ends: terms that are complete have earned their bonus."""
        _, gained = self._complete(state.active)
        return TermState((), True, state.earned + gained, 0.0)

    def _read(
        self, active: tuple[tuple[int, float], ...], word_start: bool, spelling: bytes
    ) -> TermState:
        earned = 0.0
        for byte in spelling:
            if not _is_continuation(byte) and not (_is_letter(byte) and not _is_free(byte)):
                active, gained = self._complete(active)  # a word ends here
                earned += gained
            moved = []
            for node, credited in active:
                child = self._nodes[node].children.get(byte)
                if child is not None:
                    moved.append((child, credited))
            may_start = word_start or _is_free(byte)
            if may_start and (child := self._nodes[0].children.get(byte)) is not None:
                moved.append((child, 0.0))
            active = tuple(moved)
            if not _is_continuation(byte):
                word_start = not _is_letter(byte) and byte != _APOSTROPHE
        return TermState(active, word_start, earned, self._pending(active))

    def _complete(
        self, active: tuple[tuple[int, float], ...]
    ) -> tuple[tuple[tuple[int, float], ...], float]:
        """Completes the longest of the terms that end here. Longer terms that contain it go on;
        what it earned counts towards their bonus."""
        full = [
            self._bonus(self._nodes[node].depth) - credited
            for node, credited in active
            if self._nodes[node].ends
        ]
        gained = max(full, default=0.0)
        if gained <= 0:
            return active, 0.0
        return tuple((node, credited + gained) for node, credited in active), gained

    def _pending(self, active: tuple[tuple[int, float], ...]) -> float:
        bonus = (self._bonus(self._nodes[node].depth) - credited for node, credited in active)
        return max(0.0, max(bonus, default=0.0))

    def _bonus(self, depth: int) -> float:
        return self._boost * min(depth / STEP_CHARACTERS, MAX_STEPS)

    def _add(self, spelling: bytes) -> None:
        at = 0
        for byte in spelling:
            depth = self._nodes[at].depth + (not _is_continuation(byte))
            child = self._nodes[at].children.get(byte)
            if child is None:
                child = len(self._nodes)
                self._nodes[at].children[byte] = child
                self._nodes.append(_SpellingNode(depth))
            at = child
        self._nodes[at].ends = True

    # ---- in the text ----------------------------------------------------------------------------
    def replaced(self, words: Sequence[SegmentWord]) -> list[SegmentWord]:
        """The words, with each "sounds like" spelling replaced by its term, as one word group."""
        out: list[SegmentWord] = []
        at = 0
        while at < len(words):
            n = self._replaceable(words[at:])
            if n:
                out.append(self._join(words[at : at + n]))
            else:
                out.append(words[at])
            at += max(n, 1)
        return out

    def closed(self, words: Sequence[SegmentWord]) -> int:
        """How many of the words cannot become part of a spelling that is replaced when more words
        follow."""
        keys = [_key(word) for word in words]
        for n in range(min(self._replaced_words - 1, len(words)), 0, -1):
            first = len(words) - n
            beginning = tuple(keys[first:])
            if _is_run(words[first:]) and any(
                spelling[:n] == beginning for spelling in self._replacements if len(spelling) > n
            ):
                return first
        return len(words)

    def _replaceable(self, words: Sequence[SegmentWord]) -> int:
        """How many of the first words are a spelling that is replaced; 0 if they are not."""
        keys = [_key(word) for word in words[: self._replaced_words]]
        for n in range(len(keys), 0, -1):
            if tuple(keys[:n]) in self._replacements and _is_run(words[: n - 1]):
                return n
        return 0

    def _join(self, words: Sequence[SegmentWord]) -> SegmentWord:
        first, last = words[0], words[-1]
        term = self._replacements[tuple(_key(word) for word in words)]
        before = re.match(r"\W*", first.text)
        behind = re.search(r"(?:['’]s)?\W*$", last.text)
        text = (before[0] if before else "") + term + (behind[0] if behind else "")
        p = min(word.probability for word in words)
        return SegmentWord(text, first.start_s, last.stop_s, last.end_token, p)


def compiled(lines: Sequence[str], boost: float, vocabulary: Vocabulary) -> Keyterms | None:
    """The terms of valid `lines` (see `edged.keyterm_list`) for a vocabulary; None without any.

    The last few lists are kept, because each stream and each change of an option asks for one.
    """
    if not lines or boost <= 0:
        return None
    wanted = (tuple(lines), boost)
    with _lock:
        for known, of, made in _lists:
            if known == wanted and of is vocabulary:
                return made
    made = Keyterms([parse_term(line) for line in lines], vocabulary, boost)
    _remember(_lists, (wanted, vocabulary, made), _CACHED_LISTS)
    return made


def keyterms_of(model: SpeechModel, options: Options) -> Keyterms | None:
    """The terms of a session; None without any, or if the model does not support them."""
    if not model.has_keyterms:
        return None
    return compiled(options.keyterms, options.keyterm_boost, model.vocabulary)


class Spellings:
    """The folded spelling of each token, and the tokens of each spelling."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._of = [fold_bytes(vocabulary.spelling(token)) for token in range(len(vocabulary))]
        self._tokens: dict[bytes, list[int]] = {}
        for token, spelling in enumerate(self._of):
            if spelling:
                self._tokens.setdefault(spelling, []).append(token)
        self._longest = max(map(len, self._of), default=0)

    def of(self, token: int) -> bytes:
        """The folded spelling of a token."""
        return self._of[token]

    def has_token(self, spelling: bytes) -> bool:
        """Whether one token has this folded spelling."""
        return spelling in self._tokens

    def within(self, spelling: bytes) -> set[int]:
        """The tokens that occur in any way to spell `spelling`; none if there is no way."""
        return self._paths(b" " + spelling) or self._paths(spelling)

    def _paths(self, spelling: bytes) -> set[int]:
        reachable = {0}
        steps: list[tuple[int, int, list[int]]] = []
        for start in range(len(spelling)):
            if start not in reachable:
                continue
            for end in range(start + 1, min(start + self._longest, len(spelling)) + 1):
                if tokens := self._tokens.get(spelling[start:end]):
                    reachable.add(end)
                    steps.append((start, end, tokens))
        useful, found = {len(spelling)}, set[int]()  # places from which the end can be reached
        for start, end, tokens in reversed(steps):  # by falling start, so ends come before
            if end in useful:
                useful.add(start)
                found.update(tokens)
        return found


def spellings_of(vocabulary: Vocabulary) -> Spellings:
    """The spellings of a vocabulary, kept for the last few vocabularies."""
    with _lock:
        for of, made in _spellings:
            if of is vocabulary:
                return made
    made = Spellings(vocabulary)
    _remember(_spellings, (vocabulary, made), _CACHED_VOCABULARIES)
    return made


_Cached = TypeVar("_Cached")
_lock = threading.Lock()
_lists: list[tuple[tuple[tuple[str, ...], float], Vocabulary, Keyterms]] = []
_spellings: list[tuple[Vocabulary, Spellings]] = []


def _remember(cache: list[_Cached], item: _Cached, size: int) -> None:
    with _lock:
        cache.append(item)
        del cache[:-size]


def folded(text: str) -> bytes:
    """UTF-8 of a text without capitals and with plain quotation marks and dashes."""
    return unicodedata.normalize("NFC", text).translate(_SAME_MARKS).casefold().encode()


def fold_bytes(spelling: bytes) -> bytes:
    """As `folded`. A part of a character is left as it is."""
    try:
        return folded(spelling.decode())
    except UnicodeDecodeError:
        return spelling


def _unaccented(term: str) -> Iterator[str]:
    """The term without accents, if it has any: many models write it like that."""
    plain = "".join(c for c in unicodedata.normalize("NFD", term) if not unicodedata.combining(c))
    if plain != term and plain.isascii():
        yield plain


def _is_continuation(byte: int) -> bool:
    return 0x80 <= byte < 0xC0


def _is_free(byte: int) -> bool:
    """Whether a character of a script without spaces begins here: Chinese or Japanese."""
    return 0xE3 <= byte <= 0xE9


def _is_letter(byte: int) -> bool:
    return byte >= 0xC0 or chr(byte).isalnum()


def _key(word: SegmentWord) -> str:
    return normalised(re.sub(r"['’]s\W*$", "", word.text))


def _is_run(words: Sequence[SegmentWord]) -> bool:
    """Whether no punctuation mark separates these words from what follows."""
    return not any(word.text.endswith((".", ",", "?", "!", ";", ":")) for word in words)
