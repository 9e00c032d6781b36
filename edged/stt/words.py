"""Words of a segment and their times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edged.stt.alignment import monotonic_frames
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


def normalised(text: str) -> str:
    """Letters and digits alone, in lower case: for comparing words."""
    return re.sub(r"[\W_]+", "", text.lower())
