"""Checks whether the models are installed and whether this machine is fast enough for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from edged import STEP_S, resources
from edged.audio.files import open_audio
from edged.audio.source import Frame
from edged.config.model_choice import choice_of
from edged.config.settings import Settings
from edged.doctor.finding import Finding, Verdict
from edged.engine.load_level import LAST_LEVEL, LoadLevel
from edged.engine.load_prediction import LoadPrediction, predict_load
from edged.engine.session import Session
from edged.errors import EdgedError, ModelError
from edged.events import Text
from edged.languages import described
from edged.models.choice import installed_models
from edged.models.loader import Models, load
from edged.models.sample_check import check_samples
from edged.options import Options

Predict: TypeAlias = Callable[[Models], LoadPrediction]
Recognise: TypeAlias = Callable[[Models, Options, list[Frame]], tuple[int, float]]

CLIP_S = 5.0  # seconds of speech
GOOD_RTF = 0.5  # above this, other work on the machine delays the recognition
WORST_RTF = 0.9  # above this, live speech is too fast for the machine


def check_models(settings: Settings) -> tuple[Models | None, list[Finding]]:
    """Loads the models. Returns None instead if they cannot be loaded, and the findings."""
    try:
        name = choice_of(settings).entry.name
        models = load(settings.models_dir, name, settings.threads)
    except ModelError as problem:
        remedy = problem.remedy or "Run `edged models list` to see what is installed."
        return None, [Finding("fail", "models", problem.message, remedy)]
    languages = _languages(models.languages)
    message = f"{models.name} ({models.hash}, {languages}) is complete"
    findings = [Finding("ok", "models", message)]
    if models.missing:
        text = f"{', '.join(models.missing)} is missing, so that turns end by silence alone"
        findings.append(Finding("warn", "models", text, "Run `edged models fetch`."))
    return models, findings


def check_speed(
    models: Models, options: Options, clip: Path | None = None, run: Recognise | None = None
) -> list[Finding]:
    """Measures the real-time factor (seconds of work per second of audio) on 5 s of speech.

    clip: the recording; by default one of the sample speech.
    run: recognises the frames and returns the number of words and the real-time factor.
    """
    clip = clip or resources.sample_speech() / "4-shopping-list.flac"
    try:
        with contextlib.closing(open_audio(str(clip))) as source:
            frames = list(islice(source.frames(), round(CLIP_S / STEP_S)))
    except EdgedError as problem:
        return [Finding("warn", "speed", f"not measured: {problem.message}", problem.remedy)]
    words, rtf = (run or recognise)(models, options, frames)
    text = f"real-time factor {rtf:.2f} ({CLIP_S:g} s of speech in {rtf * CLIP_S:.1f} s)"
    if words == 0:
        remedy = "Run `edged models verify`."
        return [Finding("fail", "speed", f"{text}, but no word was recognised", remedy)]
    if rtf > WORST_RTF:
        remedy = "Stop other programs, set EDGED_THREADS=2, or use a faster board."
        return [Finding("fail", "speed", f"{text} is too slow for live speech", remedy)]
    if rtf > GOOD_RTF:
        return [Finding("warn", "speed", text, "Stop other programs, or set EDGED_THREADS=2.")]
    return [Finding("ok", "speed", text)]


def check_words(models: Models, options: Options) -> list[Finding]:
    """Transcribes the sample speech in the language in use, or in all languages of the model, and
    compares it with its text."""
    findings = []
    known = models.recogniser.languages
    languages = [options.language] if options.language in known else list(known)
    for language in languages:
        try:
            result = check_samples(models.recogniser, language)
        except EdgedError as problem:
            return [Finding("warn", "words", f"not checked: {problem.message}", problem.remedy)]
        if result is not None and result.ok:
            findings.append(Finding("ok", "words", result.message))
        elif result is not None:
            remedy = f"Run `edged models verify {models.name}`, and choose another model."
            findings.append(Finding("fail", "words", result.message, remedy))
    if not findings:
        codes = ", ".join(languages)
        message = f"not checked: there is no sample speech in {codes}"
        findings.append(Finding("ok", "words", message, ""))
    return findings


def check_load(models: Models, predict: Predict | None = None) -> list[Finding]:
    """Predicts the load level: how much work edged will save to keep up with live speech."""
    try:
        found = (predict or predict_load)(models)
    except EdgedError as problem:
        return [Finding("warn", "load level", f"not measured: {problem.message}", problem.remedy)]
    use = f"recogniser {found.recogniser:.0%}, second pass {found.background:.0%} of a core"
    text = (
        f"{models.name}: load level {found.level:d} of {LAST_LEVEL:d} ({found.level.label}; {use})"
    )
    if not found.fits:
        remedy = "Choose a smaller model (EDGED_MODEL), stop other programs, or use a faster board."
        return [Finding("fail", "load level", f"{text} is still too slow", remedy)]
    if found.level > LoadLevel.FULL:
        remedy = "Stop other programs, set EDGED_THREADS=2, or choose a smaller model."
        return [Finding("warn", "load level", text, remedy)]
    return [Finding("ok", "load level", text)]


def check_other_models(
    settings: Settings, in_use: str, predict: Predict | None = None
) -> list[Finding]:
    """Loads the installed models other than `in_use` and predicts their load level.

    None of them is a problem, because none is in use.
    """
    findings = []
    for name in installed_models(settings.models_dir):
        if name == in_use:
            continue
        try:
            models = load(settings.models_dir, name, settings.threads)
        except ModelError as problem:
            findings.append(Finding("warn", "models", problem.message, problem.remedy))
            continue
        languages = _languages(models.languages)
        findings.append(
            Finding("ok", "models", f"{models.name} ({models.hash}, {languages}) is installed too")
        )
        for finding in check_load(models, predict):
            verdict: Verdict = "ok" if finding.level == "ok" else "warn"
            findings.append(replace(finding, level=verdict, remedy=""))
    return findings


def _languages(codes: tuple[str, ...]) -> str:
    return described(codes[0]) if len(codes) == 1 else f"{len(codes)} languages"


def recognise(models: Models, options: Options, frames: list[Frame]) -> tuple[int, float]:
    """Recognises the frames. Returns the number of words and the real-time factor."""
    session = Session(models, options)
    started = time.monotonic()
    events = [event for frame in frames for event in session.push(frame)]
    events += session.end()
    spent = time.monotonic() - started
    return sum(isinstance(e, Text) for e in events), spent / (len(frames) * STEP_S)
