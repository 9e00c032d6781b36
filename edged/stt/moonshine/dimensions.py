"""Sizes of the model and the names that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

FRAME_SAMPLES = 384  # of 16 kHz in one encoder frame
BOS, EOS = 1, 2


@dataclass(frozen=True)
class Dimensions:
    """layers: of the encoder, and of the decoder. rotary: how many dimensions of a head are
    rotated. max_positions: frames or tokens of the longest segment."""

    layers: int
    heads: int
    head_dim: int
    width: int
    feed_forward: int
    rotary: int
    max_positions: int

    @cached_property
    def kv_names(self) -> tuple[str, ...]:
        """Keys and values of each layer: k_0, v_0, k_1, ..."""
        return tuple(f"{kind}_{layer}" for layer in range(self.layers) for kind in ("k", "v"))

    @cached_property
    def past_names(self) -> tuple[str, ...]:
        """Graph inputs with the keys and values of what was read before."""
        return tuple(f"past_{name}" for name in self.kv_names)

    @cached_property
    def cross_names(self) -> tuple[str, ...]:
        """Graph inputs with the keys and values of the encoder's output."""
        return tuple(f"cross_{name}" for name in self.kv_names)


TINY = Dimensions(
    layers=6,
    heads=8,
    head_dim=36,
    width=288,
    feed_forward=1152,
    rotary=32,
    max_positions=2048,
)
