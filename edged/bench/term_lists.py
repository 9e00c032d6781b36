"""Lists of key terms to measure with (`edged bench --keyterms`), and errors on the listed words.

A rare word is one of five letters or more that no single token of the model spells. Half of a list
are rare words of the recordings, the rest distractors: names that occur in none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edged.bench import wer
from edged.bench.manifest import Clip
from edged.keyterm_list import read_terms
from edged.options import Options
from edged.stt.family import Vocabulary
from edged.stt.keyterms import spellings_of

SAID_SIZES = (10, 100, 200)  # terms, half of them rare words of the recordings
ABSENT_SIZES = (100, 200)  # terms, none of which is said
MIN_RARE_LETTERS = 5
_DISTRACTORS = Path(__file__).with_name("distractors.txt")


@dataclass(frozen=True, slots=True)
class TermRun:
    """Options with a list of terms. listed: the words whose errors are reported apart."""

    name: str
    options: Options
    listed: frozenset[str]


def rare_runs(clips: Sequence[Clip], options: Options, vocabulary: Vocabulary) -> list[TermRun]:
    """A run without terms, one with each size of list, and those of which nothing is said.

    All of them report the errors on the same words: those of the list of 100.
    """
    said = {word for clip in clips for word in wer.words(clip.text or "")}
    rare = rare_words(clips, vocabulary)
    absent = [
        term
        for term in _DISTRACTORS.read_text(encoding="utf-8").splitlines()
        if said.isdisjoint(wer.words(term))
    ]
    runs = [TermRun("no terms", options, frozenset(_spread(rare, 50)))]
    for size in SAID_SIZES:
        words = _spread(rare, size // 2)
        terms = [*(word.capitalize() for word in words), *absent[: size - len(words)]]
        runs.append(_run(f"{size} terms", options, terms, words))
    for size in ABSENT_SIZES:
        runs.append(_run(f"{size} absent", options, absent[:size], runs[0].listed))
    return runs


def file_runs(lines: Sequence[str], options: Options) -> list[TermRun]:
    """A run without and one with the terms of a file."""
    words = [word for line in lines for word in wer.words(line.partition(":")[0])]
    without = TermRun("no terms", options, frozenset(words))
    return [without, _run(f"{len(lines)} terms", options, lines, words)]


def rare_words(clips: Sequence[Clip], vocabulary: Vocabulary) -> list[str]:
    """The rare words of the recordings' texts, in their order."""
    spellings = spellings_of(vocabulary)
    words = dict.fromkeys(word for clip in clips for word in wer.words(clip.text or ""))
    return [
        word
        for word in words
        if len(word) >= MIN_RARE_LETTERS
        and word.isalpha()
        and not spellings.has_token(b" " + word.encode())
    ]


def term_errors(
    clips: Sequence[Clip], texts: Sequence[str], listed: frozenset[str]
) -> dict[str, Any]:
    """Wrong words among the listed ones and among all others. A word too many is another one."""
    wrong = {True: 0, False: 0}
    words = {True: 0, False: 0}
    for clip, text in zip(clips, texts, strict=True):
        if clip.text is None:
            continue
        expected, heard = wer.words(clip.text), wer.words(text)
        for at, found in wer.align(expected, heard):
            is_listed = at is not None and expected[at] in listed
            words[is_listed] += at is not None
            wrong[is_listed] += at is None or found is None or expected[at] != heard[found]
    return {
        "listed": {"wrong": wrong[True], "words": words[True]},
        "others": {"wrong": wrong[False], "words": words[False]},
    }


def _run(name: str, options: Options, terms: Sequence[str], listed: Any) -> TermRun:
    lines = read_terms(terms).lines
    return TermRun(name, replace(options, keyterms=lines), frozenset(listed))


def _spread(words: Sequence[str], count: int) -> list[str]:
    return (
        [words[n * len(words) // count] for n in range(count)]
        if len(words) > count
        else list(words)
    )
