"""Tokens to text: byte-level BPE in upstream's `vocabulary.txt`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from edged.errors import ModelError

END_OF_TEXT, START, TRANSCRIBE = "<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>"
NO_TIMES = "<|notimestamps|>"
# Marks that belong to the word before them although a space may come first, as in French.
CLOSING = frozenset("?!:;»%.,…")
# First and last letters of the scripts that are written without spaces between words: Thai, Lao and
# Tibetan; Burmese; Khmer; Japanese; Chinese.
UNSPACED = (
    ("\u0e00", "\u0fff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3041", "\u30ff"),
    ("\u3400", "\u9fff"),
    ("\U00020000", "\U0003ffff"),
)


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in the file, as GPT-2's tokeniser has it: printable
    bytes stand for themselves, the others for letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + n): byte for n, byte in enumerate(others)
    }


class BpeVocabulary:
    """The tokens of a `vocabulary.txt` (see `edged.stt.family.Vocabulary`)."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """pieces: as in the file, special tokens behind all others."""
        self._special = {
            piece: token for token, piece in enumerate(pieces) if piece.startswith("<|")
        }
        self.eos = self._special[END_OF_TEXT]
        letters = _byte_letters()
        self._pieces = tuple(
            bytes(letters[letter] for letter in piece) for piece in pieces[: self.eos]
        )
        self.blank = self._pieces.index(b" ")
        self._count = len(pieces)

    def __len__(self) -> int:
        return self._count

    @classmethod
    def load(cls, path: Path) -> BpeVocabulary:
        """Reads a file with one token a line. Raises ModelError if it is missing or damaged."""
        try:
            return cls(path.read_text(encoding="utf-8").splitlines())
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read ({error.strerror}). Run `edged models fetch` to repair it."
            ) from None
        except (KeyError, ValueError):
            raise ModelError(f"{path} is damaged. Run `edged models fetch` to repair it.") from None

    def special(self, name: str) -> int:
        """The token of a name such as <|de|>. Raises KeyError."""
        return self._special[name]

    @cached_property
    def languages(self) -> dict[str, int]:
        """Token by language code, in the file's order."""
        first, behind = self._special[START] + 1, self._special["<|translate|>"]
        return {name[2:-2]: n for name, n in self._special.items() if first <= n < behind}

    def spelling(self, token: int) -> bytes:
        """UTF-8 of one token, with a space in front where it begins a word."""
        return self._pieces[token] if token < len(self._pieces) else b""

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without spaces at its ends. Invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.spelling, tokens)).decode("utf-8", "replace").strip()

    def word_starts(self, tokens: Sequence[int]) -> list[int]:
        """Indices of the tokens with which a word begins, in order; 0 is always one of them.

        A word begins behind a space. In a script without spaces it begins with every token that
        begins a letter, and where such a script begins or ends.
        """
        data = b"".join(map(self.spelling, tokens))
        starts, at, before = [], 0, ""
        for i, token in enumerate(tokens):
            piece = self.spelling(token)
            if i == 0 or (piece and _begins_word(data, at, before)):
                starts.append(i)
            at += len(piece)
            before = _last_letter(data[:at]) or before
        return starts


def _begins_word(data: bytes, at: int, before: str) -> bool:
    """Whether a word begins at this byte. before: the last letter in front of it."""
    if data[at] & 0xC0 == 0x80:  # within a letter
        return False
    if data[at : at + 1] == b" ":
        rest = data[at + 1 : at + 4].decode("utf-8", "ignore")[:1]
        return rest not in CLOSING
    letter = data[at : at + 4].decode("utf-8", "ignore")[:1]
    if unicodedata.category(letter or " ")[0] not in "LN":  # a mark belongs to what it stands on
        return False
    return _is_unspaced(letter) or _is_unspaced(before)


def _last_letter(data: bytes) -> str:
    return data[-4:].decode("utf-8", "ignore")[-1:]


def _is_unspaced(letter: str) -> bool:
    return any(first <= letter <= last for first, last in UNSPACED)
