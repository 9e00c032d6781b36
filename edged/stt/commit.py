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
APOSTROPHES = "'’"
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
            differs = key != spelled[j] and not has_grown(word, candidate)
            other = differs + 0.5 * abs(word.start_s - candidate.start_s)
            row.append(min(above[j] + other, row[j] + 1, above[j + 1] + 1))
    end = tail[-1].stop_s
    last = tail[-1]
    cost = [c + (_end_difference(last, candidates[j - 1]) if j else 1.0) for j, c in enumerate(row)]
    passed = tail[-1].start_s - MAX_TIME_DRIFT_S
    behind = next((i for i, w in enumerate(words) if w.stop_s > passed), len(words))
    new = [
        w.start_s > end + MAX_TIME_DRIFT_S and key not in keys
        for w, key in zip(candidates, spelled, strict=True)
    ]
    ahead = first + new.index(True) if True in new else len(words)
    return min(max(first + cost.index(min(cost)), behind), ahead)


def _end_difference(committed: SegmentWord, word: SegmentWord) -> float:
    """Seconds between the ends of two words, or between their starts if the second has grown."""
    if has_grown(committed, word):
        return abs(committed.start_s - word.start_s)
    return abs(committed.stop_s - word.stop_s)


def has_grown(committed: SegmentWord, word: SegmentWord) -> bool:
    """Whether a committed word has turned out to be the beginning of this longer one."""
    short, long = normalised(committed.text), normalised(word.text)
    shared_s = min(committed.stop_s, word.stop_s) - max(committed.start_s, word.start_s)
    together = shared_s >= 0.5 * (committed.stop_s - committed.start_s)
    return together and bool(short) and long != short and long.startswith(short)


def remainder(committed: SegmentWord, word: SegmentWord) -> SegmentWord | None:
    """The rest of a word that has grown (`has_grown`), as a word of its own.

    "2026" behind "20" gives "26", "5.30pm" behind "5.30" gives "pm", "twenty-three" behind "twenty"
    gives "three". None where the rest is no word ("some" of "something", "I" of "I'm"): what was
    committed cannot be revised.
    """
    length = len(normalised(committed.text))
    at = next(i for i in range(len(word.text)) if len(normalised(word.text[: i + 1])) == length) + 1
    before, rest = word.text[at - 1], word.text[at:]
    if rest[0] in APOSTROPHES or (before.isalpha() and rest[0].isalpha()):
        return None
    text = rest.lstrip("-–.,:/")
    start = min(max(committed.stop_s, word.start_s), word.stop_s)
    return SegmentWord(text, start, word.stop_s, word.end_token, word.probability)


def commit_prefix_length(
    words: Sequence[SegmentWord], may_commit: Callable[[SegmentWord], bool]
) -> int:
    """How many of the words may be committed: up to the first one that may not."""
    return next((i for i, word in enumerate(words) if not may_commit(word)), len(words))
