"""Lists of key terms: names, places and products that the recogniser should expect.

A term is one line: `Home Assistant`, or with a spelling of how it sounds, `Ecobee: echo bee`. Where
the recogniser finds exactly that spelling, the term is written in its place.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TERMS = 200
MAX_CHARACTERS = 60  # of a term, and of its "sounds like" spelling
MIN_CHARACTERS = 2
SEPARATOR = ":"  # between a term and how it sounds


@dataclass(frozen=True, slots=True)
class Keyterm:
    """A term as it should be written, and spellings that are replaced by it."""

    term: str
    sounds_like: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeytermList:
    """The valid lines of a list, each once, and one sentence for each line that is not valid."""

    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def parse_term(line: str) -> Keyterm:
    """Parses one line.

    Raises ValueError with a sentence that names the term and what is allowed.
    """
    written, colon, sound = (_tidy(part) for part in line.partition(SEPARATOR))
    if colon and not sound:
        raise ValueError(f"{_short(line)}: a spelling must follow the colon")
    _check(written)
    if not sound:
        return Keyterm(written)
    _check(sound)
    return Keyterm(written, (sound,))


def read_terms(lines: Iterable[str]) -> KeytermList:
    """Reads a list with one term a line. Blank lines and lines that begin with # are left out.

    What exceeds MAX_TERMS is a problem, too.
    """
    valid: dict[str, str] = {}  # line by its spelling without capitals
    problems: list[str] = []
    surplus = 0
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            parsed = parse_term(line)
        except ValueError as problem:
            problems.append(f"term {number}: {problem}")
            continue
        tidy = as_line(parsed)
        if tidy.casefold() not in valid and len(valid) == MAX_TERMS:
            surplus += 1
        else:
            valid.setdefault(tidy.casefold(), tidy)
    if surplus:
        problems.append(f"at most {MAX_TERMS} terms can be used, {surplus} more are left out")
    return KeytermList(tuple(valid.values()), tuple(problems))


def as_line(term: Keyterm) -> str:
    """The line that `parse_term` reads as `term`."""
    return f"{SEPARATOR} ".join((term.term, *term.sounds_like))


def split_terms(text: str) -> list[str]:
    """The terms of a text in which commas separate them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def join_terms(lines: Iterable[str]) -> str:
    """The text that `split_terms` takes apart."""
    return ", ".join(lines)


def _tidy(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _check(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{_short(text)} has more than {MAX_CHARACTERS} characters")
    if "," in text:
        raise ValueError(f"{_short(text)} contains a comma, which separates terms")
    if any(unicodedata.category(c)[0] == "C" for c in text):
        raise ValueError(f"{_short(text)} contains a character that is no text")
    if sum(c.isalnum() for c in text) < MIN_CHARACTERS:
        raise ValueError(f"{_short(text)} has fewer than {MIN_CHARACTERS} letters or digits")


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}...'"
