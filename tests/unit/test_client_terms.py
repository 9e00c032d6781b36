"""Key terms in requests of OpenAI's and Wyoming's clients."""

from __future__ import annotations

import time

import pytest

from edged.keyterm_list import MAX_TERMS
from edged.options import Options
from edged.server.client_terms import MAX_GIVEN, MAX_PROMPT, terms_of_prompt, with_terms


@pytest.mark.parametrize(
    ("prompt", "terms"),
    [
        ("Ecobee, Helstone,living room lamp", ["Ecobee", "Helstone", "living room lamp"]),
        ("Ecobee\nHelstone; Milton.", ["Ecobee", "Helstone", "Milton"]),
        (
            "The text is about OpenAI which makes DALL-E, GPT-4 and ChatGPT. It is in English.",
            ["OpenAI", "DALL-E", "GPT-4 and ChatGPT", "It is in English"],
        ),
        ("Please transcribe what Margaret Hale says to mr thornton", ["Margaret Hale"]),
        ("", []),
        (None, []),
        (["Ecobee"], []),
    ],
)  # fmt: skip
def test_a_prompt_is_a_list_of_terms_or_sentences_with_names(
    prompt: object, terms: list[str]
) -> None:
    assert terms_of_prompt(prompt) == terms


@pytest.mark.parametrize("letter", ["x", "é", "A", "A ", "xxxx ", ", ", "'", "."])
def test_no_prompt_takes_long_to_read(letter: str) -> None:
    """One long word held the interpreter's lock, and with it the microphone, for 4.5 s."""
    prompt = ("one two three four " + letter * MAX_PROMPT)[:MAX_PROMPT]
    terms_of_prompt(prompt)
    started = time.thread_time()
    terms_of_prompt(prompt)
    assert time.thread_time() - started < 0.2


def test_a_clients_terms_come_before_those_of_the_settings() -> None:
    base = Options(keyterms=("Helstone", "Milton"))
    assert with_terms(base, ["Ecobee", "milton"]).keyterms == ("Ecobee", "milton", "Helstone")
    assert with_terms(base, []) is base


def test_what_is_no_valid_term_is_left_out() -> None:
    terms = ["x" * 100, "Lamp\x00", 3, None, ["Lamp"], "", "Lamp, left", "Ecobee", "Ecobee: "]
    assert with_terms(Options(), terms).keyterms == ("Ecobee",)


def test_many_terms_are_bounded() -> None:
    terms = [f"name {n}" for n in range(10 * MAX_GIVEN)]
    assert len(with_terms(Options(), terms).keyterms) == MAX_TERMS
    assert len(with_terms(Options(), terms_of_prompt(", ".join(terms))).keyterms) == MAX_TERMS
