"""Upstream's vocabulary: pieces to text, and which of them a transcript may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.export.transcript_tokens import transcript_tokens
from edged.stt.moonshine.dimensions import EOS
from edged.stt.moonshine.vocabulary import PieceVocabulary

SPACE = "\u2581"


def _stored(*pieces: str) -> bytes:
    return b"".join(bytes([len(p.encode())]) + p.encode() for p in pieces)


def test_pieces_join_to_words(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    long = "x" * 300
    path.write_bytes(
        _stored("<s>", SPACE + "good", "ness", ".")
        + bytes([300 % 128 + 128, 300 // 128])
        + long.encode()
    )
    vocabulary = PieceVocabulary.load(path)
    assert vocabulary.text([1, 2, 3]) == "goodness."
    assert vocabulary.word_starts([3, 2, 1, 2, 1]) == [0, 2, 4]
    assert vocabulary.text([4]) == long


@pytest.mark.parametrize("content", [b"\x05ab", b"\x81"])
def test_a_vocabulary_that_is_truncated_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.bin is damaged.*edged models fetch"):
        PieceVocabulary.load(path)
    with pytest.raises(ModelError, match=r"none\.bin cannot be read"):
        PieceVocabulary.load(tmp_path / "none.bin")


def test_english_transcripts_have_latin_letters_digits_and_punctuation_only() -> None:
    names = ["<unk>", "<s>", "</s>", "\x07", "▁dog", "s", "▁café", "Mc", "▁1", ",", "▁?", "$"]
    others = ["▁был", "方", "▁->", "{", "<<ST_7>>", "▁const_"]
    pieces = [name.encode() for name in names + others] + [b"\xc3"]
    vocabulary = PieceVocabulary(pieces)
    assert transcript_tokens(vocabulary, "en") == [EOS, *range(4, len(names))]
    assert transcript_tokens(vocabulary, "uk") == list(range(len(pieces)))
