"""Writes numbers that were spoken as words in digits: "twenty-three" becomes "23".

The library text2num finds the numbers. It leaves "one of us", "no one" and other small numbers that
stand alone as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edged.events import Word

if TYPE_CHECKING:
    from text_to_num import Occurence

LANGUAGES = ("da", "de", "en", "es", "fr", "it", "nl", "pt")  # those of text2num
MAX_PAUSE_S = 0.5  # words that lie further apart do not belong to one number
_PARTS = re.compile(r"([^\w]*)(.*?)([^\w]*)", re.DOTALL)  # before, the word itself, behind


@dataclass(frozen=True, slots=True)
class _Token:
    """A word, or the punctuation before or behind one, as text2num reads it."""

    content: str
    word: int  # index of the word that it belongs to
    start_s: float
    stop_s: float

    def text(self) -> str:
        return self.content

    def nt_separated(self, previous: _Token) -> bool:
        return self.start_s - previous.stop_s > MAX_PAUSE_S

    def not_a_number_part(self) -> bool:
        return False


def with_digits(words: Sequence[Word], language: str) -> list[Word]:
    """Returns the words with spoken numbers written as digits.

    The words of one number become one word, from the start of the first to the end of the last.
    Words in a language that is not in `LANGUAGES` are returned as they are.
    """
    if language not in LANGUAGES:
        return list(words)
    from text_to_num import find_numbers  # only where numbers are asked for

    parts = [_split(word.text) for word in words]
    tokens = [
        _Token(part, n, words[n].start_s, words[n].stop_s)
        for n, word_parts in enumerate(parts)
        for part in word_parts
        if part
    ]
    written: list[Word] = []
    done = 0  # words that were taken over
    for number in find_numbers(tokens, language):
        first, last = tokens[number.start].word, tokens[number.end - 1].word
        written += words[done:first]
        written.append(_join(words[first], words[last], parts[first][0], number, parts[last][2]))
        done = last + 1
    return [*written, *words[done:]]


def _split(text: str) -> tuple[str, str, str]:
    match = _PARTS.fullmatch(text)
    assert match is not None  # the expression matches any text
    before, word, behind = match.groups()
    return before, word, behind


def _join(first: Word, last: Word, before: str, number: Occurence, behind: str) -> Word:
    return Word(f"{before}{number.text}{behind}", first.start_s, last.stop_s)
