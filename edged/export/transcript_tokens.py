"""The tokens of a vocabulary that a transcript may have."""

from __future__ import annotations

import unicodedata

from edged.stt.moonshine.dimensions import EOS
from edged.stt.moonshine.vocabulary import PieceVocabulary

_MARKS = set(" 0123456789'\"’‘“”.,?!-–—…%&/:;()$£€°+")


def transcript_tokens(vocabulary: PieceVocabulary, language: str) -> list[int]:
    """Tokens that a transcript in `language` may have, in order.

    Upstream's vocabulary is one of text and program code in many scripts; a fifth of it cannot be
    part of an English text.
    """
    if language != "en":
        return list(range(len(vocabulary)))
    return [n for n in range(len(vocabulary)) if n == EOS or _is_latin(vocabulary.piece(n))]


def _is_latin(text: str) -> bool:
    return bool(text) and all(
        letter in _MARKS or unicodedata.name(letter, "").startswith("LATIN") for letter in text
    )
