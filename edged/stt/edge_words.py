"""What the second pass leaves out at the edges of a segment. Pure functions.

Beside a sentence, with full context in view, the model skips a short utterance ("three", 0.2 s
before or after): of six such that were lost, the first pass had said four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from edged.events import Word
from edged.stt.commit import spelling

SET_APART = (".", ",", "?", "!", ";", ":")
MOST_WORDS = 3  # more is no short utterance


def with_edge_words(said: Sequence[Word], heard: Sequence[Word]) -> list[Word]:
    """The words of the second pass, and those that were said in front of and behind them.

    said, heard: the same speech in the first and in the second pass, in stream time. Words are
    put back only where punctuation set them apart in the first pass, and where both passes agree
    on the word next to them: else they are what the second pass has corrected.
    """
    if not heard:
        return list(said)
    front, back = _in_front(said, heard), _behind(said, heard)
    return _in_order([*front, *heard, *back]) if front or back else list(heard)


def _in_order(words: Sequence[Word]) -> list[Word]:
    """The passes may place a word differently: none starts before the one before it, or stops
    behind the start of the next."""
    starts = list(accumulate((word.start_s for word in words), max))
    return [
        Word(word.text, start, max(start, min(word.stop_s, following)))
        for word, start, following in zip(words, starts, [*starts[1:], math.inf], strict=True)
    ]


def _in_front(said: Sequence[Word], heard: Sequence[Word]) -> list[Word]:
    """Said words in front of the one that both passes agree on, if it is the first heard."""
    first = spelling(heard[0].text)
    head = [spelling(word.text) for word in said[: MOST_WORDS + 1]]
    at = head.index(first) if first in head else 0
    apart = at > 0 and said[at - 1].text.endswith(SET_APART)
    return list(said[:at]) if apart else []


def _behind(said: Sequence[Word], heard: Sequence[Word]) -> list[Word]:
    last = spelling(heard[-1].text)
    tail = said[-MOST_WORDS - 1 :]
    at = max((i for i, word in enumerate(tail) if spelling(word.text) == last), default=len(tail))
    if at + 1 >= len(tail) or not tail[at].text.endswith(SET_APART):
        return []
    return list(tail[at + 1 :])
