"""Byte-level BPE: text, words in scripts with and without spaces, special tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.stt.whisper.vocabulary import BpeVocabulary
from tests.support.synthetic_whisper import LANGUAGES, SPECIAL, pieces

VOCABULARY = BpeVocabulary(pieces())
LETTERS = pieces()


def tokens_of(text: str, *longer: str) -> list[int]:
    """The tokens of a text: `longer` pieces where they match, else one token a byte."""
    merged = {VOCABULARY.spelling(LETTERS.index(piece)): LETTERS.index(piece) for piece in longer}
    single = {VOCABULARY.spelling(token): token for token in range(256)}
    data, found = text.encode(), []
    while data:
        piece = next((p for p in merged if data.startswith(p)), data[:1])
        found.append(merged.get(piece, single.get(piece, -1)))
        data = data[len(piece) :]
    return found


def words(text: str, *longer: str) -> list[str]:
    tokens = tokens_of(text, *longer)
    starts = VOCABULARY.word_starts(tokens)
    ends = [*starts[1:], len(tokens)]
    return [VOCABULARY.text(tokens[a:b]) for a, b in zip(starts, ends, strict=True)]


def test_every_byte_comes_back_as_text() -> None:
    for text in ("the Weißenburg", "garçon à l'été", "日本", "שלום", "🙂"):
        assert VOCABULARY.text(tokens_of(text)) == text


def test_a_word_begins_behind_a_space_whatever_its_tokens() -> None:
    assert words(" the unbelievable über", "Ġthe", "Ġun", "bel", "iev", "able") == [
        "the",
        "unbelievable",
        "über",
    ]


def test_a_closing_mark_behind_a_space_belongs_to_the_word_before_it() -> None:
    """French has a space before a question mark, which is no word of its own."""
    assert words(" mot ? mot", "Ġmot", "Ġ?") == ["mot ?", "mot"]


def test_an_apostrophe_does_not_divide_a_word() -> None:
    assert words(" l'été d'un mot") == ["l'été", "d'un", "mot"]


def test_scripts_without_spaces_are_divided_by_tokens_but_never_within_a_letter() -> None:
    """Of the three bytes of a letter each is a token; a mark belongs to the letter before it."""
    assert words("日本語。") == ["日", "本", "語。"]
    assert words("日本x語", "æĹ¥", "æľ¬") == ["日", "本", "x", "語"]


def test_a_letter_that_is_not_complete_is_no_error() -> None:
    tokens = tokens_of(" the 日", "Ġthe")[:-1]
    assert VOCABULARY.text(tokens).startswith("the")
    assert VOCABULARY.word_starts(tokens)[0] == 0


def test_special_tokens_and_languages_are_found_by_name() -> None:
    assert VOCABULARY.eos == LETTERS.index("<|endoftext|>")
    assert tuple(VOCABULARY.languages) == LANGUAGES
    assert VOCABULARY.special("<|de|>") == VOCABULARY.languages["de"]
    assert VOCABULARY.text([LETTERS.index(name) for name in SPECIAL]) == ""


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    with pytest.raises(ModelError, match=r"vocabulary\.txt cannot be read"):
        BpeVocabulary.load(path)
    path.write_text("a\nb\n")
    with pytest.raises(ModelError, match=r"vocabulary\.txt is damaged"):
        BpeVocabulary.load(path)
