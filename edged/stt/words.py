"""Words of a segment and their times."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from edged.stt.family import AttentionTiming, Vocabulary

CLOSE_S = 0.4  # a word that starts this soon after another follows it without a pause


@dataclass(frozen=True, slots=True)
class SegmentWord:
    """A word of a decoded text. Seconds count from the segment's start.

    end_token: index behind its last token. probability: of its least probable token.
    """

    text: str
    start_s: float
    stop_s: float
    end_token: int
    probability: float


def group_words(
    tokens: Sequence[int],
    frames: Sequence[int],
    probabilities: Sequence[float],
    vocabulary: Vocabulary,
    timing: AttentionTiming,
) -> list[SegmentWord]:
    """Groups tokens into words, with times that never fall.

    frames: the encoder frame of each token's attention. A word that is followed closely stops where
    the next one starts; a word before a pause stops `timing.tail_frames` behind its last token.
    """
    frames = monotonic_frames(frames)
    firsts = vocabulary.word_starts(tokens)
    starts = [max(0.0, frames[i] * timing.frame_s - timing.onset_lag_s) for i in firsts]
    words = []
    for n, (first, start) in enumerate(zip(firsts, starts, strict=True)):
        end = firsts[n + 1] if n + 1 < len(firsts) else len(tokens)
        text = vocabulary.text(tokens[first:end])
        if not text:
            continue
        stop = (frames[end - 1] + timing.tail_frames) * timing.frame_s
        if n + 1 < len(starts) and starts[n + 1] < stop + CLOSE_S:
            stop = starts[n + 1]
        stop = max(stop, start + timing.frame_s)
        words.append(SegmentWord(text, start, stop, end, min(probabilities[first:end])))
    return words


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


def normalised(text: str) -> str:
    """Letters and digits alone, in lower case: for comparing words."""
    return re.sub(r"[\W_]+", "", text.lower())
