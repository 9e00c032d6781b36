"""The decoder's token embeddings, read from the file row by row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged.errors import ModelError


class Embedding:
    """A table of which a stream uses a few dozen kB of many MB. Mapping the file would bring in the
    neighbours of each row."""

    def __init__(self, path: Path, width: int) -> None:
        """width: bytes of a row. Raises ModelError, which names the file."""
        self._width = width
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read ({error.strerror})",
                "Run `edged models fetch` to repair it.",
            ) from error
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def __getitem__(self, tokens: Sequence[int]) -> NDArray[np.uint8]:
        """Returns uint8[tokens, width]. Safe in several threads. Raises ModelError if the file is
        too short."""
        number, width = self._file.fileno(), self._width
        rows = b"".join(os.pread(number, width, token * width) for token in tokens)
        if len(rows) != len(tokens) * width:
            raise ModelError(
                f"{self._file.name} is truncated", "Run `edged models fetch` to repair it."
            )
        return np.frombuffer(rows, np.uint8).reshape(-1, width)
