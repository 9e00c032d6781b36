"""The recogniser's graphs, opened once and shared by every session (they hold no state)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.stt.ortsession import open_session

LAYERS, HEADS, HEAD_DIM, WIDTH = 6, 8, 36, 288
FRAME = 384  # samples of 16 kHz in one encoder frame
FRAME_S = FRAME / 16_000

KV = tuple(f"{kind}_{layer}" for layer in range(LAYERS) for kind in ("k", "v"))
PAST = tuple(f"past_{name}" for name in KV)
CROSS = tuple(f"cross_{name}" for name in KV)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Graphs:
    """What `edged.models.moonshine` builds; see there for shapes."""

    conv1: Any
    conv23: Any
    encoder: Any
    encoder_full: Any
    cross: Any
    decoder: Any

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Graphs:
        """Opens `folder`'s graphs. Raises ModelError that names the file."""
        return cls(
            **{name: open_session(folder / f"{name}.onnx", threads) for name in cls.__slots__}
        )


def feeds(names: tuple[str, ...], arrays: list[Floats]) -> dict[str, Floats]:
    """Keys and values of all layers under the graph's input names."""
    return dict(zip(names, arrays, strict=True))
