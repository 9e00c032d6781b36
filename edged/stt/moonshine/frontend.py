"""Audio to encoder features, as it arrives.

Group norm wants the statistics of the whole segment, which has not been heard yet: those of the
segment so far are used. While it is young they still move, so that features are computed again
at each update; later ones are computed once.
"""

from __future__ import annotations

import numpy as np

from edged.stt.moonshine.graphs import WIDTH, Floats, Graphs

KERNEL, STRIDE = 127, 64  # of conv1, in samples
_YOUNG = 250  # conv1 frames (1 s): from there on the statistics are settled


def conv1_frames(frames: int) -> int:
    """How many conv1 frames `frames` encoder frames need."""
    return (frames - 1) * 6 + 13


class Frontend:
    """Features of one segment. Memory: those that may be asked for again (1.2 kB a frame), 1 s of
    conv1 frames."""

    def __init__(self, graphs: Graphs, capacity: int) -> None:
        """`capacity`: the most encoder frames the segment may have."""
        self._graphs = graphs
        self._samples = np.empty(0, np.float32)  # not yet seen by conv1
        self._conv = np.empty((1, WIDTH, 0), np.float32)
        self._conv_first = 0  # index of the first conv1 frame that is kept
        self._count = 0  # conv1 frames so far
        self._sum = self._squares = 0.0
        self._capacity = capacity
        self._features = np.empty((0, WIDTH), np.float32)  # those that may be asked for again
        self._features_first = 0  # index of the first of them
        self._done = 0  # features computed

    def push(self, samples: Floats) -> None:
        """samples: float32[any] at 16 kHz, -1..1."""
        self._samples = np.concatenate((self._samples, samples))

    @property
    def frames(self) -> int:
        """Encoder frames that the audio so far gives."""
        conv = self._count + max(0, (len(self._samples) - KERNEL) // STRIDE + 1)
        return min(self._capacity, max(0, (conv - 13) // 6 + 1))

    def features(self, first: int) -> Floats:
        """Features [frames - first, 288]; frames before `first` will not be asked for again."""
        self._convolve()
        frames = self.frames
        young = self._count < _YOUNG
        start = first if young else self._done
        wanted = self._features[first - self._features_first : start - self._features_first]
        if start < frames:
            offset = start * 6 - self._conv_first
            part = self._conv[:, :, offset : conv1_frames(frames) - self._conv_first]
            wanted = np.concatenate((wanted, self._normalised(part)))
            self._done = frames
        self._features, self._features_first = wanted, first
        if not young:  # keep what the next frame needs, no more
            keep = self._done * 6 - self._conv_first
            self._conv, self._conv_first = self._conv[:, :, keep:].copy(), self._done * 6
        return self._features

    def _convolve(self) -> None:
        new = (len(self._samples) - KERNEL) // STRIDE + 1
        if new <= 0:
            return
        used = self._samples[: (new - 1) * STRIDE + KERNEL]
        conv = self._graphs.conv1.run(None, {"x": used[None, None]})[0]
        self._samples = self._samples[new * STRIDE :]
        self._conv = np.concatenate((self._conv, conv), 2)
        self._count += new
        total, squares = moments(conv)
        self._sum += total
        self._squares += squares

    def _normalised(self, conv: Floats) -> Floats:
        statistics = normalisation(self._sum, self._squares, self._count)
        feed = {"a": np.ascontiguousarray(conv), **statistics}
        result: Floats = self._graphs.conv23.run(None, feed)[0]
        return result


def moments(conv: Floats) -> tuple[float, float]:
    """conv1's output -> sums over its frames of the channels' mean and mean square."""
    return (
        float(conv.sum(dtype=np.float64)) / WIDTH,
        float(np.square(conv).sum(dtype=np.float64)) / WIDTH,
    )


def normalisation(total: float, squares: float, frames: int) -> dict[str, Floats]:
    """Group norm (one group, epsilon 1e-5) by `moments` of that many frames, as conv23 wants it."""
    mean = total / frames
    variance = max(0.0, squares / frames - mean * mean)
    scale = 1 / np.sqrt(variance + 1e-5)
    return {"mean": np.array(mean, np.float32), "scale": np.array(scale, np.float32)}
