"""Sizes of the models and the names that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

FRAME_SAMPLES = 320  # of 16 kHz in one encoder frame
WINDOW_FRAMES = 1500  # of the 30 s window that Whisper was trained on
# Every so many frames of the window the keys and values of one padded frame are kept, which stands
# for all of them.
PADDING_STRIDE = 12
PADDED_STATES = 128  # padded frames behind the speech that the decoder attends to


@dataclass(frozen=True)
class Dimensions:
    """layers: of the encoder, and of the decoder. width: of a frame and of a token."""

    layers: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @cached_property
    def kv_names(self) -> tuple[str, ...]:
        """Keys and values of each layer: k_0, v_0, k_1, ..."""
        return tuple(f"{kind}_{layer}" for layer in range(self.layers) for kind in ("k", "v"))

    @cached_property
    def past_names(self) -> tuple[str, ...]:
        """Graph inputs with the keys and values of what was read before."""
        return tuple(f"past_{name}" for name in self.kv_names)

    @cached_property
    def padding_names(self) -> tuple[str, ...]:
        """Encoder inputs with the keys and values of padded frames."""
        return tuple(f"padding_{name}" for name in self.kv_names)

    @cached_property
    def cross_names(self) -> tuple[str, ...]:
        """Decoder inputs with the keys and values of the encoder's output."""
        return tuple(f"cross_{name}" for name in self.kv_names)


# The cross-attention heads, (layer, head), that follow the audio, by the number of layers: as
# OpenAI publishes them for the multilingual models (`whisper/__init__.py`, MIT).
ALIGNMENT_HEADS = {
    4: ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)),
    6: ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)),
    12: (
        *((6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8)),
        *((9, 10), (10, 0), (10, 1), (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4)),
    ),
}
