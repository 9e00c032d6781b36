"""Which encoder frame each token belongs to."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence


def monotonic_frames(frames: Sequence[int]) -> list[int]:
    """Attention frames as a sequence that never falls, with few of them changed.

    Attention now and then rests far from its word, at a pause or at the segment's beginning. The
    longest non-decreasing subsequence is believed. A token outside it gets the frame of the
    believed token before it; tokens before all believed ones get the frame of the first of those.
    """
    lengths: list[int] = []  # of the longest non-decreasing subsequence that ends at each token
    ends: list[int] = []  # the earliest frame at which a subsequence of each length ends
    for frame in frames:
        at = bisect_right(ends, frame)
        ends[at : at + 1] = [frame]
        lengths.append(at + 1)
    believed: dict[int, int] = {}
    wanted, limit = len(ends), math.inf
    for i in reversed(range(len(frames))):
        if lengths[i] == wanted and frames[i] <= limit:
            believed[i] = frames[i]
            wanted, limit = wanted - 1, frames[i]
    ordered, frame = [], believed[min(believed)] if believed else 0
    for i in range(len(frames)):
        frame = believed.get(i, frame)
        ordered.append(frame)
    return ordered
