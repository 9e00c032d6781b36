"""The encoders: streaming, which encodes the most recent frames again, and of a whole segment.

Frames older than the revised ones are final. Their keys and values stay in a cache, which is never
shortened within a segment. The revised frames are encoded again by every update, each time with
more of their future in view; that costs a constant amount, and gives a word the most context at the
moment when it is committed.
"""

from __future__ import annotations

import numpy as np

from edged.ortsession import release_memory
from edged.stt.family import EncoderOutput, Floats
from edged.stt.kv_cache import KVCache
from edged.stt.moonshine.frontend import (
    CONV1_FIRST_FRAME,
    CONV1_PER_FRAME,
    KERNEL,
    STRIDE,
    Frontend,
    conv1_frames,
    encoder_frames,
    moments,
    normalisation,
)
from edged.stt.moonshine.graphs import Graphs, feeds, split_layers

MIN_SAMPLES = (CONV1_FIRST_FRAME - 1) * STRIDE + KERNEL  # samples that give one encoder frame
CONVOLVED_FRAMES = 32  # encoder frames convolved at once: all at once would need 10 MB more


class Encoder:
    """Streaming encoder of one segment (see `edged.stt.family.StreamingEncoder`).

    The state of its output is the cross-attention keys and values of all frames, as a list of
    float32[heads, frames, head_dim] in the order of `Dimensions.kv_names`.
    """

    def __init__(
        self, graphs: Graphs, max_frames: int, revised_frames: int, adapted: bool = True
    ) -> None:
        """adapted: with the weights for little lookahead, else with upstream's."""
        sizes = graphs.dimensions
        self._graphs = graphs
        self._graph = graphs.encoder if adapted else graphs.encoder_full
        self._revised_frames = revised_frames
        self._frontend = Frontend(graphs, max_frames)
        shape = (len(sizes.kv_names), sizes.heads, sizes.head_dim, max_frames)
        self._past, self._cross = KVCache(*shape), KVCache(*shape)

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1."""
        self._frontend.push(samples)

    @property
    def frames(self) -> int:
        """Frames that the next update will cover."""
        return self._frontend.frames

    def update(self, last: bool = False) -> EncoderOutput | None:
        """Encodes what was pushed; None before the first frame. The last update is like any other:
        the most recent frames are always encoded without the lookahead that they still miss."""
        first = self._past.length
        features = self._frontend.features(first)
        if not len(features):
            return None
        final = max(0, len(features) - self._revised_frames)
        past = feeds(self._graphs.dimensions.past_names, self._past.arrays())
        feed = {"feat": features, "pos0": np.array(first), "kept": np.array([final])}
        states, new = self._graph.run(["out", "kv"], feed | past)
        self._past.splice(first, [new], final)
        cross = self._graphs.cross.run(None, {"h": states})
        self._cross.splice(first, cross, len(states))
        return EncoderOutput(self._cross.length, self._cross.arrays())


def encode_whole(graphs: Graphs, samples: Floats) -> EncoderOutput | None:
    """Encodes a whole segment with upstream's weights; None if it is shorter than MIN_SAMPLES.

    samples: float32[n], 16 kHz, -1..1. The output's state is as that of `Encoder`.
    """
    if len(samples) < MIN_SAMPLES:
        return None
    states = encoder_states(graphs, samples)
    cross = split_layers(graphs.cross.run(None, {"h": states}))
    return EncoderOutput(len(states), cross)


def encoder_states(graphs: Graphs, samples: Floats) -> Floats:
    """Upstream's full-context encoder states, float32[frames, width], of samples float32[n]."""
    sizes = graphs.dimensions
    count = (len(samples) - KERNEL) // STRIDE + 1
    conv = np.empty((1, sizes.width, count), np.float32)
    for start in range(0, count, CONVOLVED_FRAMES * CONV1_PER_FRAME):
        stop = min(start + CONVOLVED_FRAMES * CONV1_PER_FRAME, count)
        part = samples[start * STRIDE : (stop - 1) * STRIDE + KERNEL]
        conv[:, :, start:stop] = graphs.conv1.run(None, {"x": part[None, None]})[0]
    total, squares = moments(conv)
    statistics = normalisation(total, squares, count)
    frames = encoder_frames(count)
    features = np.empty((frames, sizes.width), np.float32)
    for start in range(0, frames, CONVOLVED_FRAMES):
        stop = min(start + CONVOLVED_FRAMES, frames)
        first = start * CONV1_PER_FRAME
        part = conv[:, :, first : first + conv1_frames(stop - start)]
        feed = {"a": np.ascontiguousarray(part), **statistics}
        features[start:stop] = graphs.conv23.run(None, feed)[0]
    del conv
    release_memory()  # before the encoder takes its own
    nothing = [np.empty((sizes.heads, 0, sizes.head_dim), np.float32)] * len(sizes.kv_names)
    feed = {"feat": features, "pos0": np.array(0), "kept": np.array([0])}
    states: Floats = graphs.encoder_full.run(["out"], feed | feeds(sizes.past_names, nothing))[0]
    return states
