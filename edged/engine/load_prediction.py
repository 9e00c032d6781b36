"""Predicts which load level a device needs for a model, by measuring it on a little speech."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edged import STEP_S, resources
from edged.audio.files import open_audio
from edged.engine.background_worker import InlineExecutor
from edged.engine.load_level import LAST_LEVEL, LoadLevel
from edged.engine.session import Session
from edged.errors import EdgedError
from edged.models.loader import Models
from edged.options import Options
from edged.ortsession import slowdown

MAX_PREDICTED_USE = 0.8  # of a thread's time; less than MAX_USE, for other work is to come
# Of a second of work for a second of speech: above it, turns would wait too long for the second
# opinion. 0.4 is two seconds for a sentence of five.
MAX_OPINION_USE = 0.4
CLIP = "4-shopping-list.flac"
CLIP_S = 4.0  # seconds of it that are measured
WARM_UP_STEPS = 15  # the first runs of each graph are slower

Frames = Sequence[NDArray[np.int16]]


@dataclass(frozen=True, slots=True)
class LoadPrediction:
    """What a device can do.

    level: the level at which the model keeps up, or the last one. fits: whether it keeps up there.
    recogniser, background: seconds of work of the two threads for a second of speech at that level.
    """

    level: LoadLevel
    fits: bool
    recogniser: float
    background: float


def predict_load(
    models: Models, options: Options | None = None, frames: Frames | None = None
) -> LoadPrediction:
    """Measures a model on this device, level by level, until it keeps up.

    frames: speech, int16[1920] each at 24 kHz; by default a sample that comes with edged. Takes
    about as long as the device needs to recognise 4 s of speech, for each level that is tried.
    Raises EdgedError if the sample cannot be read.
    """
    frames = sample_frames() if frames is None else frames
    options = options or Options()
    cores = os.cpu_count() or 1

    def measure(level: LoadLevel, steps: Frames = frames) -> LoadPrediction:
        return _measured(models, options, level, steps, cores)

    measure(LoadLevel.FULL, frames[:WARM_UP_STEPS])
    return choose(measure)


def measure_full(models: Models, options: Options) -> LoadPrediction:
    """Measures a model at the first level only. Raises EdgedError if the sample cannot be read."""
    frames, cores = sample_frames(), os.cpu_count() or 1
    _measured(models, options, LoadLevel.FULL, frames[:WARM_UP_STEPS], cores)
    return _measured(models, options, LoadLevel.FULL, frames, cores)


def choose(measure: Callable[[LoadLevel], LoadPrediction]) -> LoadPrediction:
    """The first level that fits. Levels that cannot change the outcome are not measured."""
    prediction = measure(LoadLevel.FULL)
    for level in list(LoadLevel)[1:]:
        if prediction.fits:
            return prediction
        use = prediction.recogniser
        if level < LoadLevel.GREEDY and use > 2 * MAX_PREDICTED_USE:
            continue  # one hypothesis is needed at least
        if level > LoadLevel.GREEDY and use > MAX_PREDICTED_USE:
            break  # the levels behind it relieve only the background
        prediction = measure(level)
    if prediction.fits:
        return prediction
    return LoadPrediction(LAST_LEVEL, False, prediction.recogniser, prediction.background)


def sample_frames() -> Frames:
    """The speech that is measured on by default. Raises EdgedError if it cannot be read."""
    path = resources.sample_speech() / CLIP
    with contextlib.closing(open_audio(str(path))) as source:
        return list(islice(source.frames(), round(CLIP_S / STEP_S)))


def _measured(
    models: Models, options: Options, level: LoadLevel, frames: Frames, cores: int
) -> LoadPrediction:
    background, recogniser, whole = _Stopwatch(), _Stopwatch(), _Stopwatch()
    session = Session(
        models,
        options,
        _TimedExecutor(background),
        recogniser_executor=_TimedExecutor(recogniser),
    )
    session.set_load_level(level)
    with whole:
        for frame in frames:
            session.push(frame)
        session.end()
    seconds = len(frames) * STEP_S
    use = [watch.seconds / seconds for watch in (recogniser, background, whole)]
    fits = max(use[:2]) <= MAX_PREDICTED_USE and use[2] <= MAX_PREDICTED_USE * cores
    return LoadPrediction(level, fits, use[0], use[1])


class _Stopwatch:
    """Adds up the time that this device needs for what runs in its `with` blocks.

    That is wall time, or CPU time where that is less: other programs, of which there are many while
    a device starts, do not make it slower for good.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = (0.0, 0.0)

    def __enter__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._started
        # models that are slowed down sleep
        cpu_s = (time.process_time() - cpu) * slowdown()
        self.seconds += min(time.perf_counter() - wall, cpu_s)


class _TimedExecutor(InlineExecutor):
    """Runs each job in the caller and measures it."""

    def __init__(self, watch: _Stopwatch) -> None:
        self._watch = watch

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        with self._watch:
            return super().submit(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


def without_slow_opinion(models: Models, options: Options) -> Models:
    """The models without the second opinion if it does not fit beside the rest on this device, or
    if turns would wait for it too long."""
    if models.second_opinion is None:
        return models
    try:
        found = measure_full(models, options)
    except EdgedError:
        return models
    if found.fits and found.background <= MAX_OPINION_USE:
        return models
    return replace(models, second_opinion=None)


def with_load_level(models: Models, options: Options) -> Models:
    """The models with the load level that this device needs for them; as given if unknown."""
    try:
        return replace(models, load_level=int(predict_load(models, options).level))
    except EdgedError:
        return models
