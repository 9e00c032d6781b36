"""Token numbers to text: SentencePiece pieces as Moonshine stores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edged.errors import ModelError

BOS, EOS = 1, 2
_SPACE = "\u2581".encode()  # SentencePiece's mark of a word's beginning


class Vocabulary:
    """The pieces (bytes) of a `tokenizer.bin`: each is a length (1 or 2 bytes) and its bytes."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = tuple(pieces)
        self._starts = tuple(piece.startswith(_SPACE) for piece in pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Raises ModelError if the file is missing or cut off."""
        try:
            data = path.read_bytes()
        except OSError as problem:
            raise ModelError(
                f"{path} cannot be read ({problem.strerror}); run `edged models fetch`"
            ) from None
        try:
            return cls(list(_pieces(data)))
        except IndexError:
            raise ModelError(f"{path} is damaged; run `edged models fetch`") from None

    def spelled(self, token: int) -> str:
        """A piece with its spaces; of bytes that are no text by themselves nothing."""
        return self._pieces[token].decode("utf-8", "ignore").replace("\u2581", " ")

    def starts_word(self, token: int) -> bool:
        return self._starts[token]

    def text(self, tokens: Iterable[int]) -> str:
        """Text of tokens, without spaces at its ends. Broken UTF-8 becomes U+FFFD."""
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
