"""Restores words at the edges of a segment that the second pass left out. Pure functions.

With full context in view the model skips a short utterance beside a sentence ("three", 0.2 s before
or after it), which the first pass often had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from edged.events import Word
from edged.stt.words import normalised

PUNCTUATION = (".", ",", "?", "!", ";", ":")
MAX_EDGE_WORDS = 3  # more is no short utterance


def with_edge_words(committed: Sequence[Word], second_pass: Sequence[Word]) -> list[Word]:
    """Returns the words of the second pass and those committed in front of and behind them.

    Both arguments describe the same speech, in stream time. Committed words are restored only where
    punctuation separated them from the rest in the first pass, and where both passes agree on the
    word next to them; otherwise the second pass has corrected them.
    """
    if not second_pass:
        return list(committed)
    front, back = _in_front(committed, second_pass), _behind(committed, second_pass)
    return _in_order([*front, *second_pass, *back]) if front or back else list(second_pass)


def _in_order(words: Sequence[Word]) -> list[Word]:
    """The words with times in order, because the two passes may place a word differently: none
    starts before the word before it or stops after the next one starts."""
    starts = list(accumulate((word.start_s for word in words), max))
    return [
        Word(word.text, start, max(start, min(word.stop_s, following)))
        for word, start, following in zip(words, starts, [*starts[1:], math.inf], strict=True)
    ]


def _in_front(committed: Sequence[Word], second_pass: Sequence[Word]) -> list[Word]:
    """Committed words in front of the first word of the second pass."""
    first = normalised(second_pass[0].text)
    head = [normalised(word.text) for word in committed[: MAX_EDGE_WORDS + 1]]
    at = head.index(first) if first in head else 0
    separated = at > 0 and committed[at - 1].text.endswith(PUNCTUATION)
    return list(committed[:at]) if separated else []


def _behind(committed: Sequence[Word], second_pass: Sequence[Word]) -> list[Word]:
    """Committed words behind the last word of the second pass."""
    last = normalised(second_pass[-1].text)
    tail = committed[-MAX_EDGE_WORDS - 1 :]
    at = max((i for i, word in enumerate(tail) if normalised(word.text) == last), default=len(tail))
    if at + 1 >= len(tail) or not tail[at].text.endswith(PUNCTUATION):
        return []
    return list(tail[at + 1 :])
