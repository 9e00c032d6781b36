"""Tokens to text: SentencePiece pieces in upstream's `tokenizer.bin`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edged.errors import ModelError
from edged.stt.moonshine.dimensions import EOS

_WORD_START = "\u2581".encode()  # SentencePiece's mark of a word's beginning


class PieceVocabulary:
    """The pieces of a `tokenizer.bin` (see `edged.stt.family.Vocabulary`)."""

    eos = EOS

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = tuple(pieces)
        self._starts = tuple(piece.startswith(_WORD_START) for piece in pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    @classmethod
    def load(cls, path: Path) -> PieceVocabulary:
        """Reads a `tokenizer.bin`. Raises ModelError if it is missing or truncated."""
        return cls(cls.read(path))

    @staticmethod
    def read(path: Path) -> list[bytes]:
        """The pieces of a `tokenizer.bin`: of each its length (1 or 2 bytes), then its bytes.

        Raises ModelError if the file is missing or truncated.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read ({error.strerror}). Run `edged models fetch` to repair it."
            ) from None
        try:
            return list(_pieces(data))
        except IndexError:
            raise ModelError(f"{path} is damaged. Run `edged models fetch` to repair it.") from None

    def piece(self, token: int) -> str:
        """One piece with its spaces. Bytes that are not text by themselves are left out."""
        return self._pieces[token].decode("utf-8", "ignore").replace("\u2581", " ")

    def spelling(self, token: int) -> bytes:
        """The bytes of one piece, with a space in front where it begins a word."""
        return self._pieces[token].replace(_WORD_START, b" ")

    def word_starts(self, tokens: Sequence[int]) -> list[int]:
        """Indices of the tokens with which a word begins, in order; 0 is always one of them."""
        return [i for i, token in enumerate(tokens) if i == 0 or self._starts[token]]

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without spaces at its ends. Invalid UTF-8 becomes U+FFFD."""
        joined = b"".join(self._pieces[token] for token in tokens)
        return joined.decode("utf-8", "replace").replace("\u2581", " ").strip()


def _pieces(data: bytes) -> Iterable[bytes]:
    i = 0
    while i < len(data):
        size = data[i]
        i += 1
        if size >= 128:  # two bytes: low part first, then times 128
            size = data[i] * 128 + size - 128
            i += 1
        if i + size > len(data):
            raise IndexError
        yield data[i : i + size]
        i += size
