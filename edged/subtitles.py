"""Makes subtitle cues from timed words, and SubRip (srt) or WebVTT (vtt) text from cues.

The limits are those of common subtitling guides: two lines of 42 characters, at most 7 s.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edged.events import Word

LINE_CHARS = 42
MAX_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0  # shorter cues stay on the screen this long if no other cue follows sooner
PAUSE_S = 1.0  # a longer silence ends a cue
SENTENCE_ENDS = (".", "?", "!", "…")

VTT_HEADER = "WEBVTT\n\n"


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are shown from start_s to stop_s (seconds)."""

    start_s: float
    stop_s: float
    lines: tuple[str, ...]


def cues(words: Iterable[Word], after_s: float = 0.0) -> Iterator[Cue]:
    """Yields the cues of one turn, in order and without overlap; none starts before `after_s`."""
    groups = list(_groups(words))
    starts = [group[0].start_s for group in groups]
    for group, start, following in zip(groups, starts, [*starts, math.inf][1:], strict=True):
        start = max(start, after_s)
        stop = min(max(group[-1].stop_s, start + MIN_CUE_S), start + MAX_CUE_S, following)
        after_s = max(stop, start + 0.001)
        yield Cue(start, after_s, _lines([word.text for word in group]))


def srt(cue: Cue, number: int) -> str:
    """Formats a cue for SubRip; `number` counts from 1."""
    span = f"{_clock(cue.start_s, ',')} --> {_clock(cue.stop_s, ',')}"
    return "\n".join([str(number), span, *cue.lines]) + "\n\n"


def vtt(cue: Cue) -> str:
    """Formats a cue for WebVTT; escapes the three characters that WebVTT reads as markup."""
    span = f"{_clock(cue.start_s, '.')} --> {_clock(cue.stop_s, '.')}"
    return "\n".join([span, *map(_escape, cue.lines)]) + "\n\n"


def _groups(words: Iterable[Word]) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group and _breaks(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _breaks(group: Sequence[Word], word: Word) -> bool:
    """Whether `word` starts a new cue."""
    if word.start_s - group[-1].stop_s > PAUSE_S or word.stop_s - group[0].start_s > MAX_CUE_S:
        return True
    texts = [w.text for w in group]
    if len(_wrap([*texts, word.text])) > MAX_LINES:
        return True
    # Prefer to break after a sentence once a line is full.
    return texts[-1].endswith(SENTENCE_ENDS) and len(" ".join(texts)) >= LINE_CHARS


def _wrap(texts: Sequence[str], width: int = LINE_CHARS) -> list[str]:
    return textwrap.wrap(" ".join(texts), width, break_on_hyphens=False)


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    """Wraps to as few lines as possible, of lengths as even as possible."""
    fewest = _wrap(texts)
    for width in range(max(LINE_CHARS // 2, *map(len, texts)), LINE_CHARS):
        lines = _wrap(texts, width)
        if len(lines) <= len(fewest):
            return tuple(lines)
    return tuple(fewest)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(max(0.0, seconds) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _escape(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
