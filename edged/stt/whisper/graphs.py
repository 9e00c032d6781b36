"""The built graphs and constants, opened once and shared by all sessions: they hold no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edged.errors import ModelError
from edged.ortsession import open_session
from edged.stt.embedding import Embedding
from edged.stt.family import Floats
from edged.stt.whisper.build_version import CROSS_PADDING, EMBEDDING, GRAPHS, PADDING
from edged.stt.whisper.dimensions import (
    PADDED_STATES,
    PADDING_STRIDE,
    WINDOW_FRAMES,
    Dimensions,
)

_SCALE_BYTES = 4  # of an embedding's row, behind its values
_HALF_BYTES = 2  # of a float16


@dataclass(frozen=True, slots=True)
class Padding:
    """What padded frames contribute (see `edged.export.whisper.padding_constants`)."""

    kv: Floats
    cross: Embedding

    @classmethod
    def load(cls, folder: Path) -> Padding:
        """Raises ModelError, which names the file."""
        path = folder / PADDING
        try:
            kv: Floats = np.load(path)
            arrays, heads, _, head_dim = kv.shape
        except (OSError, ValueError, EOFError) as error:
            raise ModelError(
                f"{path} cannot be read ({error})", "Run `edged models fetch` to repair it."
            ) from error
        return cls(kv, Embedding(folder / CROSS_PADDING, arrays * heads * head_dim * _HALF_BYTES))

    def keys_values(self, frames: int) -> tuple[list[Floats], float]:
        """Of each name of `Dimensions.kv_names`, behind so many frames of speech; and what to add
        to the attention to them, because each stands for many."""
        first = max(0, -(-(frames - PADDING_STRIDE // 2) // PADDING_STRIDE))
        some = [np.ascontiguousarray(each[:, first:]) for each in self.kv]
        count = some[0].shape[1]
        return some, float(np.log((WINDOW_FRAMES - frames) / count)) if count else 0.0

    def behind(self, frames: int) -> Floats:
        """What the decoder attends to behind so many frames: float32[heads of all layers' keys and
        values, n, head_dim]."""
        places = range(frames, min(frames + PADDED_STATES, WINDOW_FRAMES))
        arrays, heads, _, head_dim = self.kv.shape
        rows = self.cross[places].view("<f2").reshape(len(places), arrays * heads, head_dim)
        return rows.transpose(1, 0, 2).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Graphs:
    """What `edged.export.whisper` builds; see there for inputs, outputs and shapes."""

    features: Any
    encoder: Any
    cross: Any
    decoder: Any
    embedding: Embedding
    padding: Padding
    dimensions: Dimensions

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Graphs:
        """Opens the graphs of `folder`. Raises ModelError, which names the file."""
        graphs = {name: open_session(folder / f"{name}.onnx", threads) for name in GRAPHS}
        padding = Padding.load(folder)
        arrays, heads, _, head_dim = padding.kv.shape
        sizes = Dimensions(arrays // 2, heads, head_dim)
        embedding = Embedding(folder / EMBEDDING, sizes.width + _SCALE_BYTES)
        return cls(**graphs, embedding=embedding, padding=padding, dimensions=sizes)

    def embedded(self, tokens: Sequence[int]) -> Floats:
        """float32[tokens, width]"""
        rows = self.embedding[tokens]
        scale = np.ascontiguousarray(rows[:, -_SCALE_BYTES:]).view("<f4")
        values = rows[:, :-_SCALE_BYTES].view(np.int8).astype(np.float32)
        return values * scale.astype(np.float32)


def feeds(names: tuple[str, ...], arrays: Sequence[Floats]) -> dict[str, Floats]:
    """Keys and values of all layers under the graph's input names."""
    return dict(zip(names, arrays, strict=True))
