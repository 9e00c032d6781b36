"""Lists of key terms to measure with."""

from __future__ import annotations

from pathlib import Path

from edged.bench.manifest import Clip
from edged.bench.term_lists import file_runs, rare_runs, rare_words, term_errors
from edged.options import Options
from edged.stt.moonshine.vocabulary import PieceVocabulary

CLIPS = [
    Clip("a", Path("a"), "said mister thornton to margaret"),
    Clip("b", Path("b"), "Thornton isn't Paddington"),
    Clip("c", Path("c")),
]
PIECES = [*("abcdefghijklmnopqrstuvwxyz "), "▁mister", "▁margaret"]
VOCABULARY = PieceVocabulary([piece.encode() for piece in PIECES])


def test_rare_words_are_those_that_no_single_token_spells() -> None:
    assert rare_words(CLIPS, VOCABULARY) == ["thornton", "paddington"]


def test_nothing_of_an_absent_list_is_spoken() -> None:
    runs = {run.name: run for run in rare_runs(CLIPS, Options(), VOCABULARY)}
    assert runs["no terms"].options == Options()
    assert len(runs["100 terms"].options.keyterms) == 100
    assert runs["100 terms"].options.keyterms[:2] == ("Thornton", "Paddington")
    assert len(runs["200 absent"].options.keyterms) == 200
    assert not {"Thornton", "Paddington"} & set(runs["200 absent"].options.keyterms)


def test_errors_on_listed_words_are_counted_apart_and_a_word_too_many_is_another() -> None:
    texts = ["said Mr. Thornton to Margery", "Norton isn't Paddington Paddington", "noise"]
    (without, listed) = file_runs(["Thornton", "Margaret: margery"], Options())
    assert without.listed == listed.listed == {"thornton", "margaret"}
    assert term_errors(CLIPS, texts, listed.listed) == {
        "listed": {"wrong": 2, "words": 3},
        "others": {"wrong": 1, "words": 5},
    }
