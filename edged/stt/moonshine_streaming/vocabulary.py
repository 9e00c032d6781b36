"""Tokens to text: SentencePiece pieces in upstream's `tokenizer.bin`, without marks."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from edged.errors import ModelError
from edged.languages import WITHOUT_SPACES
from edged.stt.moonshine.vocabulary import PieceVocabulary
from edged.stt.moonshine_streaming.specification import Sizes

_WORD_START = "\u2581".encode()
# Japanese letters that never begin a word: small ones, the mark of a long vowel, repetition.
_NO_BEGINNING = set("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶーゝゞヽヾ々〻")


class StreamingVocabulary(PieceVocabulary):
    """The pieces of a `tokenizer.bin` (see `edged.stt.family.Vocabulary`).

    Marks, such as `<s>` or `<<ST_12>>`, are no text.
    """

    def __init__(self, pieces: Sequence[bytes], eos: int, language: str) -> None:
        """language: decides what a word is."""
        marks = [_is_mark(piece) for piece in pieces]
        super().__init__(
            [b"" if mark else piece for piece, mark in zip(pieces, marks, strict=True)]
        )
        self.eos = eos
        self._spaced = language not in WITHOUT_SPACES

    @classmethod
    def load(  # type: ignore[override]
        cls, path: Path, sizes: Sizes, language: str
    ) -> StreamingVocabulary:
        """Reads `tokenizer.bin`. Raises ModelError, which names the file, if it does not go with
        the model."""
        pieces = cls.read(path)
        if len(pieces) != sizes.vocabulary:
            raise ModelError(
                f"{path} has {len(pieces)} pieces instead of the {sizes.vocabulary} of the model"
            )
        for name, token in (("beginning", sizes.bos), ("end", sizes.eos)):
            if not _is_mark(pieces[token]):
                shown = pieces[token][:20].decode("utf-8", "replace")
                raise ModelError(
                    f"{path} does not go with the model: piece {token}, the {name} of a text,"
                    f" is {shown!r} and no mark"
                )
        return cls(pieces, sizes.eos, language)

    def transcript_tokens(self) -> list[int]:
        """The tokens that a transcript may have, in order: those with text, and the end."""
        return [n for n in range(len(self)) if n == self.eos or self._pieces[n]]

    def word_starts(self, tokens: Sequence[int]) -> list[int]:
        """Indices of the tokens with which a word begins, in order; 0 is always one of them.

        In languages written without spaces each piece is a word group, unless it continues a
        character, begins with a letter or mark that cannot begin a word, or goes on with Latin
        letters or digits.
        """
        if self._spaced:
            return super().word_starts(tokens)
        starts, before = [], b""
        for i, token in enumerate(tokens):
            piece = self._pieces[token].replace(_WORD_START, b" ")
            if i == 0 or _begins_group(before, piece):
                starts.append(i)
            before += piece
        return starts


def _is_mark(piece: bytes) -> bool:
    return len(piece) > 2 and piece.startswith(b"<") and piece.endswith(b">")


def _begins_group(before: bytes, piece: bytes) -> bool:
    """Whether a word group may begin with `piece`, behind the bytes `before`."""
    if not piece or piece[0] & 0xC0 == 0x80:  # nothing, or the rest of a character
        return False
    try:
        text = before.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return False
        text = before.decode("utf-8", "replace")
    first = piece.decode("utf-8", "ignore")[:1]
    if not first:  # the first byte of a character
        return True
    if first in _NO_BEGINNING or unicodedata.category(first)[0] in "PM":
        return False
    last = text[-1:]
    return not (last.isascii() and first.isascii() and last.isalnum() and first.isalnum())
