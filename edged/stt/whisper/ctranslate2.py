"""Reads weights from CTranslate2's `model.bin`, in which Whisper's weights are published.

The file is a version, the name and revision of a specification, then variables (name, shape, type,
bytes), then aliases of variables. Integers are little-endian, texts have a length of two bytes and
a zero at their end.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.errors import ModelError

_TYPES: dict[int, type[np.generic]] = {
    0: np.float32,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.float16,
}
_VERSION = 6  # of the format


def read_variables(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name, which are views of the mapped file. Raises ModelError if it is damaged."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _Reader(data).variables()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}). Run `edged models fetch` to repair it."
        ) from None
    except (ValueError, KeyError, struct.error) as error:
        raise ModelError(
            f"{path} is not a model.bin of CTranslate2, or is truncated ({error})."
        ) from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def variables(self) -> dict[str, NDArray[Any]]:
        version = self._number("<I")
        if version != _VERSION:
            raise ValueError(f"version {version} of the format instead of {_VERSION}")
        self._text()
        self._number("<I")
        found: dict[str, NDArray[Any]] = {}
        for _ in range(self._number("<I")):
            name = self._text()
            shape = [self._number("<I") for _ in range(self._number("<B"))]
            dtype = np.dtype(_TYPES[self._number("<B")])
            size = self._number("<I")
            start = self._skip(size)
            values = np.frombuffer(self._data, dtype, size // dtype.itemsize, start)
            found[name] = values.reshape(shape)
        for _ in range(self._number("<I")):
            alias = self._text()
            found[alias] = found[self._text()]
        return found

    def _number(self, form: str) -> int:
        start = self._skip(struct.calcsize(form))
        (value,) = struct.unpack_from(form, self._data, start)
        return int(value)

    def _text(self) -> str:
        size = self._number("<H")
        start = self._skip(size)
        return self._data[start : start + size].rstrip(b"\0").decode()

    def _skip(self, size: int) -> int:
        """Goes on by so many bytes; returns where they begin."""
        start = self._at
        if start + size > len(self._data):
            raise ValueError("it ends too early")
        self._at = start + size
        return start
