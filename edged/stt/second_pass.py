"""The second pass: a whole segment decoded once more with full context and upstream's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edged.ortsession import release_memory
from edged.stt.commit import HeardWord, token_limit, without_loop, words_of
from edged.stt.decoder import Decoder, Hypothesis
from edged.stt.moonshine.frontend import KERNEL, STRIDE, conv1_frames, moments, normalisation
from edged.stt.moonshine.graphs import (
    FRAME_S,
    HEAD_DIM,
    HEADS,
    KV,
    PAST,
    WIDTH,
    Floats,
    Graphs,
    each_tensor,
    feeds,
)
from edged.stt.moonshine.vocabulary import Vocabulary

_PIECE = 32  # frames convolved at once: all at once would need 10 MB more for an instant
_SHORTEST = 12 * STRIDE + KERNEL  # samples that give one encoder frame


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of a segment (seconds from its start) and the probability of each token."""

    words: list[HeardWord]
    probability: list[float] = field(default_factory=list)


def transcribe(
    graphs: Graphs, vocabulary: Vocabulary, samples: Floats, draft: Sequence[int] = ()
) -> Transcript:
    """samples: float32[n] at 16 kHz, speech of up to about 20 s -> its words.

    `draft`: tokens that are probably right (the first pass's); they make it faster. About 0.02 CPU
    seconds a second of audio.
    """
    if len(samples) < _SHORTEST:
        return Transcript([])
    states = encode(graphs, samples)
    cross = each_tensor(graphs.cross.run(None, {"h": states}))
    limit = token_limit(len(states) * FRAME_S)
    decoder = Decoder(graphs, limit + 1)
    decoder.hypothesis = Hypothesis(list(draft[:limit]))
    hypothesis = decoder.update(cross, limit, None)
    n = without_loop(hypothesis.tokens)
    probability = hypothesis.probability[:n]
    words = words_of(hypothesis.tokens[:n], hypothesis.heard[:n], probability, vocabulary)
    del states, cross, decoder
    release_memory()
    return Transcript(words, probability)


def encode(graphs: Graphs, samples: Floats) -> Floats:
    """Upstream's full-context encoder states [frames, 288] of samples[n]."""
    count = (len(samples) - KERNEL) // STRIDE + 1
    conv = np.empty((1, WIDTH, count), np.float32)
    for start in range(0, count, _PIECE * 6):
        stop = min(start + _PIECE * 6, count)
        part = samples[start * STRIDE : (stop - 1) * STRIDE + KERNEL]
        conv[:, :, start:stop] = graphs.conv1.run(None, {"x": part[None, None]})[0]
    total, squares = moments(conv)
    statistics = normalisation(total, squares, count)
    frames = (count - 13) // 6 + 1
    features = np.empty((frames, WIDTH), np.float32)
    for start in range(0, frames, _PIECE):
        stop = min(start + _PIECE, frames)
        part = conv[:, :, start * 6 : start * 6 + conv1_frames(stop - start)]
        feed = {"a": np.ascontiguousarray(part), **statistics}
        features[start:stop] = graphs.conv23.run(None, feed)[0]
    del conv
    release_memory()  # 20 s took 9 MB more for an instant, on top of what the convolutions let go
    nothing = [np.empty((HEADS, 0, HEAD_DIM), np.float32)] * len(KV)
    feed = {"feat": features, "pos0": np.array(0), "kept": np.array([0])}
    states: Floats = graphs.encoder_full.run(["out"], feed | feeds(PAST, nothing))[0]
    return states
