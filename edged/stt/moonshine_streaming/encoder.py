"""The encoder of one segment: audio in, keys and values that the decoder attends to out.

A frame is final once 16 more have been heard (0.32 s): then it is what it would be in the whole
segment. Only final frames are given to the decoder, as upstream does it, and each is encoded,
adapted and projected once.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edged.stt.family import EncoderOutput, Floats
from edged.stt.kv_cache import KVCache
from edged.stt.moonshine_streaming.frontend import Frontend
from edged.stt.moonshine_streaming.graphs import Graphs
from edged.stt.moonshine_streaming.specification import LEFT_CONTEXT, MAX_POSITIONS, Sizes

MOST_NEW_FRAMES = 128  # of one run, which bounds its memory
_HIDDEN = -1e9  # added to the attention of frames that a frame must not see


class Encoder:
    """Streaming encoder of one segment (see `edged.stt.family.StreamingEncoder`).

    The state of its output is a list of cross-attention keys and values: for a decoder that reads
    trees, float32[heads, frames, head_dim] in the order of `Sizes.kv_names`; else one array of all
    layers' keys and one of all their values.
    """

    def __init__(self, graphs: Graphs, max_frames: int) -> None:
        sizes = graphs.sizes
        self._graphs, self._sizes = graphs, sizes
        # Even: some exporters do not allow for a single frame, and 640 samples give two.
        self._max_frames = min(max_frames, MAX_POSITIONS) // 2 * 2
        self._frontend = Frontend(graphs)
        self._features = np.empty((0, sizes.encoder_dim), np.float32)  # from the first that is
        self._done = 0  # not final: so many are
        kind = CachedEncoding if graphs.cached_encoder else WindowEncoding
        self._encoding: Encoding = kind(graphs.encoder, sizes)
        tensors, heads = (2 * sizes.depth, sizes.heads)
        if not graphs.reads_trees:
            tensors, heads = 2, sizes.depth * sizes.heads
        self._cross = KVCache(tensors, heads, sizes.head_dim, self._max_frames)

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1."""
        self._frontend.push(samples)

    @property
    def frames(self) -> int:
        """Frames of the audio so far. The last 16 of them have to wait, but count: the promise of a
        word's delay is about the audio that was heard."""
        return min(self._max_frames, self._frontend.frames)

    def update(self, last: bool = False) -> EncoderOutput | None:
        """Encodes what has become final; None while nothing is."""
        features = np.concatenate((self._features, self._frontend.features(last)))
        self._features = features[: self._max_frames - self._done]
        while (count := self._encode_some(last)) > 0:
            self._features = self._features[count:]
            self._done += count
        self._features = self._features.copy()
        return EncoderOutput(self._done, self._cross.arrays()) if self._done else None

    def _encode_some(self, last: bool) -> int:
        """Encodes frames of `self._features` and returns how many are final."""
        some = self._features[: MOST_NEW_FRAMES + self._sizes.lookahead]
        ends = last and len(some) == len(self._features)
        count = len(some) if ends else len(some) - self._sizes.lookahead
        if count <= 0:
            return 0
        states = self._encoding.encode(some, count)
        feed = {"encoded": states[None], "pos_offset": np.array([self._done])}
        memory = self._graphs.adapter.run(["memory"], feed)[0]
        k, v = self._graphs.cross_kv.run(["k_cross", "v_cross"], {"memory": memory})
        if self._graphs.reads_trees:
            new = [tensor for both in zip(k[:, 0], v[:, 0], strict=True) for tensor in both]
        else:
            new = [tensor.reshape(-1, count, self._sizes.head_dim) for tensor in (k, v)]
        self._cross.splice(self._done, new, count)
        return count


class Encoding(Protocol):
    """One way of running an encoder over features that arrive a few at a time."""

    def encode(self, features: Floats, final: int) -> Floats:
        """Encodes features[n, encoder_dim] behind all that were final before, and returns the
        states of the first `final` of them, which are then final too."""


class CachedEncoding:
    """With keys and values of the frames before, as the rewired encoder takes them."""

    def __init__(self, session: Any, sizes: Sizes) -> None:
        self._session = session
        self._windows: dict[str, tuple[int, int]] = {}
        self._past: dict[str, Floats] = {}
        self._axes: dict[str, int] = {}
        for value in session.get_inputs():
            if value.name.startswith("mask_"):
                behind, ahead = value.name.removeprefix("mask_").split("_")
                self._windows[value.name] = (int(behind), int(ahead))
            elif value.name.startswith("past_"):
                self._axes[value.name] = value.shape.index("past")
                shape = [0 if n == "past" else n for n in value.shape]
                self._past[value.name] = np.zeros(shape, np.float32)
        self._names = ["encoded", *(name.removeprefix("past_") for name in self._past)]
        self._kept = 0  # frames in `self._past`

    def encode(self, features: Floats, final: int) -> Floats:
        """See `Encoding.encode`."""
        distance = np.subtract.outer(
            np.arange(len(features)) + self._kept, np.arange(len(features) + self._kept)
        )
        masks = {
            name: np.where((distance <= behind) & (distance >= -ahead), 0, _HIDDEN)
            for name, (behind, ahead) in self._windows.items()
        }
        feed = {name: mask.astype(np.float32) for name, mask in masks.items()}
        feed |= {"features": features[None], **self._past}
        states, *joined = self._session.run(self._names, feed)
        stop = self._kept + final
        start = max(0, stop - LEFT_CONTEXT)
        for (name, axis), array in zip(self._axes.items(), joined, strict=True):
            self._past[name] = array.take(range(start, stop), axis)  # a copy
        self._kept = stop - start
        return states[0, :final]  # type: ignore[no-any-return]


class WindowEncoding:
    """With upstream's encoder, which has no state: frames with an influence are encoded again."""

    def __init__(self, session: Any, sizes: Sizes) -> None:
        self._session, self._left = session, sizes.left_context
        self._before = np.empty((0, sizes.encoder_dim), np.float32)

    def encode(self, features: Floats, final: int) -> Floats:
        """See `Encoding.encode`."""
        window = np.concatenate((self._before, features))
        states = self._session.run(["encoded"], {"features": window[None]})[0][0]
        start = len(self._before)
        self._before = window[max(0, start + final - self._left) : start + final].copy()
        return states[start : start + final]  # type: ignore[no-any-return]
