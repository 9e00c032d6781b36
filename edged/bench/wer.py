"""Word error rate: normalises, aligns and counts.

The normalisation of English follows speech benchmarks: lower case, no punctuation except
apostrophes inside words, numbers and years as words, no fillers, and one spelling for some words.
"Mr. Hale, 1955" and "mister hale nineteen fifty five" become equal. Other languages: lower case, no
accents, no punctuation, and numbers as digits where the library text2num knows the language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edged.languages import WITHOUT_SPACES

# fmt: off
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]
TENS = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
]
# fmt: on

# Languages that text2num knows.
DIGIT_LANGUAGES = ("da", "de", "es", "fr", "it", "nl", "pt")
FILLERS = ("uh", "um", "uhm", "mm", "mhm", "hmm")
SAME_WORDS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "st": "saint",
    "etc": "etcetera",
    "ok": "okay",
    "o": "oh",
    "tv": "t v",
    "na": "n a",
    "gonna": "going to",
    "wanna": "want to",
    "kinda": "kind of",
    "y'know": "you know",
    "yknow": "you know",
    "ya": "you",
    "em": "them",
    "'em": "them",
    "alright": "all right",
    "nevermind": "never mind",
    "towards": "toward",
    "colour": "color",
    "favour": "favor",
    "honour": "honor",
    "grey": "gray",
    "counselled": "counseled",
}

_YEAR = re.compile(r"\b(1[1-9]|20)(\d\d)\b(?!\s*(?:percent|dollars))")
_CLOCK = re.compile(r"\b(\d{1,2})[.:](\d\d)(?= ?[ap]\.?m)")
_SYMBOLS = str.maketrans({"’": "'", "‘": "'", "—": " ", "-": " ", "%": " percent", "&": " and "})


def words(text: str, language: str = "en") -> list[str]:
    """Returns the normalised words of a text."""
    return _english_words(text) if language == "en" else _foreign_words(text, language)


def _foreign_words(text: str, language: str) -> list[str]:
    """Words of a language other than English; characters of one written without spaces."""
    folded = unicodedata.normalize("NFKD", text.lower().replace("ß", "ss"))
    plain = unicodedata.normalize("NFC", re.sub(r"(?<=[a-z])[\u0300-\u036f]+", "", folded))
    plain = re.sub(r"(?<=\d)[.,](?=\d{3}\b)", "", plain)
    plain = re.sub(r"[\W_]+", " ", plain).strip()
    if language in WITHOUT_SPACES:
        return list(plain.replace(" ", ""))
    if language in DIGIT_LANGUAGES:
        from text_to_num import alpha2digit

        plain = alpha2digit(plain, language, threshold=0)
    return plain.split()


def _english_words(text: str) -> list[str]:
    text = text.lower().translate(_SYMBOLS)
    text = re.sub(r"\$(\d+)", r"\1 dollars", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = _CLOCK.sub(lambda m: f"{number(int(m[1]))} {number(int(m[2]))}", text)
    text = _YEAR.sub(lambda m: _year(m[1], m[2]), text)
    text = re.sub(r"(\d+)\.(\d+)", lambda m: f"{number(int(m[1]))} point {_digits(m[2])}", text)
    text = re.sub(r"(\d+)(?:st|nd|rd|th)\b", r"\1", text)
    text = re.sub(r"\d+", lambda m: f" {_spoken(m[0])} ", text)
    plain = (_bare(token) for token in re.sub(r"[^a-z' ]", " ", text).split())
    united = (SAME_WORDS.get(word, word) for word in plain if word not in FILLERS)
    return " ".join(united).split()


def number(value: int) -> str:
    """Spells 0 to 999 999 in American English, and larger numbers digit by digit."""
    if value < 20:
        return ONES[value]
    if value < 100:
        return _with_rest(TENS[value // 10], value % 10)
    if value < 1000:
        return _with_rest(f"{ONES[value // 100]} hundred", value % 100)
    if value < 1_000_000:
        return _with_rest(f"{number(value // 1000)} thousand", value % 1000)
    return _digits(str(value))


def _with_rest(head: str, rest: int) -> str:
    return f"{head} {number(rest)}" if rest else head


def _year(century: str, year: str) -> str:
    if year == "00":
        rest = "hundred"
    elif year < "10":
        rest = f"oh {number(int(year))}"
    else:
        rest = number(int(year))
    return f"{number(int(century))} {rest}"


def _spoken(digits: str) -> str:
    """Spells digits; long numbers and those that begin with 0 are codes, read digit by digit."""
    if len(digits) > 4 or (len(digits) > 1 and digits.startswith("0")):
        return _digits(digits)
    return number(int(digits))


def _digits(digits: str) -> str:
    return " ".join(ONES[int(digit)] for digit in digits)


def _bare(token: str) -> str:
    return token if token == "'em" else token.strip("'")


@dataclass(frozen=True, slots=True)
class Errors:
    """Word errors of a hypothesis, or their sum over several."""

    wrong: int = 0
    reference_words: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.wrong + other.wrong, self.reference_words + other.reference_words)

    @property
    def rate(self) -> float | None:
        """Errors per reference word; None without reference words."""
        return self.wrong / self.reference_words if self.reference_words else None


def errors(reference: str, hypothesis: str, language: str = "en") -> Errors:
    """Counts substitutions, deletions and insertions between two texts."""
    return errors_of_each([reference], [hypothesis], [language])[0]


def errors_of_each(
    references: Sequence[str], hypotheses: Sequence[str], languages: Sequence[str] = ()
) -> list[Errors]:
    """Compares consecutive texts as one and returns the errors of each reference.

    languages: of each text; English if there are none.

    An inserted word counts for the reference before it.
    """
    languages = languages or ["en"] * len(references)
    parts = [words(text, code) for text, code in zip(references, languages, strict=True)]
    expected = [word for part in parts for word in part]
    recognised = [
        word
        for hypothesis, code in zip(hypotheses, languages, strict=True)
        for word in words(hypothesis, code)
    ]
    owners = [owner for owner, part in enumerate(parts) for _ in part]
    wrong, owner = [0] * len(parts), 0
    for a, b in align(expected, recognised):
        owner = owner if a is None else owners[a]
        wrong[owner] += a is None or b is None or expected[a] != recognised[b]
    return [Errors(n, len(part)) for n, part in zip(wrong, parts, strict=True)]


def align(
    expected: Sequence[str], recognised: Sequence[str]
) -> list[tuple[int | None, int | None]]:
    """Returns a cheapest alignment (Levenshtein): pairs of indices, None for a missing word."""
    costs = _costs(expected, recognised)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(expected), len(recognised)
    while i or j:
        cost = costs[i, j]
        if i and j and cost == costs[i - 1, j - 1] + (expected[i - 1] != recognised[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def _costs(expected: Sequence[str], recognised: Sequence[str]) -> NDArray[np.int32]:
    """Returns int32[len(expected) + 1, len(recognised) + 1]: edit distance between all prefixes."""
    codes = {word: code for code, word in enumerate({*expected, *recognised})}
    target = np.array([codes[word] for word in recognised], np.int32)
    columns = np.arange(len(recognised) + 1, dtype=np.int32)
    costs = np.empty((len(expected) + 1, len(recognised) + 1), np.int32)
    costs[0] = columns
    for i, word in enumerate(expected, 1):
        above = costs[i - 1]
        without_insertions = above + 1
        kept_or_replaced = above[:-1] + (target != codes[word])
        without_insertions[1:] = np.minimum(without_insertions[1:], kept_or_replaced)
        # An insertion costs 1 per column: take the cheapest path from any column to the left.
        costs[i] = np.minimum.accumulate(without_insertions - columns) + columns
    return costs
