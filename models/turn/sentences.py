"""Finds where sentences end in a clip. A listener may take a turn for finished there only.

The texts of LibriSpeech and of some other sets have no punctuation. sentences.tsv adds it: set by
hand from the words alone, before any output of the turn model was seen. The text of a clip that
stops in mid-sentence ends with an ellipsis.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from edged.bench import wer

Span: TypeAlias = tuple[float, float]
TimedWord: TypeAlias = tuple[str, float, float]  # a word, its start and its stop in seconds

# Word times come from the recogniser, run on the whole clip, and are accurate to about this much.
AROUND_S = 0.25
BREAKS_OFF = "…"
_END = re.compile(r"(?<=[.?!])\s+")


def punctuated_texts() -> dict[str, str]:
    """Returns {clip id: text with punctuation} of sentences.tsv."""
    lines = Path(__file__).with_name("sentences.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def has_several(text: str) -> bool:
    """Whether the text has several sentences, judged by its punctuation."""
    return _END.search(text) is not None


def sentence_ends(text: str, heard: Sequence[TimedWord], gaps: Sequence[Span]) -> list[bool]:
    """Returns, for each gap between stretches of speech, whether a sentence ends in it.

    text: what is said, with punctuation.
    heard: the recognised words with their times.
    gaps: start and stop of each silence, seconds.
    A sentence that is joined to the next one without a gap is not marked.
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
