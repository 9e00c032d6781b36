"""The built graphs, opened once and shared by all sessions: they hold no state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edged.ortsession import open_session
from edged.stt.embedding import Embedding
from edged.stt.family import Floats
from edged.stt.moonshine.build_version import EMBEDDING, GRAPHS
from edged.stt.moonshine.dimensions import TINY, Dimensions


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
