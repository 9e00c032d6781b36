"""Word errors of the same clips, captured in several sample formats.

The control is the same 24 kHz mono, shifted by a sample, which changes the result as well.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.audio.converter import Converter
from edged.audio.files import open_audio
from edged.audio.pcm import SAMPLE_FORMATS
from edged.bench import wer
from edged.bench.manifest import read_manifest
from edged.engine.session import Session
from edged.events import Text, Turn
from edged.models.loader import Models, load
from edged.models.samples import samples

Samples = NDArray[np.int16]
CARDS = ((48_000, 2, "S16_LE"), (44_100, 2, "S32_LE"), (16_000, 1, "S16_LE"))
PAUSE = np.zeros(SAMPLE_RATE, np.int16)
MOST = 40  # clips


def clips(manifest: Path | None) -> list[tuple[Path, str]]:
    if manifest is None:
        return [(s.path, s.text) for s in samples()]
    found = [(c.file, c.text) for c in read_manifest(manifest) if c.text]
    return found[:: max(1, len(found) // MOST)]


def by_card(audio: Samples, rate: int, channels: int, form: str) -> Samples:
    """What edged makes of it, had such a card heard it, a period at a time."""
    wide = soxr.resample(audio.astype(np.float32), SAMPLE_RATE, rate, quality="VHQ")
    wide = np.repeat(np.clip(np.rint(wide), -32768, 32767), channels)
    data = (wide.astype("<i4") << 16 if form == "S32_LE" else wide.astype("<i2")).tobytes()
    converter = Converter(rate, channels, form)
    period = round(rate * STEP_S) * channels * SAMPLE_FORMATS[form].width
    parts = [converter.push(data[at : at + period]) for at in range(0, len(data), period)]
    return np.concatenate([*parts, converter.flush()])


def words(models: Models, audio: Samples) -> tuple[str, str]:
    """Its texts and its turns."""
    session = Session(models)
    whole = np.pad(audio, (0, -len(audio) % STEP_SAMPLES)).reshape(-1, STEP_SAMPLES)
    events = [event for frame in whole for event in session.push(frame)] + session.end()
    kinds = (Text, Turn)
    texts, turns = (" ".join(e.text for e in events if isinstance(e, k)) for k in kinds)
    return texts, turns


def formats(manifest: Path | None) -> None:
    models = load()
    names = ["24 kHz mono", "shifted by a sample"] + [f"{r} Hz, {c}, {f}" for r, c, f in CARDS]
    sums = {name: [wer.Errors(), wer.Errors(), wer.Errors()] for name in names}
    for path, text in clips(manifest):
        with contextlib.closing(open_audio(str(path))) as source:
            audio = np.concatenate([*source.frames(), PAUSE])
        heard = [words(models, audio), words(models, np.append(audio[1:], np.int16(0)))]
        heard += [words(models, by_card(audio, *card)) for card in CARDS]
        for name, (texts, turns) in zip(names, heard, strict=True):
            found = [wer.errors(text, texts), wer.errors(text, turns)]
            found.append(wer.errors(heard[0][0], texts))
            sums[name] = [a + b for a, b in zip(sums[name], found, strict=True)]
    print(f"formats: {sums[names[0]][0].reference_words} words")
    for name, (in_texts, in_turns, other) in sums.items():
        print(
            f"  {name:20} {in_texts.rate:.1%} of `text` wrong, {in_turns.rate:.1%} of `turn`; "
            f"{other.rate:.1%} other words than 24 kHz mono"
        )
