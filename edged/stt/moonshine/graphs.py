"""The recogniser's graphs, opened once and shared by every session (they hold no state)."""

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
from edged.stt.moonshine.build_version import EMBEDDING, GRAPHS

LAYERS, HEADS, HEAD_DIM, WIDTH = 6, 8, 36, 288
FRAME = 384  # samples of 16 kHz in one encoder frame
FRAME_S = FRAME / 16_000

KV = tuple(f"{kind}_{layer}" for layer in range(LAYERS) for kind in ("k", "v"))
PAST = tuple(f"past_{name}" for name in KV)
CROSS = tuple(f"cross_{name}" for name in KV)

Floats = NDArray[np.float32]


class Embedding:
    """The decoder's table of tokens, read row by row: 9 MB of which a stream uses a few dozen kB,
    and mapping it would bring in the neighbours of each row."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError that names the file."""
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as problem:
            raise ModelError(
                f"{path} cannot be read ({problem.strerror}): `edged models fetch` mends it"
            ) from problem
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def __getitem__(self, tokens: Sequence[int]) -> NDArray[np.uint8]:
        """-> uint8[tokens, 288]. Safe in several threads. Raises ModelError."""
        number = self._file.fileno()
        rows = b"".join(os.pread(number, WIDTH, token * WIDTH) for token in tokens)
        if len(rows) != len(tokens) * WIDTH:
            raise ModelError(f"{self._file.name} is cut off: `edged models fetch` mends it")
        return np.frombuffer(rows, np.uint8).reshape(-1, WIDTH)


@dataclass(frozen=True, slots=True)
class Graphs:
    """What `edged.export.moonshine` builds; see there for shapes."""

    conv1: Any
    conv23: Any
    encoder: Any
    encoder_full: Any
    cross: Any
    decoder: Any
    embedding: Embedding

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Graphs:
        """Opens `folder`'s graphs. Raises ModelError that names the file."""
        graphs = {
            # In order it takes a tenth less time over a whole segment, for it maps half the memory,
            # and no more over what a patient stream reads again. The adapted one would take longer.
            name: open_session(folder / f"{name}.onnx", threads, in_order=name == "encoder_full")
            for name in GRAPHS
        }
        return cls(**graphs, embedding=Embedding(folder / EMBEDDING))


def each_tensor(cross: list[Floats]) -> list[Floats]:
    """What `cross` gives, [16, n, 36] a layer -> the tensors [8, n, 36] that KV names."""
    return [tensor for layer in cross for tensor in np.split(layer, 2)]


def feeds(names: tuple[str, ...], arrays: list[Floats]) -> dict[str, Floats]:
    """Keys and values of all layers under the graph's input names."""
    return dict(zip(names, arrays, strict=True))
