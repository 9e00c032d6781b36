"""The encoder: streaming, which encodes the most recent frames again, and of a whole segment.

Whisper was trained on windows of 30 s and fails on shorter ones. Padded frames are attended to
without being encoded: their keys and values are constants, nearly the same for every segment.
Frames that have seen enough of their future are final; their keys and values stay in a cache.
"""

from __future__ import annotations

import numpy as np

from edged.stt.family import EncoderOutput, Floats
from edged.stt.kv_cache import KVCache
from edged.stt.whisper.dimensions import PADDED_STATES
from edged.stt.whisper.frontend import Frontend
from edged.stt.whisper.graphs import Graphs, feeds


class Encoder:
    """Streaming encoder of one segment (see `edged.stt.family.StreamingEncoder`).

    The state of its output is the cross-attention keys and values of all frames and of the padded
    ones behind them, as a list of float32[heads, n, head_dim] in the order of
    `Dimensions.kv_names`.
    """

    def __init__(self, graphs: Graphs, max_frames: int, revised_frames: int) -> None:
        """revised_frames: how many frames of lookahead a frame has had when it becomes final."""
        sizes = graphs.dimensions
        self._graphs, self._revised_frames = graphs, revised_frames
        self._frontend = Frontend(max_frames)
        shape = (len(sizes.kv_names), sizes.heads, sizes.head_dim)
        self._past = KVCache(*shape, max_frames)
        self._cross = KVCache(*shape, max_frames + PADDED_STATES)

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1."""
        self._frontend.push(samples)

    @property
    def frames(self) -> int:
        """Frames that the next update will cover."""
        return self._frontend.frames

    def update(self, last: bool = False) -> EncoderOutput | None:
        """Encodes what was pushed; None before the first frame. last: the frames at the end, whose
        features reach beyond it, are covered too."""
        frames = self._frontend.last_frames if last else self._frontend.frames
        first = self._past.length
        if frames <= first:
            return None
        final = max(0, frames - first - self._revised_frames)
        states, new = self._encode(first, frames, final)
        self._past.splice(first, [new], final)
        cross = self._graphs.cross.run(None, {"h": states})
        behind = np.split(self._graphs.padding.behind(frames), len(cross))
        both = [np.concatenate(each, 1) for each in zip(cross, behind, strict=True)]
        self._cross.splice(first, both, both[0].shape[1])
        return EncoderOutput(frames, self._cross.arrays())

    def _encode(self, first: int, frames: int, kept: int) -> tuple[Floats, Floats]:
        """States of the frames `first` .. `frames`, and keys and values of the first `kept`."""
        graphs, sizes = self._graphs, self._graphs.dimensions
        mel = self._frontend.mel(first, frames)
        live = np.ones((len(mel) - 2, 1), np.float32)
        live[0] = first > 0
        padding, share = graphs.padding.keys_values(frames)
        bias = np.zeros(frames + padding[0].shape[1], np.float32)
        bias[frames:] = share
        feed = {
            "feat": graphs.features.run(None, {"mel": mel, "live": live})[0],
            "pos0": np.array(first),
            "kept": np.array([kept]),
            "bias": bias,
            **feeds(sizes.past_names, self._past.arrays()),
            **feeds(sizes.padding_names, padding),
        }
        states, new = graphs.encoder.run(["out", "kv"], feed)
        return states, new


def encode_whole(graphs: Graphs, samples: Floats) -> EncoderOutput | None:
    """Encodes a whole segment, float32[n] at 16 kHz, of at most 30 s."""
    encoder = Encoder(graphs, len(samples) // 320 + 1, len(samples))
    encoder.push(samples)
    return encoder.update(last=True)
