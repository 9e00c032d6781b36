"""Which words of a hypothesis may be said aloud, and which were said already. Pure functions.

Said words are never revised, but the hypothesis behind them may be: a wrong early word must not
drag the rest of the line with it. So what was said is matched with what is now believed, by
spelling and by time, to find where to go on.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edged.stt.moonshine.graphs import FRAME_S
from edged.stt.moonshine.vocabulary import Vocabulary

MATCHED_WORDS = 8  # said words that take part in the matching
# What ends so long before the last said word began was passed, however well it would fit; and what
# begins so long behind its end is new, unless it is spelled like one of the last.
PASSED_S = 0.5
TOKENS_PER_S = 6.5  # upstream's bound on how fast people speak
# Mean token probability below which text is invented, and the fewer tokens the more is asked of
# them. Music gave 0.16 to 0.41 over up to 13 tokens. Of speech, long texts had 0.40 and more; short
# ones below the bound were misheard throughout, but for a word in three (224 clips).
_TOKENS, _UNSURE = (8, 20), (0.42, 0.33)
# That much more is asked of it where the voice is in doubt. Ten clips of music and noise, louder
# and softer, faster and slower, at three delays: 82 words invented without it, 31 with 1.0, 21
# with 1.5 (in turns 136, 32 and 22). Of 2962 words of speech it costs one, under a kitchen's noise
# none; 2.0 lost a "four".
_VOICE_UNCERTAINTY_WEIGHT = 1.5
LONGEST_LOOP = 8  # tokens
ATTENTION_LATE_S = 0.03
STOP_FRAMES = 4
ENDED_P = 0.5  # the decoder is this sure that nothing more was said
CLOSE_S = 0.4  # a word that starts this soon after another follows it without a pause


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word of a hypothesis. Seconds count from the segment's start.

    last: index after its last token. probability: of its least certain token.
    """

    text: str
    start_s: float
    stop_s: float
    last: int
    probability: float


def words_of(
    tokens: Sequence[int],
    heard: Sequence[int],
    probability: Sequence[float],
    vocabulary: Vocabulary,
) -> list[HeardWord]:
    """Tokens grouped to words, with times, which are in order.

    Attention peaks 30 ms behind the beginning of a word. A word that is followed closely stops
    where the next one starts; one before a pause stops four frames after its last token was
    heard. (Medians on 68 hand-labelled words: starts off by 25 ms, stops by 33 ms.)
    """
    heard = in_order(heard)
    firsts = [i for i in range(len(tokens)) if i == 0 or vocabulary.starts_word(tokens[i])]
    starts = [max(0.0, heard[i] * FRAME_S - ATTENTION_LATE_S) for i in firsts]
    words = []
    for n, (first, start) in enumerate(zip(firsts, starts, strict=True)):
        last = firsts[n + 1] if n + 1 < len(firsts) else len(tokens)
        text = vocabulary.text(tokens[first:last])
        if not text:
            continue
        stop = (heard[last - 1] + STOP_FRAMES) * FRAME_S
        if n + 1 < len(starts) and starts[n + 1] < stop + CLOSE_S:
            stop = starts[n + 1]
        stop = max(stop, start + FRAME_S)
        words.append(HeardWord(text, start, stop, last, min(probability[first:last])))
    return words


def in_order(heard: Sequence[int]) -> list[int]:
    """Frames at which tokens were heard, as a sequence that never falls.

    Attention now and then rests far from its word, at a pause or at the segment's beginning. The
    longest rising part is believed; a token outside it was heard with the one before it, those in
    front of all with the first that is believed.
    """
    lengths: list[int] = []  # of the longest rising part that ends at each token
    ends: list[int] = []  # the earliest frame at which a rising part of each length ends
    for frame in heard:
        at = bisect_right(ends, frame)
        ends[at : at + 1] = [frame]
        lengths.append(at + 1)
    believed: dict[int, int] = {}
    wanted, limit = len(ends), math.inf
    for i in reversed(range(len(heard))):
        if lengths[i] == wanted and heard[i] <= limit:
            believed[i] = heard[i]
            wanted, limit = wanted - 1, heard[i]
    ordered, frame = [], believed[min(believed)] if believed else 0
    for i in range(len(heard)):
        frame = believed.get(i, frame)
        ordered.append(frame)
    return ordered


