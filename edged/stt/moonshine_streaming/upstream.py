"""Upstream's files: which there are, and whether they have the form that edged can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from edged.errors import ModelError
from edged.ortsession import open_session
from edged.stt.family import Floats
from edged.stt.moonshine_streaming.specification import (
    ADAPTER,
    CROSS_KV,
    FRAME_SAMPLES,
    FRONTEND,
    FRONTEND_MODEL,
    FRONTEND_WEIGHTS,
    MAX_POSITIONS,
    PIECE_SAMPLES,
    UPSTREAM_DECODER,
    UPSTREAM_ENCODER,
    Sizes,
    adapter_tensors,
    compare,
    compare_weights,
    cross_kv_tensors,
    decoder_tensors,
    encoder_tensors,
    frontend_tensors,
    wrong,
)

_TRIED_PIECES = 20  # of 640 samples
_Shapes: TypeAlias = dict[str, tuple[int, ...]]


def open_frontend(folder: Path, sizes: Sizes, threads: int) -> tuple[Any, dict[str, Floats]]:
    """(graph, weights that it must be given) of a model folder.

    Revisions since 2026-08-21 have the graph and its weights in two files; earlier ones have one.
    Raises ModelError, which names the file.
    """
    tensors = frontend_tensors(sizes)
    if not (folder / FRONTEND_MODEL).exists() and (folder / FRONTEND).exists():
        session = open_session(folder / FRONTEND, threads)
        compare(folder / FRONTEND, session, tensors)
        return session, {}
    session = open_session(folder / FRONTEND_MODEL, threads)
    compare(folder / FRONTEND_MODEL, session, tensors, with_weights=True)
    giver = open_session(folder / FRONTEND_WEIGHTS, threads)
    names = [v.name for v in session.get_inputs() if v.name not in tensors[0]]
    compare_weights(folder / FRONTEND_WEIGHTS, folder / FRONTEND_MODEL, session, giver, names)
    return session, dict(zip(names, giver.run(names, {}), strict=True)) if names else {}


def open_adapter(folder: Path, sizes: Sizes, threads: int) -> Any:
    """Opens and compares. Raises ModelError, which names the file."""
    return _opened(folder / ADAPTER, adapter_tensors(sizes), threads)


def open_cross_kv(folder: Path, sizes: Sizes, threads: int) -> Any:
    """Opens and compares. Raises ModelError, which names the file."""
    return _opened(folder / CROSS_KV, cross_kv_tensors(sizes), threads)


def open_encoder(folder: Path, sizes: Sizes, threads: int) -> Any:
    """Opens and compares upstream's own. Raises ModelError, which names the file."""
    return _opened(folder / UPSTREAM_ENCODER, encoder_tensors(sizes), threads)


def open_decoder(folder: Path, sizes: Sizes, threads: int) -> Any:
    """Opens and compares upstream's own. Raises ModelError, which names the file."""
    return _opened(folder / UPSTREAM_DECODER, decoder_tensors(sizes), threads)


def check_upstream(folder: Path, sizes: Sizes) -> None:
    """Opens, compares and runs all five graphs, because declared shapes need not be what a graph
    computes. Raises ModelError, which names the file."""
    frontend, weights = open_frontend(folder, sizes, 1)
    path = folder / (FRONTEND_MODEL if weights else FRONTEND)
    frames = PIECE_SAMPLES // FRAME_SAMPLES * _TRIED_PIECES
    audio = np.random.default_rng(1).standard_normal((1, _TRIED_PIECES * PIECE_SAMPLES))
    states = sizes.first_states()
    given = {"audio_chunk": 0.1 * audio.astype(np.float32), **states, **weights}
    wanted: _Shapes = {"features": (1, frames, sizes.encoder_dim)}
    wanted |= {f"{name}_out": array.shape for name, array in states.items()}
    features = _run(path, frontend, given, wanted)[0]

    encoder = open_encoder(folder, sizes, 1)
    wanted = {"encoded": (1, frames, sizes.encoder_dim)}
    (encoded,) = _run(folder / UPSTREAM_ENCODER, encoder, {"features": features}, wanted)

    adapter = open_adapter(folder, sizes, 1)
    given = {"encoded": encoded, "pos_offset": np.array([MAX_POSITIONS - frames])}
    (memory,) = _run(folder / ADAPTER, adapter, given, {"memory": (1, frames, sizes.decoder_dim)})

    cross = open_cross_kv(folder, sizes, 1)
    shape = (sizes.depth, 1, sizes.heads, frames, sizes.head_dim)
    wanted = {"k_cross": shape, "v_cross": shape}
    k, v = _run(folder / CROSS_KV, cross, {"memory": memory}, wanted)

    decoder = open_decoder(folder, sizes, 1)
    tokens = np.array([[sizes.bos, sizes.eos, 0]])
    empty = np.zeros((sizes.depth, 1, sizes.heads, 0, sizes.head_dim), np.float32)
    given = {"token": tokens, "k_self": empty, "v_self": empty, "out_k_cross": k, "out_v_cross": v}
    shape = (sizes.depth, 1, sizes.heads, tokens.size, sizes.head_dim)
    wanted = {
        "logits": (1, tokens.size, sizes.vocabulary),
        "out_k_self": shape,
        "out_v_self": shape,
    }
    _run(folder / UPSTREAM_DECODER, decoder, given, wanted)


def _run(path: Path, session: Any, feed: dict[str, Any], wanted: _Shapes) -> list[Floats]:
    """Runs a graph. Raises ModelError if it fails or gives other shapes than the `wanted` ones, or
    values that are no numbers."""
    try:
        results = session.run(list(wanted), feed)
    except Exception as error:  # ONNX Runtime has a class of its own for each fault
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        raise ModelError(f"{path} cannot be run by ONNX Runtime ({reason})") from error
    for (name, shape), result in zip(wanted.items(), results, strict=True):
        if result.shape != shape:
            raise wrong(path, f"output {name!r} has the shape {result.shape} instead of {shape}")
        if not np.isfinite(result).all():
            raise wrong(path, f"output {name!r} is not finite")
    return list(results)


def _opened(path: Path, tensors: Any, threads: int) -> Any:
    session = open_session(path, threads)
    compare(path, session, tensors)
    return session
