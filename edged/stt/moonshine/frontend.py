"""Audio to encoder features, as it arrives.

Group norm needs the statistics of the whole segment, which has not been heard yet: those of the
segment so far are used. While it is young they still change, so that features are computed again
at each update; later ones are computed once.
"""

from __future__ import annotations

import numpy as np

from edged.stt.family import Floats
from edged.stt.moonshine.graphs import Graphs

KERNEL, STRIDE = 127, 64  # of conv1, in samples
CONV1_PER_FRAME, CONV1_FIRST_FRAME = 6, 13  # conv1 frames per encoder frame, and for the first one
SETTLED_CONV1_FRAMES = 250  # 1 s: from there on the statistics hardly change


def conv1_frames(frames: int) -> int:
    """How many conv1 frames `frames` encoder frames need."""
    return (frames - 1) * CONV1_PER_FRAME + CONV1_FIRST_FRAME


def encoder_frames(conv1: int) -> int:
    """How many encoder frames that many conv1 frames give; negative if fewer than one."""
    return (conv1 - CONV1_FIRST_FRAME) // CONV1_PER_FRAME + 1


class Frontend:
    """Features of one segment.

    Memory: the features that may be asked for again (1.2 kB a frame) and 1 s of conv1 frames.
    """

    def __init__(self, graphs: Graphs, max_frames: int) -> None:
        """max_frames: the most encoder frames of the segment."""
        self._graphs, width = graphs, graphs.dimensions.width
        self._samples = np.empty(0, np.float32)  # not yet seen by conv1
        self._conv = np.empty((1, width, 0), np.float32)
        self._conv_first = 0  # index of the first conv1 frame that is kept
        self._count = 0  # conv1 frames so far
        self._sum = self._squares = 0.0
        self._max_frames = max_frames
        self._features = np.empty((0, width), np.float32)  # those that may be asked for again
        self._features_first = 0  # index of the first of them
        self._done = 0  # features computed

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any] at 16 kHz, -1..1."""
        self._samples = np.concatenate((self._samples, samples))

    @property
    def frames(self) -> int:
        """Encoder frames that the audio so far gives."""
        conv = self._count + max(0, (len(self._samples) - KERNEL) // STRIDE + 1)
        return min(self._max_frames, max(0, encoder_frames(conv)))

    def features(self, first: int) -> Floats:
        """Returns float32[frames - first, width]. Frames before `first` cannot be asked for
        again."""
        self._convolve()
        frames = self.frames
        young = self._count < SETTLED_CONV1_FRAMES
        start = first if young else self._done
        wanted = self._features[first - self._features_first : start - self._features_first]
        if start < frames:
            offset = start * CONV1_PER_FRAME - self._conv_first
            part = self._conv[:, :, offset : conv1_frames(frames) - self._conv_first]
            wanted = np.concatenate((wanted, self._normalised(part)))
            self._done = frames
        self._features, self._features_first = wanted, first
        if not young:  # keep what the next frame needs, no more
            start = self._done * CONV1_PER_FRAME
            self._conv = self._conv[:, :, start - self._conv_first :].copy()
            self._conv_first = start
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
    """Sums, over the frames of conv1's output [1, channels, frames], of the channels' mean and mean
    square."""
    channels = conv.shape[1]
    return (
        float(conv.sum(dtype=np.float64)) / channels,
        float(np.square(conv).sum(dtype=np.float64)) / channels,
    )


def normalisation(total: float, squares: float, frames: int) -> dict[str, Floats]:
    """Group norm (one group, epsilon 1e-5) from the `moments` of that many frames, as inputs of the
    graph conv23."""
    mean = total / frames
    variance = max(0.0, squares / frames - mean * mean)
    scale = 1 / np.sqrt(variance + 1e-5)
    return {"mean": np.array(mean, np.float32), "scale": np.array(scale, np.float32)}
