"""Compares the built graphs with upstream's own over a whole clip, for `edged models verify`.

Both sides are written out here, apart from the recogniser, so that a mistake in the recogniser
cannot hide one in the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged.ortsession import open_session
from edged.stt.family import RATE, Floats, SpeechCheck
from edged.stt.moonshine.build_version import EMBEDDING
from edged.stt.moonshine.dimensions import BOS, EOS, FRAME_SAMPLES, TINY

MAX_STATE_DIFFERENCE = 0.08  # relative RMS of encoder states
MAX_LOG_P_DEFICIT = 1.0  # by how much upstream's token may be less likely than the most probable
TOKENS_PER_S = 6.5  # upstream's own limit against endless loops, for English
MAX_FRAMES = 384  # upstream's decoder refuses longer encoder states (9.2 s)
COMPARED_TOKENS = 1000  # the most probable tokens among which upstream's is looked for


@dataclass(frozen=True)
class UpstreamOutput:
    """states: float32[frames, width] of the encoder. tokens: of the greedy decoder, without BOS and
    EOS."""

    states: Floats
    tokens: list[int]


@dataclass(frozen=True)
class BuiltOutput:
    """states: as in UpstreamOutput. deficit: float32[tokens + 1], by how much in log probability
    each token that was read, and the end behind them, is less likely than the most probable one."""

    states: Floats
    deficit: Floats


def check(upstream: Path, built: Path, samples: Floats, threads: int) -> SpeechCheck:
    """Whether upstream's tokens are as probable as the best of the built graphs, and the
    encoder states close.

    upstream: folder of upstream's files. built: folder of the graphs. samples: float32[n], 16 kHz;
    at most the first 9.2 s are compared.
    """
    samples = samples[: MAX_FRAMES * FRAME_SAMPLES]
    theirs = run_upstream(upstream, samples, threads)
    ours = run_built(built, samples, theirs.tokens, threads)
    difference, deficit = relative_rms(theirs.states, ours.states), float(ours.deficit.max())
    return SpeechCheck(
        difference <= MAX_STATE_DIFFERENCE and deficit <= MAX_LOG_P_DEFICIT,
        f"{_agreement(ours.deficit)} (at most {MAX_LOG_P_DEFICIT:.1f} is allowed);"
        f" encoder states differ by {difference:.1%} (at most {MAX_STATE_DIFFERENCE:.0%})",
    )


def run_upstream(folder: Path, samples: Floats, threads: int = 1) -> UpstreamOutput:
    """Runs upstream's encoder_model.ort and decoder_model_merged.ort over float32[n], 16 kHz."""
    encoder = open_session(folder / "encoder_model.ort", threads)
    decoder = open_session(folder / "decoder_model_merged.ort", threads)
    ones = np.ones((1, len(samples)), np.int64)
    given = {"input_values": samples[None], "attention_mask": ones}
    states = encoder.run(None, {i.name: given[i.name] for i in encoder.get_inputs()})[0]
    cache = {
        f"past_key_values.{layer}.{side}.{kind}": np.zeros(
            (1, TINY.heads, 0, TINY.head_dim), np.float32
        )
        for layer in range(TINY.layers)
        for side in ("decoder", "encoder")
        for kind in ("key", "value")
    }
    names = [output.name.replace("present", "past_key_values") for output in decoder.get_outputs()]
    wanted = {i.name for i in decoder.get_inputs()}
    tokens: list[int] = []
    while len(tokens) < _max_tokens(samples):
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
    return UpstreamOutput(states[0], tokens)


def run_built(folder: Path, samples: Floats, tokens: list[int], threads: int = 1) -> BuiltOutput:
    """Runs the built graphs over the same audio, with full context and upstream's encoder weights,
    and has them read upstream's `tokens`."""
    names = ("conv1", "conv23", "encoder_full", "cross", "decoder")
    run = {name: open_session(folder / f"{name}.onnx", threads).run for name in names}
    start = {"pos0": np.array(0), "kept": np.array([0])}
    empty = np.zeros((TINY.heads, 0, TINY.head_dim), np.float32)
    nothing = dict.fromkeys(TINY.past_names, empty)

    a = run["conv1"](["a"], {"x": samples[None, None]})[0]
    mean, scale = a.mean(), 1 / np.sqrt(a.var() + 1e-5)
    statistics = {"mean": np.array(mean, np.float32), "scale": np.array(scale, np.float32)}
    feat = run["conv23"](["feat"], {"a": a, **statistics})[0]
    states = run["encoder_full"](["out"], {"feat": feat, **start, **nothing})[0]
    each = [half for both in run["cross"](None, {"h": states}) for half in np.split(both, 2)]
    n = len(tokens) + 1
    given = {
        "rows": np.fromfile(folder / EMBEDDING, np.uint8).reshape(-1, TINY.width)[[BOS, *tokens]],
        "positions": np.arange(n),
        "mask": np.triu(np.full((n, n), -1e9, np.float32), 1),
        "most": np.array([COMPARED_TOKENS]),
        **nothing,
        **dict(zip(TINY.cross_names, each, strict=True)),
    }
    best, p = run["decoder"](["tokens", "p"], given)
    theirs = np.where(best == np.array([*tokens, EOS])[:, None], p, 0).max(-1)
    return BuiltOutput(states, np.log(p[:, 0] / np.maximum(theirs, 1e-30)))


def relative_rms(one: Floats, other: Floats) -> float:
    """RMS of the difference relative to `one`; infinite if the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.sqrt(np.mean((one - other) ** 2) / np.mean(one**2)))


def _agreement(deficit: Floats) -> str:
    close = int(np.count_nonzero(deficit))
    if not close:
        return f"all {len(deficit)} of upstream's tokens are the most probable here"
    return (
        f"{len(deficit) - close} of {len(deficit)} of upstream's tokens are the most probable here,"
        f" the others are up to {deficit.max():.2f} less likely"
    )


def _max_tokens(samples: Floats) -> int:
    return int(len(samples) / RATE * TOKENS_PER_S) + 3