def without_loop(tokens: Sequence[int]) -> int:
    """How many of the tokens to believe: where the end is the third repetition (or more) of 1 to
    8 tokens, only up to the end of their first occurrence."""
    end = len(tokens)
    while period := _period(tokens[:end]):
        end -= period
        while tokens[end - period : end] == tokens[end - 2 * period : end - period] != []:
            end -= period
    return end


def _period(tokens: Sequence[int]) -> int:
    """Length of what the end repeats for the third time; 0 if it does not."""
    end = len(tokens)
    for n in range(min(LONGEST_LOOP, end // 3), 0, -1):  # a loop may itself end in a smaller one
        block = list(tokens[end - n :])
        if list(tokens[end - 3 * n :]) == 3 * block:
            return next(d for d in range(1, n + 1) if block[:d] * (n // d) == block)
    return 0


def mean_probability(probabilities: Sequence[float]) -> float:
    """Geometric mean, 0..1; 1.0 of nothing."""
    if not probabilities:
        return 1.0
    return math.exp(math.fsum(math.log(max(p, 1e-9)) for p in probabilities) / len(probabilities))


def low_confidence(probabilities: Sequence[float], voice_uncertainty: float = 0.0) -> bool:
    """Whether text with these token probabilities is rather invented than heard.

    doubt: of the voice (`edged.vad.gate.Gate.doubt`): the text has to be that much surer.
    """
    bound = (
        float(np.interp(len(probabilities), _TOKENS, _UNSURE))
        + _VOICE_UNCERTAINTY_WEIGHT * voice_uncertainty
    )
    return mean_probability(probabilities) < bound


def is_complete(word: HeardWord, tokens: int, p_end: float | None) -> bool:
    """Whether nothing more of it can come: of `tokens` some follow, a mark ends it, or nothing more
    was said (p_end: see `edged.stt.decoder.Hypothesis`)."""
    return word.last < tokens or word.text[-1] in ".,?!" or (p_end is not None and p_end >= ENDED_P)


def token_limit(seconds: float) -> int:
    """The most tokens that `seconds` of speech may have."""
    return max(1, int(seconds * TOKENS_PER_S) + 3)


def first_uncommitted(said: Sequence[HeardWord], words: Sequence[HeardWord]) -> int:
    """Index of the first of `words` that has not been said.

    An edit distance between the last said words and the believed ones, in which a second of
    difference in time weighs half a word; the end that fits best in spelling and time wins.
    """
    if not said:
        return 0
    tail = said[-MATCHED_WORDS:]
    first = next((i for i, w in enumerate(words) if w.stop_s > tail[0].start_s - 1.0), len(words))
    candidates = words[first:]
    spelled = [spelling(w.text) for w in candidates]
    keys = [spelling(w.text) for w in tail]
    row = [0.2 * j for j in range(len(candidates) + 1)]  # a missing beginning is cheap
    for i, (word, key) in enumerate(zip(tail, keys, strict=True)):
        above, row = row, [float(i + 1)]
        for j, candidate in enumerate(candidates):
            other = (key != spelled[j]) + 0.5 * abs(word.start_s - candidate.start_s)
            row.append(min(above[j] + other, row[j] + 1, above[j + 1] + 1))
    end = tail[-1].stop_s
    cost = [c + (abs(candidates[j - 1].stop_s - end) if j else 1.0) for j, c in enumerate(row)]
    passed = tail[-1].start_s - PASSED_S
    behind = next((i for i, w in enumerate(words) if w.stop_s > passed), len(words))
    new = [
        w.start_s > end + PASSED_S and key not in keys
        for w, key in zip(candidates, spelled, strict=True)
    ]
    ahead = first + new.index(True) if True in new else len(words)
    return min(max(first + cost.index(min(cost)), behind), ahead)


def ready(words: Sequence[HeardWord], first: int, old_enough: Callable[[HeardWord], bool]) -> int:
    """Index after the last word, from `first` on, of an unbroken run that is old enough."""
    end = first
    while end < len(words) and old_enough(words[end]):
        end += 1
    return end


def spelling(text: str) -> str:
    """Letters and digits alone, lower case."""
    return re.sub(r"[\W_]+", "", text.lower())
