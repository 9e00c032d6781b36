"""Reads the list of recordings to measure: a JSON object a line.

Required fields: `id`, `file` (relative to the manifest). Optional ones:
`text`: what is said; scored unless `text_exact` is false.
`kind`: read, noisy, noise, music, ...
`condition`: a string or list of strings, such as a room and a distance; each is reported apart.
`word_times`: [[word, start_s, end_s], ...]; used unless `word_times_source` lacks "hand".
`language`: code of the language that is spoken.
`slots`: words that must appear.
`dup_of`: id of the same recording in another form; such an entry is skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.audio.files import open_audio
from edged.errors import ConfigError
from edged.models.samples import samples

NO_SPEECH = ("noise", "music")  # kinds without speech, where every word is an error


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording.

    text: what is said; None if it is not known exactly.
    word_times: (word, start_s, stop_s), only if labelled by hand.
    slot_words: words that must appear in the text.
    conditions: the groups for which figures are reported, besides `kind`.
    language: what it is recognised in; None for the language of the run.
    text_language: what `text` is in, which decides how it is compared.
    """

    id: str
    file: Path
    text: str | None = None
    kind: str = "speech"
    word_times: tuple[tuple[str, float, float], ...] = ()
    slot_words: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    language: str | None = None
    text_language: str | None = None


def read_manifest(path: Path) -> list[Clip]:
    """Reads a manifest. Raises ConfigError that names the wrong line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"the manifest {path} cannot be read: {problem}") from problem
    clips = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not entry.get("dup_of"):
                clips.append(_clip(entry, path.parent))
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise ConfigError(
                f"line {number} of the manifest {path} is not a recording with `id` and `file`: "
                f"{problem!r}"
            ) from problem
    if not clips:
        raise ConfigError(f"the manifest {path} lists no recordings")
    return clips


def sample_clips() -> list[Clip]:
    """Returns the sample speech that comes with edged. Raises ModelError if it is missing."""
    return [Clip(sample.path.stem, sample.path, sample.text, "read") for sample in samples()]


def choose(clips: Sequence[Clip], count: int | None) -> list[Clip]:
    """Returns `count` clips, evenly spread over the list; all for None."""
    if count is None or count >= len(clips):
        return list(clips)
    return [clips[at * len(clips) // count] for at in range(count)]


def within(clips: Sequence[Clip], minutes: float | None) -> list[Clip]:
    """Returns the first clips that last no longer than `minutes` in all, at least one.

    minutes: None for all clips.
    Raises InputError for a file that is not audio.
    """
    kept: list[Clip] = []
    left_s = math.inf if minutes is None else minutes * 60
    for clip in clips:
        left_s -= clip_duration_s(clip)
        if kept and left_s < 0:
            break
        kept.append(clip)
    return kept


def clip_duration_s(clip: Clip) -> float:
    """Returns the duration in seconds from the file's header, 0 if unknown. Raises InputError."""
    with closing(open_audio(str(clip.file))) as source:
        return source.duration_s or 0.0


def _clip(entry: Mapping[str, Any], folder: Path) -> Clip:
    by_hand = "hand" in (entry.get("word_times_source") or "hand")
    times = entry.get("word_times") or [] if by_hand else []
    slots = entry.get("slots") or {}
    condition = entry.get("condition") or []
    return Clip(
        str(entry["id"]),
        folder / str(entry["file"]),
        entry.get("text") if entry.get("text_exact", True) else None,
        str(entry.get("kind") or "speech"),
        tuple((str(word), float(start), float(stop)) for word, start, stop in times),
        tuple(word for value in slots.values() for word in str(value).split()),
        tuple(map(str, [condition] if isinstance(condition, str) else condition)),
        entry.get("language"),
        entry.get("language"),
    )
