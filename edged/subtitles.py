"""Makes subtitle cues from timed words, and SubRip (srt) or WebVTT (vtt) text from cues.

The limits are those of common subtitling guides: two lines of 42 characters (21 of languages
without spaces, whose characters are twice as wide), at most 7 s.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edged.events import Word
from edged.languages import RIGHT_TO_LEFT, WITHOUT_SPACES, word_separator

LINE_CHARS = 42
WIDE_LINE_CHARS = 21
MAX_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0  # shorter cues stay on the screen this long if no other cue follows sooner
PAUSE_S = 1.0  # a longer silence ends a cue
SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "؟", "۔", "।")
# Around a line that is written from right to left. Without them a player that takes the line to be
# one from left to right shows its full stop, and numbers at its ends, on the wrong side.
RTL_EMBEDDING, END_EMBEDDING = "\u202b", "\u202c"

VTT_HEADER = "WEBVTT\n\n"


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are shown from start_s to stop_s (seconds)."""

    start_s: float
    stop_s: float
    lines: tuple[str, ...]


def cues(words: Iterable[Word], after_s: float = 0.0, language: str = "en") -> Iterator[Cue]:
    """Yields the cues of one turn, in order and without overlap; none starts before `after_s`.

    language: the code of the language that the words are in.
    """
    groups = list(_groups(words, language))
    starts = [group[0].start_s for group in groups]
    for group, start, following in zip(groups, starts, [*starts, math.inf][1:], strict=True):
        start = max(start, after_s)
        stop = min(max(group[-1].stop_s, start + MIN_CUE_S), start + MAX_CUE_S, following)
        after_s = max(stop, start + 0.001)
        lines = _lines([word.text for word in group], language)
        if language in RIGHT_TO_LEFT:
            lines = tuple(f"{RTL_EMBEDDING}{line}{END_EMBEDDING}" for line in lines)
        yield Cue(start, after_s, lines)


def srt(cue: Cue, number: int) -> str:
    """Formats a cue for SubRip; `number` counts from 1."""
    span = f"{_clock(cue.start_s, ',')} --> {_clock(cue.stop_s, ',')}"
    return "\n".join([str(number), span, *cue.lines]) + "\n\n"


def vtt(cue: Cue) -> str:
    """Formats a cue for WebVTT; escapes the three characters that WebVTT reads as markup."""
    span = f"{_clock(cue.start_s, '.')} --> {_clock(cue.stop_s, '.')}"
    return "\n".join([span, *map(_escape, cue.lines)]) + "\n\n"


def _groups(words: Iterable[Word], language: str) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group and _breaks(group, word, language):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _breaks(group: Sequence[Word], word: Word, language: str) -> bool:
    """Whether `word` starts a new cue."""
    if word.start_s - group[-1].stop_s > PAUSE_S or word.stop_s - group[0].start_s > MAX_CUE_S:
        return True
    texts = [w.text for w in group]
    if len(_wrap([*texts, word.text], language)) > MAX_LINES:
        return True
    # Prefer to break after a sentence once a line is full.
    length = len(word_separator(language).join(texts))
    return texts[-1].endswith(SENTENCE_ENDS) and length >= _line_chars(language)


def _line_chars(language: str) -> int:
    return WIDE_LINE_CHARS if language in WITHOUT_SPACES else LINE_CHARS


def _wrap(texts: Sequence[str], language: str, width: int | None = None) -> list[str]:
    width = width or _line_chars(language)
    if language not in WITHOUT_SPACES:
        return textwrap.wrap(" ".join(texts), width, break_on_hyphens=False)
    lines = [""]
    for text in texts:
        if lines[-1] and len(lines[-1]) + len(text) > width:
            lines.append("")
        lines[-1] += text
    return [part for line in lines for part in textwrap.wrap(line, width)]


def _lines(texts: Sequence[str], language: str) -> tuple[str, ...]:
    """Wraps to as few lines as possible, of lengths as even as possible."""
    fewest, longest = _wrap(texts, language), _line_chars(language)
    for width in range(max(longest // 2, *map(len, texts)), longest):
        lines = _wrap(texts, language, width)
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
