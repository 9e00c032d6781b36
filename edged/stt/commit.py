"""Which words of a decoded text may be committed, and which have been already. Pure functions.

Committed words are never revised, but the text around them may be: a wrong early word must not
drag the rest of the text with it. So the committed words are aligned with the newly decoded ones,
by spelling and by time, to find where to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edged.stt.words import SegmentWord, normalised

MATCHED_WORDS = 8  # committed words that take part in the alignment
# A decoded word that stops this long before the last committed word starts was committed, however
# well it would fit; one that starts this long behind its end is new, unless it is spelled like one
# of the last committed words.
MAX_TIME_DRIFT_S = 0.5
EOS_P = 0.5  # probability of the end of the text from which a last word counts as complete


def is_complete(word: SegmentWord, tokens: int, p_eos: float | None) -> bool:
    """Whether no further token can belong to the word.

    tokens: how many the decoded text has. p_eos: see `edged.stt.decoder.DecodedText`. A word is
    complete if tokens follow it, if it ends with a punctuation mark, or if the text ends with it.
    """
    if word.end_token < tokens or word.text[-1] in ".,?!":
        return True
    return p_eos is not None and p_eos >= EOS_P


def first_uncommitted(committed: Sequence[SegmentWord], words: Sequence[SegmentWord]) -> int:
    """Index of the first of `words` that has not been committed.

    An edit distance between the last committed words and the decoded ones, in which a second of
    difference in time costs half a word; the end that fits best in spelling and time wins.
    """
    if not committed:
        return 0
    tail = committed[-MATCHED_WORDS:]
    first = next((i for i, w in enumerate(words) if w.stop_s > tail[0].start_s - 1.0), len(words))
    candidates = words[first:]
    spelled = [normalised(w.text) for w in candidates]
    keys = [normalised(w.text) for w in tail]
    row = [0.2 * j for j in range(len(candidates) + 1)]  # a missing beginning is cheap
    for i, (word, key) in enumerate(zip(tail, keys, strict=True)):
        above, row = row, [float(i + 1)]
        for j, candidate in enumerate(candidates):
            other = (key != spelled[j]) + 0.5 * abs(word.start_s - candidate.start_s)
            row.append(min(above[j] + other, row[j] + 1, above[j + 1] + 1))
    end = tail[-1].stop_s
    cost = [c + (abs(candidates[j - 1].stop_s - end) if j else 1.0) for j, c in enumerate(row)]
    passed = tail[-1].start_s - MAX_TIME_DRIFT_S
    behind = next((i for i, w in enumerate(words) if w.stop_s > passed), len(words))
    new = [
        w.start_s > end + MAX_TIME_DRIFT_S and key not in keys
        for w, key in zip(candidates, spelled, strict=True)
    ]
    ahead = first + new.index(True) if True in new else len(words)
    return min(max(first + cost.index(min(cost)), behind), ahead)


def commit_prefix_length(
    words: Sequence[SegmentWord], first: int, may_commit: Callable[[SegmentWord], bool]
) -> int:
    """Index behind the last word of the unbroken run from `first` on that may be committed."""
    end = first
    while end < len(words) and may_commit(words[end]):
        end += 1
    return end
