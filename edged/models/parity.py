"""Runs upstream's own graphs and the built ones over a whole clip, for `edged models verify`.

Both sides are written out here by themselves, apart from the recogniser, so that a mistake in the
recogniser cannot hide one in the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edged.ortsession import open_session
from edged.stt.moonshine.build_version import EMBEDDING
from edged.stt.moonshine.graphs import HEAD_DIM, HEADS, LAYERS, WIDTH
from edged.stt.moonshine.vocabulary import BOS, EOS

Floats = NDArray[np.float32]
_TOKENS_PER_S = 6.5  # upstream's own limit against endless loops, for English
_LIKELIEST = 1000  # tokens among which upstream's is looked for
_KINDS = ("k", "v")


@dataclass(frozen=True)
class Heard:
    """`states` float32[frames, 288] of the encoder, `tokens` of the greedy decoder without ends."""

    states: Floats
    tokens: list[int]


def upstream(folder: Path, audio: Floats, threads: int = 1) -> Heard:
    """Upstream's encoder_model.ort and decoder_model_merged.ort over float32[n], 16 kHz, -1..1."""
    encoder = open_session(folder / "encoder_model.ort", threads)
    decoder = open_session(folder / "decoder_model_merged.ort", threads)
    ones = np.ones((1, len(audio)), np.int64)
    given = {"input_values": audio[None], "attention_mask": ones}
    states = encoder.run(None, {i.name: given[i.name] for i in encoder.get_inputs()})[0]
    cache = {
        f"past_key_values.{layer}.{side}.{kind}": np.zeros((1, HEADS, 0, HEAD_DIM), np.float32)
        for layer in range(LAYERS)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    }
    names = [output.name.replace("present", "past_key_values") for output in decoder.get_outputs()]
    wanted = {i.name for i in decoder.get_inputs()}
    tokens: list[int] = []
    while len(tokens) < _most(audio):
        given = {
            "input_ids": np.array([[tokens[-1] if tokens else BOS]], np.int64),
            "encoder_hidden_states": states,
            "encoder_attention_mask": np.ones(states.shape[:2], np.int64),
            "use_cache_branch": np.array([bool(tokens)]),
            **cache,
        }
        found = dict(zip(names, decoder.run(None, {k: given[k] for k in wanted}), strict=True))
        best = int(found["logits"][0, -1].argmax())
        if best == EOS:
            break
        # With the cache in use the encoder's side comes back empty: the first run's stays valid.
        cache.update({k: found[k] for k in cache if not tokens or ".decoder." in k})
        tokens.append(best)
    return Heard(states[0], tokens)


@dataclass(frozen=True)
class Read:
    """`states` as in Heard. `behind`: float32[tokens + 1], by how much in log probability each
    token read, and the end after them, is less likely than the likeliest one there."""

    states: Floats
    behind: Floats


def rebuilt(folder: Path, audio: Floats, tokens: list[int], threads: int = 1) -> Read:
    """The built graphs over the same audio, full context and upstream's encoder weights, reading
    upstream's `tokens`."""
    names = ("conv1", "conv23", "encoder_full", "cross", "decoder")
    run = {name: open_session(folder / f"{name}.onnx", threads).run for name in names}
    start = {"pos0": np.array(0), "kept": np.array([0])}
    nothing = {f"past_{name}": np.zeros((HEADS, 0, HEAD_DIM), np.float32) for name in _layers()}

    a = run["conv1"](["a"], {"x": audio[None, None]})[0]
    mean, scale = a.mean(), 1 / np.sqrt(a.var() + 1e-5)
    statistics = {"mean": np.array(mean, np.float32), "scale": np.array(scale, np.float32)}
    feat = run["conv23"](["feat"], {"a": a, **statistics})[0]
    states = run["encoder_full"](["out"], {"feat": feat, **start, **nothing})[0]
    each = [half for both in run["cross"](None, {"h": states}) for half in np.split(both, 2)]
    n = len(tokens) + 1
    given = {
        "rows": np.fromfile(folder / EMBEDDING, np.uint8).reshape(-1, WIDTH)[[BOS, *tokens]],
        "positions": np.arange(n),
        "mask": np.triu(np.full((n, n), -1e9, np.float32), 1),
        "most": np.array([_LIKELIEST]),
        **nothing,
        **{f"cross_{name}": value for name, value in zip(_layers(), each, strict=True)},
    }
    likeliest, p = run["decoder"](["tokens", "p"], given)
    theirs = np.where(likeliest == np.array([*tokens, EOS])[:, None], p, 0).max(-1)
    return Read(states, np.log(p[:, 0] / np.maximum(theirs, 1e-30)))


def apart(one: Floats, other: Floats) -> float:
    """Relative RMS difference; infinite if the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.sqrt(np.mean((one - other) ** 2) / np.mean(one**2)))


def _layers() -> list[str]:
    return [f"{kind}_{layer}" for layer in range(LAYERS) for kind in _KINDS]


def _most(audio: Floats) -> int:
    return int(len(audio) / 16_000 * _TOKENS_PER_S) + 3
