"""Measures whether the first word of an utterance is complete when another ended 200 ms before.

Utterances whose first word begins with a plosive, the hardest onset to detect, are joined with
gaps of 200 ms. A first word is whole if the `turn` of the joined audio has it, by sound ("too" is
"two"); otherwise it was recognised as another word, or lost. Words that the recogniser gets wrong
after a long silence too are left out, because they say nothing about onsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged import SAMPLE_RATE, STEP_SAMPLES
from edged.bench import wer
from edged.bench.manifest import read_manifest
from edged.engine.session import Session
from edged.events import Event, Turn
from edged.models.loader import Models
from models.turn.evidence import speech_finder
from models.turn.material import Audio, FindSpeech, load_audio

PLOSIVES = tuple("bdgkpqt")
SOFT_C = ("ce", "ci", "cy", "ch")
GAP_S = 0.2
LONGEST_S = 6.0  # longer utterances are not commands
GROUP_SIZE = 4  # utterances in one stream
SAME_SOUND = {"two": "to", "too": "to", "four": "for", "by": "buy", "bye": "buy"}


@dataclass(frozen=True, slots=True)
class FirstWords:
    """Of `tried` first words `whole` were right, and `lost` not even recognised as another word."""

    tried: int
    whole: int
    lost: int


def measure(models: Models, manifest: Path) -> FirstWords:
    """Measures on the clips of a manifest. Raises ConfigError, InputError."""
    listen = speech_finder(models)
    utterances = []
    for clip in read_manifest(manifest):
        if clip.text is not None and begins_with_plosive(clip.text):
            audio = _trimmed(load_audio(clip.file), listen)
            first = wer.words(clip.text)[0]
            if 0 < len(audio) < LONGEST_S * SAMPLE_RATE and _heard(models, [audio])[:1] == [first]:
                utterances.append((clip, audio))
    tried = whole = lost = 0
    for start in range(0, len(utterances) - 1, GROUP_SIZE):
        group = utterances[start : start + GROUP_SIZE]
        tried += len(group)
        heard = _heard(models, [audio for _, audio in group])
        found, missing = count_first_words([clip.text or "" for clip, _ in group], heard)
        whole, lost = whole + found, lost + missing
    return FirstWords(tried, whole, lost)


def begins_with_plosive(text: str) -> bool:
    """Whether the first word begins with a plosive, judged by spelling; a hard c counts."""
    word = (wer.words(text) or [""])[0]
    hard_c = word.startswith("c") and not word.startswith(SOFT_C)
    return (word.startswith(PLOSIVES) and not word.startswith("kn")) or hard_c


def _trimmed(audio: Audio, listen: FindSpeech) -> Audio:
    """Removes the silence around the speech."""
    spans = listen(audio)
    if not spans:
        return audio[:0]
    start, stop = max(0.0, spans[0][0] - 0.05), spans[-1][1] + 0.05
    return audio[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]


def _heard(models: Models, utterances: Sequence[Audio]) -> list[str]:
    """Returns the words of all turns of the utterances, joined with gaps of GAP_S."""
    rest = np.zeros(2 * SAMPLE_RATE, np.int16)
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), np.int16)
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


def count_first_words(texts: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """Returns how many of the texts' first words were recognised, and how many were lost."""
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
