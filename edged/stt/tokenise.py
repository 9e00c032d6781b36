"""Text to tokens: how a vocabulary of byte pair encoding spells a given text."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from itertools import pairwise

from edged.stt.family import Vocabulary

# A word with the space in front of it, what an apostrophe adds to a word, digits, or marks.
_PARTS = re.compile(r" ?'(?:s|t|re|ve|m|ll|d)\b| ?[^\W\d_]+| ?\d+| ?[^\w\s]+| ?_+")
_CACHED_VOCABULARIES = 4


def tokens_of(text: str, vocabulary: Vocabulary) -> list[int]:
    """The tokens of a text, with a space in front as a text has behind the prompt.

    Pairs are joined as in training: the pair whose token has the lowest number first. Characters
    that the vocabulary cannot spell are left out.
    """
    known = _tokens_by_spelling(vocabulary)
    parts = _PARTS.findall(" " + " ".join(text.split()))
    return [token for part in parts for token in _joined(part, known)]


def _joined(part: str, known: dict[bytes, int]) -> Iterator[int]:
    if (whole := known.get(part.encode())) is not None:
        return iter((whole,))
    pieces = [piece for character in part for piece in _smallest(character.encode(), known)]
    while len(pieces) > 1:
        ranks = [known.get(a + b) for a, b in pairwise(pieces)]
        lowest = min((rank for rank in ranks if rank is not None), default=None)
        if lowest is None:
            break
        at = ranks.index(lowest)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return (known[piece] for piece in pieces)


def _smallest(character: bytes, known: dict[bytes, int]) -> list[bytes]:
    """The character or, if no token is this character, its bytes."""
    if character in known:
        return [character]
    single = [bytes([byte]) for byte in character]
    return single if all(byte in known for byte in single) else []


_lock = threading.Lock()
_by_spelling: list[tuple[Vocabulary, dict[bytes, int]]] = []


def _tokens_by_spelling(vocabulary: Vocabulary) -> dict[bytes, int]:
    """Kept for the last few vocabularies."""
    with _lock:
        for of, known in _by_spelling:
            if of is vocabulary:
                return known
        known = {vocabulary.spelling(token): token for token in range(len(vocabulary))}
        known.pop(b"", None)
        _by_spelling.append((vocabulary, known))
        del _by_spelling[:-_CACHED_VOCABULARIES]
    return known
