"""Key terms that a client of the API server gives with its request, in OpenAI's and Wyoming's form.

They are hints: what is no valid term is left out, and never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from edged.keyterm_list import read_terms
from edged.options import Options

MAX_PROMPT = 8000  # characters of a prompt that are read
MAX_GIVEN = 500  # terms of a client that are read; `keyterm_list.MAX_TERMS` of them are used
MAX_TERM_WORDS = 4  # more words between two commas are a sentence

_PART = re.compile(r"[,;\n]+|[.!?]+(?:\s|$)")
# A name begins where a word does: inside of words the search takes the square of their length.
_NAME = re.compile(
    r"(?<!\w)(?:(?:[A-Z0-9][\w'&.-]*)(?:\s+[A-Z0-9][\w'&.-]*)*|\w+[A-Z0-9][\w'&.-]*)"
)


def with_terms(options: Options, terms: Iterable[object]) -> Options:
    """These options with a client's terms before those that they have."""
    given = [term for term in islice(terms, MAX_GIVEN) if isinstance(term, str)]
    if not given:
        return options
    return replace(options, keyterms=read_terms([*given, *options.keyterms]).lines)


def terms_of_prompt(prompt: object) -> list[str]:
    """The terms of a prompt, which OpenAI's clients give as a list or as sentences.

    What stands between two commas, semicolons, ends of lines or sentences is a term if it has at
    most MAX_TERM_WORDS words. Of longer parts the names are taken: runs of words with a capital
    letter or a digit, but not the first word of the part, which has its capital anyway.
    """
    if not isinstance(prompt, str):
        return []
    return [term for part in _PART.split(prompt[:MAX_PROMPT]) for term in _terms_of_part(part)]


def _terms_of_part(part: str) -> Iterator[str]:
    words = part.strip().strip("\"'()[]").split()
    if len(words) <= MAX_TERM_WORDS:
        if words:
            yield " ".join(words)
        return
    for name in _NAME.findall(" ".join(words[1:])):
        yield name.strip(".")
