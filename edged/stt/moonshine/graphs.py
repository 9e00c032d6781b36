"""The built graphs, opened once and shared by all sessions: they hold no state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.errors import ModelError
from edged.ortsession import open_session
from edged.stt.family import Floats
from edged.stt.moonshine.build_version import EMBEDDING, GRAPHS
from edged.stt.moonshine.dimensions import TINY, Dimensions


class Embedding:
    """The decoder's token embeddings, read from the file row by row.

    The table has 9 MB, of which a stream uses a few dozen kB. Mapping the file would bring in the
    neighbours of each row.
    """

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


@dataclass(frozen=True, slots=True)
class Graphs:
    """What `edged.export.moonshine` builds; see there for inputs, outputs and shapes."""

    conv1: Any
    conv23: Any
    encoder: Any
    encoder_full: Any
    cross: Any
    decoder: Any
    embedding: Embedding
    dimensions: Dimensions = TINY

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Graphs:
        """Opens the graphs of `folder`. Raises ModelError, which names the file."""
        graphs = {
            # encoder_full takes a tenth less time over a whole segment when its nodes run in the
            # order of the file; the streaming encoder would take longer.
            name: open_session(folder / f"{name}.onnx", threads, in_order=name == "encoder_full")
            for name in GRAPHS
        }
        return cls(**graphs, embedding=Embedding(folder / EMBEDDING, TINY.width))


def split_layers(cross: list[Floats]) -> list[Floats]:
    """The outputs of the graph `cross`, float32[2 * heads, n, head_dim] a layer, as one array
    float32[heads, n, head_dim] for each of `Dimensions.kv_names`."""
    return [tensor for layer in cross for tensor in np.split(layer, 2)]


def feeds(names: tuple[str, ...], arrays: list[Floats]) -> dict[str, Floats]:
    """Keys and values of all layers under the graph's input names."""
    return dict(zip(names, arrays, strict=True))
