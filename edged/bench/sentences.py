"""Where sentences end in a clip: for a listener a turn may be over there, and only there.

The texts of LibriSpeech and of some others have no punctuation. sentences.tsv has it: set by
hand, from the words alone, before any evidence of the turn model was seen. A clip that breaks off
in its sentence has a text that ends with an ellipsis.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from edged.bench import wer

Span: TypeAlias = tuple[float, float]
TimedWord: TypeAlias = tuple[str, float, float]  # a word, its start and its stop in seconds

# Times of words are those of the recogniser, which hears the whole clip: off by this much.
AROUND_S = 0.25
BREAKS_OFF = "…"
_END = re.compile(r"(?<=[.?!])\s+")


def punctuated() -> dict[str, str]:
    """Text with punctuation, by the clip's id."""
    lines = Path(__file__).with_name("sentences.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def has_several(text: str) -> bool:
    """Sentences, as far as punctuation tells."""
    return _END.search(text) is not None


def sentence_ends(text: str, heard: Sequence[TimedWord], gaps: Sequence[Span]) -> list[bool]:
    """Of each of the gaps between stretches of speech: does a sentence end there?

    text: what is said, with punctuation. heard: the words as a recogniser has them.
    A sentence that is joined to the next one without a gap has no end here.
    """
    spoken = [(word, a, b) for text_, a, b in heard for word in wer.words(text_)]
    sentences = [wer.words(sentence) for sentence in _END.split(text)]
    said = [word for sentence in sentences for word in sentence]
    place = {a: b for a, b in wer.align(said, [w for w, _, _ in spoken]) if a is not None}
    at_end = [False] * len(gaps)
    last = -1
    for sentence in sentences[:-1]:
        last += len(sentence)
        before = next((place[i] for i in range(last, -1, -1) if place.get(i) is not None), None)
        after = next(
            (place[i] for i in range(last + 1, len(said)) if place.get(i) is not None), None
        )
        if before is None or after is None:
            continue
        start, stop = spoken[before][2] - AROUND_S, spoken[after][1] + AROUND_S
        there = [i for i, (a, b) in enumerate(gaps) if b > start and a < stop]
        if there:
            at_end[max(there, key=lambda i: gaps[i][1] - gaps[i][0])] = True
    return at_end
