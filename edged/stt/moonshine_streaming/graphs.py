"""The graphs of a model, opened once and shared by all sessions: they hold no state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.ortsession import open_session
from edged.stt.family import Floats
from edged.stt.moonshine_streaming.build_version import DECODER, ENCODER
from edged.stt.moonshine_streaming.specification import (
    CONFIG,
    FLOAT,
    INT,
    Shape,
    Sizes,
    Tensors,
    compare,
    decoder_inputs,
    encoder_tensors,
    read_config,
)
from edged.stt.moonshine_streaming.upstream import open_adapter, open_cross_kv, open_frontend


@dataclass(frozen=True, slots=True)
class Graphs:
    """Three of upstream's graphs, and two that `edged.export.moonshine_streaming` built.

    frontend_weights: further inputs of the frontend. cached_encoder: whether the encoder takes the
    keys and values of earlier frames; else it encodes windows. reads_trees: whether the decoder
    reads a tree of tokens in one run; else one branch.
    """

    sizes: Sizes
    frontend: Any
    frontend_weights: dict[str, Floats]
    encoder: Any
    adapter: Any
    cross_kv: Any
    decoder: Any
    cached_encoder: bool
    reads_trees: bool

    @classmethod
    def load(cls, upstream: Path, built: Path, threads: int = 1) -> Graphs:
        """Opens all of them. Raises ModelError, which names the file, if one is missing or not of
        the known form."""
        sizes = read_config(upstream / CONFIG)
        frontend, weights = open_frontend(upstream, sizes, threads)
        encoder = open_session(built / ENCODER, threads)
        cached = any(value.name == "past_k_0" for value in encoder.get_inputs())
        if not cached:
            compare(built / ENCODER, encoder, encoder_tensors(sizes))
        decoder = open_session(built / DECODER, threads)
        trees = any(value.name == "positions" for value in decoder.get_inputs())
        tensors = _tree_tensors(sizes, decoder) if trees else _branch_tensors(sizes)
        compare(built / DECODER, decoder, tensors)
        return cls(
            sizes,
            frontend,
            weights,
            encoder,
            open_adapter(upstream, sizes, threads),
            open_cross_kv(upstream, sizes, threads),
            decoder,
            cached,
            trees,
        )


def form(session: Any) -> str:
    """What a built graph is, as its metadata says: for messages."""
    return str(session.get_modelmeta().custom_metadata_map.get("edged.form", "unknown"))


_RESULTS: Tensors = {
    "tokens": (INT, (None, None)),
    "p": (FLOAT, (None, None)),
    "p_end": (FLOAT, (None,)),
    "heard": (INT, (None,)),
}
_MOST: Tensors = {"most": (INT, (1,))}


def _branch_tensors(sizes: Sizes) -> tuple[Tensors, Tensors]:
    stacks = dict.fromkeys(("out_k_self", "out_v_self"), sizes.cache())
    return {**decoder_inputs(sizes), **_MOST}, {**_RESULTS, **stacks}


def _tree_tensors(sizes: Sizes, session: Any) -> tuple[Tensors, Tensors]:
    """The caches of a layer may have whatever shape upstream's exporter has given them."""
    shapes: dict[str, Shape] = {
        v.name: tuple(n if isinstance(n, int) else None for n in v.shape)
        for v in session.get_inputs()
    }
    names = [f"{prefix}_{name}" for prefix in ("past", "cross") for name in sizes.kv_names]
    inputs: Tensors = {
        "token": (INT, (1, None)),
        "positions": (INT, (None,)),
        "mask": (FLOAT, (None, None)),
        **_MOST,
        **{name: (FLOAT, shapes.get(name, ())) for name in names},
    }
    kv = (FLOAT, (2 * sizes.depth * sizes.heads, None, sizes.head_dim))
    return inputs, {**_RESULTS, "kv": kv}
