"""Is the first word of an utterance whole, when another ended 200 ms before?

Utterances whose first word begins with a plosive, the hardest onset to catch, are strung
together 200 ms apart. A first word is whole if the string's `turn` has it, by sound ("too" is
"two"); else it was heard as another word, or lost. Words that the recogniser gets wrong even with
a long silence in front are left out: they say nothing of onsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.bench import wer
from edged.bench.manifest import read_manifest
from edged.bench.turn_evidence import listener
from edged.bench.turn_material import Audio, Listen, load_audio
from edged.engine.session import Session
from edged.events import Event, Turn
from edged.models.loader import Models

PLOSIVES = tuple("bdgkpqt")
SOFT_C = ("ce", "ci", "cy", "ch")
APART_S = 0.2
LONGEST_S = 6.0  # utterances of more are no commands
IN_A_STRING = 4
SAME_SOUND = {"two": "to", "too": "to", "four": "for", "by": "buy", "bye": "buy"}


@dataclass(frozen=True, slots=True)
class Onsets:
    """`whole` of `tried` first words; `lost` were not heard as another word either."""

    tried: int
    whole: int
    lost: int


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
    tried = whole = lost = 0
    for start in range(0, len(utterances) - 1, IN_A_STRING):
        string = utterances[start : start + IN_A_STRING]
        tried += len(string)
        heard = _heard(models, [audio for _, audio in string])
        there, gone = compared([clip.text or "" for clip, _ in string], heard)
        whole, lost = whole + there, lost + gone
    return Onsets(tried, whole, lost)


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


def compared(texts: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """How many of the texts' first words are in their place among the words heard, and how many
    have no word in their place."""
    said: list[str] = []
    firsts = set()
    for text in texts:
        firsts.add(len(said))
        said += _sounds(wer.words(text))
    sounds = _sounds(heard)
    place = {a: b for a, b in wer.align(said, sounds) if a in firsts}
    whole = sum(b is not None and said[a] == sounds[b] for a, b in place.items() if a is not None)
    return whole, sum(b is None for b in place.values())


def _sounds(words: Sequence[str]) -> list[str]:
    return [SAME_SOUND.get(word, word) for word in words]
