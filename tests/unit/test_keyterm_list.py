"""Lists of key terms: what a line may be, and what is said about one that cannot be used."""

from __future__ import annotations

import pytest

from edged.errors import RequestError
from edged.keyterm_list import (
    MAX_CHARACTERS,
    MAX_TERMS,
    Keyterm,
    join_terms,
    parse_term,
    read_terms,
    split_terms,
)
from edged.options import Options, from_json_config


def test_a_line_is_a_term_or_a_term_and_how_it_sounds() -> None:
    assert parse_term(" Home   Assistant ") == Keyterm("Home Assistant")
    assert parse_term("Ecobee: echo bee") == Keyterm("Ecobee", ("echo bee",))
    assert parse_term("Ecobee:echo  bee") == Keyterm("Ecobee", ("echo bee",))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("x" * (MAX_CHARACTERS + 1), "more than 60 characters"),
        ("Ecobee: " + "x" * (MAX_CHARACTERS + 1), "more than 60 characters"),
        ("a", "fewer than 2 letters"),
        ("--", "fewer than 2 letters"),
        ("Ecobee:", "must follow the colon"),
        (": echo", "fewer than 2 letters"),
        ("Lamp, left", "contains a comma"),
        ("Lamp\x00", "no text"),
        ("Lamp\ud800", "no text"),
    ],
)
def test_a_bad_line_is_named_with_one_sentence_and_the_others_are_read(line: str, why: str) -> None:
    found = read_terms(["Thornton", "# people", "", line, "Helstone"])
    assert found.lines == ("Thornton", "Helstone")
    (problem,) = found.problems
    assert problem.startswith("term 4: ")
    assert why in problem
    assert len(problem) < 200


def test_a_term_counts_once_whatever_its_capitals() -> None:
    assert read_terms(["Will", "will", "WILL", "Will: bill"]).lines == ("Will", "Will: bill")


def test_what_exceeds_the_limit_is_left_out_and_said() -> None:
    found = read_terms([f"term {n}" for n in range(MAX_TERMS + 7)])
    assert len(found.lines) == MAX_TERMS
    assert found.problems == ("at most 200 terms can be used, 7 more are left out",)


def test_a_text_with_commas_holds_the_same_terms() -> None:
    lines = read_terms(["Home Assistant", "Ecobee: echo bee"]).lines
    assert read_terms(split_terms(join_terms(lines))).lines == lines
    assert split_terms(" , ,") == []


def test_a_session_may_bring_its_own_terms() -> None:
    asked = {"keyterms": ["Thornton", "Ecobee: echo bee"], "keyterm_boost": 3}
    options = from_json_config(asked)
    assert options.keyterms == ("Thornton", "Ecobee: echo bee")
    assert options.keyterm_boost == 3.0
    assert from_json_config({"keyterms": "Thornton, Helstone"}).keyterms == ("Thornton", "Helstone")
    base = Options(keyterms=("Thornton",))
    assert from_json_config({"keyterms": []}, base).keyterms == ()
    assert from_json_config({"keyterms": None}, base) == base
    assert Options().keyterms == ()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"keyterms": [1]}, "keyterms must be a list of strings"),
        ({"keyterms": {"a": "b"}}, "keyterms must be a list of strings"),
        ({"keyterms": ["Thornton", "x"]}, "keyterms: term 2: 'x' has fewer than 2"),
        ({"keyterms": [f"term {n}" for n in range(201)]}, "at most 200 terms"),
        ({"keyterm_boost": 7}, "keyterm_boost must be from 0 to 6"),
        ({"keyterm_boost": True}, "keyterm_boost must be a number"),
    ],
)
def test_a_bad_list_of_a_session_is_refused(asked: dict[str, object], why: str) -> None:
    with pytest.raises(RequestError, match=why.replace("[", r"\[")):
        from_json_config(asked)
