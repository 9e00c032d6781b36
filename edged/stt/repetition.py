"""The guard against loops: tells repeated words from a decoder that repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

from edged.stt.alignment import monotonic_frames
from edged.stt.frame_power import FramePower

MAX_LOOP_TOKENS = 8  # the longest repeated unit that is looked for
MIN_REPETITION_S = 0.18  # the least time between two repetitions of a spoken word
MIN_TOKEN_S = 0.08  # and per token of it
ATTENTION_SPAN_S = 0.2  # a word sounds at its attention, or this soon behind it
MIN_RELATIVE_POWER = 0.003  # of a repetition, relative to the loudest one: -25 dB


def loop_free_length(
    tokens: Sequence[int], frames: Sequence[int], frame_s: float, power: FramePower
) -> int:
    """How many of the tokens to believe.

    frames: the encoder frame of each token's attention. frame_s: seconds per frame. power: of the
    audio.

    A decoder that loops repeats text while its attention stands still or rests in silence; a
    speaker who repeats words takes time for each. So where the text ends with the third repetition
    (or more) of 1 to MAX_LOOP_TOKENS tokens, only as many repetitions are believed as were heard at
    different times, far enough apart for a speaker, and where there is sound.
    """
    end = len(tokens)
    while period := loop_period(tokens[:end]):
        start = end - period
        while start >= period and tokens[start - period : start] == tokens[start : start + period]:
            start -= period
        times = [frame * frame_s for frame in monotonic_frames(frames[:end])[start::period]]
        believed = start + period * _count_spoken(times, period, power)
        if believed >= end:
            break
        end = believed
    return end


def _count_spoken(times: Sequence[float], tokens: int, power: FramePower) -> int:
    """How many repetitions of a unit of `tokens` tokens were spoken, of those that begin at
    `times`. The first one always counts."""
    least_s = max(MIN_REPETITION_S, tokens * MIN_TOKEN_S)
    peaks = [power.peak(time, time + ATTENTION_SPAN_S) for time in times]
    count, last, loudest = 1, times[0], peaks[0]
    for time, peak in zip(times[1:], peaks[1:], strict=True):
        if time - last >= least_s and peak >= MIN_RELATIVE_POWER * loudest:
            count, last, loudest = count + 1, time, max(loudest, peak)
    return count


def loop_period(tokens: Sequence[int]) -> int:
    """Length of the unit that the text ends with for the third time; 0 if there is none."""
    end = len(tokens)
    for n in range(min(MAX_LOOP_TOKENS, end // 3), 0, -1):  # a unit may itself be a repetition
        block = list(tokens[end - n :])
        if list(tokens[end - 3 * n :]) == 3 * block:
            return next(d for d in range(1, n + 1) if block[:d] * (n // d) == block)
    return 0
