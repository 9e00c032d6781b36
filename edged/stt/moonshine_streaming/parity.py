"""Compares what edged runs with upstream's own graphs over a whole clip, for `edged models verify`.

Upstream's side is written out here, apart from the recogniser: whole clip, greedy, token by token.
Ours is what the recogniser does: audio in steps of 80 ms, rewired graphs, tokens read at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged.stt.family import RATE, Floats, SpeechCheck
from edged.stt.moonshine_streaming.decoder_step import BranchDecoder, TreeDecoder
from edged.stt.moonshine_streaming.encoder import Encoder
from edged.stt.moonshine_streaming.graphs import Graphs, form
from edged.stt.moonshine_streaming.language_traits import LATIN_TOKENS_PER_S
from edged.stt.moonshine_streaming.specification import (
    CONFIG,
    FRAME_SAMPLES,
    TOKENIZER,
    Sizes,
    read_config,
)
from edged.stt.moonshine_streaming.upstream import (
    open_adapter,
    open_cross_kv,
    open_decoder,
    open_encoder,
    open_frontend,
)
from edged.stt.moonshine_streaming.vocabulary import StreamingVocabulary

MAX_DIFFERENCE = 0.08  # relative RMS of the cross-attention keys and values
MAX_LOG_P_DEFICIT = 1.0  # by how much upstream's token may be less likely than the most probable
COMPARED_TOKENS = 1000  # the most probable tokens among which upstream's is looked for
_STEP = RATE * 80 // 1000


@dataclass(frozen=True)
class UpstreamOutput:
    """k, v: float32[layers, 1, heads, frames, head_dim], what the decoder attends to. tokens: of
    the greedy decoder, without the marks at both ends."""

    k: Floats
    v: Floats
    tokens: list[int]


def check(upstream: Path, built: Path, samples: Floats, threads: int) -> SpeechCheck:
    """Whether upstream's tokens are as probable as the best of ours, and what the decoder attends
    to is the same.

    upstream: folder of upstream's files. built: folder of the built graphs. samples: float32[n],
    16 kHz.
    """
    sizes = read_config(upstream / CONFIG)
    samples = samples[: len(samples) // (2 * FRAME_SAMPLES) * 2 * FRAME_SAMPLES]
    possible = StreamingVocabulary.load(upstream / TOKENIZER, sizes, "en").transcript_tokens()
    theirs = run_upstream(upstream, sizes, samples, threads, possible)
    graphs = Graphs.load(upstream, built, threads)
    encoder = Encoder(graphs, len(samples) // FRAME_SAMPLES)
    for start in range(0, len(samples), _STEP):
        encoder.push(samples[start : start + _STEP])
        audio = encoder.update(last=start + _STEP >= len(samples))
    assert audio is not None
    k, v = (audio.state[n::2] for n in (0, 1))
    difference = max(_relative_rms(theirs.k, k), _relative_rms(theirs.v, v))
    n = len(theirs.tokens) + 1
    decoder = (TreeDecoder if graphs.reads_trees else BranchDecoder)(graphs, n)
    decoder.attend_to(audio)
    branches = [range(row + 1) for row in range(n)]
    top = decoder.read([sizes.bos, *theirs.tokens], branches, 0, COMPARED_TOKENS)
    expected = np.array([*theirs.tokens, sizes.eos])
    p = np.where(top.tokens == expected[:, None], top.p, 0).max(-1)
    p[-1] = top.p_eos[-1]
    deficit = np.log(top.p[:, 0] / np.maximum(p, 1e-30))
    if len(theirs.tokens) >= _max_tokens(samples):  # cut off before the end
        deficit = deficit[:-1]
    worst = float(deficit.max(initial=0))
    best = int(np.count_nonzero(deficit == 0))
    return SpeechCheck(
        difference <= MAX_DIFFERENCE and worst <= MAX_LOG_P_DEFICIT,
        f"{best} of {len(deficit)} of upstream's tokens are the most probable here, others are up"
        f" to {worst:.2f} less likely (at most {MAX_LOG_P_DEFICIT:.1f} is allowed); what the"
        f" decoder attends to differs by {difference:.1%} (at most {MAX_DIFFERENCE:.0%}); encoder:"
        f" {form(graphs.encoder)}; decoder: {form(graphs.decoder)}",
    )


def run_upstream(
    folder: Path,
    sizes: Sizes,
    samples: Floats,
    threads: int = 1,
    possible: Sequence[int] | None = None,
) -> UpstreamOutput:
    """Runs upstream's graphs over float32[n] at 16 kHz, n a multiple of 640.

    possible: tokens that a text may have; None: all.
    """
    every = np.arange(sizes.vocabulary) if possible is None else np.array(possible)
    frontend, weights = open_frontend(folder, sizes, threads)
    features = frontend.run(
        ["features"], {"audio_chunk": samples[None], **sizes.first_states(), **weights}
    )[0]
    encoded = open_encoder(folder, sizes, threads).run(["encoded"], {"features": features})[0]
    feed = {"encoded": encoded, "pos_offset": np.array([0])}
    memory = open_adapter(folder, sizes, threads).run(["memory"], feed)[0]
    names = ["k_cross", "v_cross"]
    k, v = open_cross_kv(folder, sizes, threads).run(names, {"memory": memory})
    decoder = open_decoder(folder, sizes, threads)
    past = [np.zeros((sizes.depth, 1, sizes.heads, 0, sizes.head_dim), np.float32)] * 2
    tokens: list[int] = []
    while len(tokens) < _max_tokens(samples):
        given = {
            "token": np.array([[tokens[-1] if tokens else sizes.bos]]),
            "k_self": past[0],
            "v_self": past[1],
            "out_k_cross": k,
            "out_v_cross": v,
        }
        logits, *past = decoder.run(["logits", "out_k_self", "out_v_self"], given)
        best = int(every[logits[0, -1, every].argmax()])
        if best == sizes.eos:
            break
        tokens.append(best)
    return UpstreamOutput(k, v, tokens)


def _relative_rms(theirs: Floats, ours: list[Floats]) -> float:
    """RMS of the difference relative to `theirs`; infinite if the sizes differ."""
    joined = np.concatenate([array.ravel() for array in ours])
    if joined.size != theirs.size:
        return float("inf")
    flat = theirs.ravel()
    return float(np.sqrt(np.mean((joined - flat) ** 2) / np.mean(flat**2)))


def _max_tokens(samples: Floats) -> int:
    return int(len(samples) / RATE * LATIN_TOKENS_PER_S) + 3
