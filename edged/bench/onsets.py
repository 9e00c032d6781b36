"""Is the first word of an utterance whole, when another ended 200 ms before?

Utterances whose first word begins with a plosive, the hardest onset to catch, are strung
together 200 ms apart. A first word is whole if the string's `turn` has it. Words that the
recogniser gets wrong even with a long silence in front are left out: they say nothing of onsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.bench import wer
from edged.bench.manifest import Clip, read_manifest
from edged.bench.turn_evidence import listener
from edged.bench.turn_material import Audio, Listen, load_audio
from edged.events import Event, Turn
from edged.models.loader import Models
from edged.session import Session

PLOSIVES = tuple("bdgkpqt")
SOFT_C = ("ce", "ci", "cy", "ch")
APART_S = 0.2
LONGEST_S = 6.0  # utterances of more are no commands
IN_A_STRING = 4


@dataclass(frozen=True, slots=True)
class Onsets:
    """`whole` of `tried` first words."""

    tried: int
    whole: int


def measure(models: Models, manifest: Path) -> Onsets:
    """Raises ConfigError, InputError."""
    listen = listener(models)
    utterances = []
    for clip in read_manifest(manifest):
        if clip.text is not None and begins_with_plosive(clip.text):
            audio = _trimmed(load_audio(clip.file), listen)
            first = wer.words(clip.text)[0]
            if 0 < len(audio) < LONGEST_S * SAMPLE_RATE and _heard(models, [audio])[:1] == [first]:
                utterances.append((clip, audio))
    tried = whole = 0
    for start in range(0, len(utterances) - 1, IN_A_STRING):
        string = utterances[start : start + IN_A_STRING]
        tried += len(string)
        whole += _whole([clip for clip, _ in string], _heard(models, [a for _, a in string]))
    return Onsets(tried, whole)


def begins_with_plosive(text: str) -> bool:
    """By spelling: a hard c is one, too."""
    word = (wer.words(text) or [""])[0]
    hard_c = word.startswith("c") and not word.startswith(SOFT_C)
    return (word.startswith(PLOSIVES) and not word.startswith("kn")) or hard_c


def _trimmed(audio: Audio, listen: Listen) -> Audio:
    """Without the silence around the speech."""
    spans = listen(audio)
    if not spans:
        return audio[:0]
    start, stop = max(0.0, spans[0][0] - 0.05), spans[-1][1] + 0.05
    return audio[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]


def _heard(models: Models, utterances: Sequence[Audio]) -> list[str]:
    """The words of the turns of utterances APART_S apart, with silence around."""
    rest = np.zeros(2 * SAMPLE_RATE, np.int16)
    gap = np.zeros(round(APART_S * SAMPLE_RATE), np.int16)
    parts = [rest]
    for utterance in utterances:
        parts += [utterance, gap]
    x = np.concatenate([*parts, rest])
    session = Session(models)
    events: list[Event] = []
    for start in range(0, len(x) - STEP_SAMPLES + 1, STEP_SAMPLES):
        events += session.push(x[start : start + STEP_SAMPLES])
    events += session.end()
    return wer.words(" ".join(e.text for e in events if isinstance(e, Turn)))


def _whole(clips: Sequence[Clip], heard: Sequence[str]) -> int:
    """How many of the clips' first words are in their place among the words heard."""
    said: list[str] = []
    firsts = set()
    for clip in clips:
        firsts.add(len(said))
        said += wer.words(clip.text or "")
    pairs = wer.align(said, heard)
    return sum(
        a in firsts and b is not None and said[a] == heard[b] for a, b in pairs if a is not None
    )
