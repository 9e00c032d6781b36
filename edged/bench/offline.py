"""Recognises whole recordings at once: the best that the same weights can do without streaming."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.bench.manifest import Clip
from edged.bench.measure import frames
from edged.models.loader import Models
from edged.stt.second_pass import transcribe

Samples: TypeAlias = NDArray[np.float32]

RATE = 16_000
LONGEST_S = 20  # the model was trained for up to this; longer clips are cut where it is quietest
CUT_FROM_S = 10
QUIET_S = 0.1


@dataclass(frozen=True, slots=True)
class OfflineResult:
    """Texts of the clips; durations in seconds."""

    texts: list[str]
    audio_s: float
    cpu_s: float


def measure_offline(models: Models, clips: Sequence[Clip]) -> OfflineResult:
    """Recognises each clip as a whole. Raises InputError for a clip that cannot be read."""
    texts: list[str] = []
    audio_s = 0.0
    started = time.process_time()
    for clip in clips:
        samples = _audio(clip.file)
        audio_s += len(samples) / RATE
        language = clip.language or models.languages[0]
        parts = [transcribe(models.recogniser, piece, language) for piece in pieces(samples)]
        texts.append(" ".join(word.text for part in parts for word in part.words))
    return OfflineResult(texts, audio_s, time.process_time() - started)


def pieces(samples: Samples) -> Iterator[Samples]:
    """Yields the samples (float32[n], 16 kHz) in parts of at most LONGEST_S."""
    while len(samples) > LONGEST_S * RATE:
        cut = CUT_FROM_S * RATE + _quietest(samples[CUT_FROM_S * RATE : LONGEST_S * RATE])
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


def _quietest(samples: Samples) -> int:
    """Returns the index of the middle of the quietest QUIET_S."""
    width = int(QUIET_S * RATE)
    power = np.square(samples[: len(samples) // width * width]).reshape(-1, width).sum(axis=1)
    return int(power.argmin()) * width + width // 2


def _audio(file: Path) -> Samples:
    whole = np.concatenate([np.empty(0, np.int16), *frames(file)])
    scaled = whole.astype(np.float32) / np.float32(2**15)
    return np.asarray(soxr.resample(scaled, SAMPLE_RATE, RATE), np.float32)
