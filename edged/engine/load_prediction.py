"""Predicts which load level a device needs for a model, by measuring it on a little speech."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged import STEP_S, resources
from edged.audio.files import open_audio
from edged.engine.load_level import LAST_LEVEL, LoadLevel
from edged.engine.session import Session
from edged.errors import EdgedError
from edged.models.loader import Models
from edged.options import Options

MAX_PREDICTED_USE = 0.8  # of a thread's time; less than MAX_USE, for other work is to come
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


def choose(measure: Callable[[LoadLevel], LoadPrediction]) -> LoadPrediction:
    """The first level that fits. Levels that cannot change the outcome are not measured."""
    prediction = measure(LoadLevel.FULL)
    for level in list(LoadLevel)[1:]:
        if prediction.fits:
            return prediction
        too_slow = prediction.recogniser > MAX_PREDICTED_USE
        if level > LoadLevel.GREEDY and too_slow:
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
    background = _TimedExecutor()
    session = Session(models, options, background)
    session.set_load_level(level)
    started = time.perf_counter()
    for frame in frames:
        session.push(frame)
    session.end()
    whole_s = time.perf_counter() - started
    seconds = len(frames) * STEP_S
    recogniser = session.recogniser_busy_s / seconds
    used = background.seconds / seconds
    threads_fit = max(recogniser, used) <= MAX_PREDICTED_USE
    fits = threads_fit and whole_s / seconds <= MAX_PREDICTED_USE * cores
    return LoadPrediction(level, fits, recogniser, used)


class _TimedExecutor(Executor):
    """Runs each job in the caller and adds up the time that it takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        started = time.perf_counter()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        self.seconds += time.perf_counter() - started
        return future


def with_load_level(models: Models, options: Options) -> Models:
    """The models with the load level that this device needs for them; as given if unknown."""
    try:
        return replace(models, load_level=int(predict_load(models, options).level))
    except EdgedError:
        return models
