"""Are the models there, and is this machine fast enough for them?"""

from __future__ import annotations

import contextlib
import time
from itertools import islice
from pathlib import Path

from edged import STEP_S, resources
from edged.audio.files import open_audio
from edged.audio.source import Frame
from edged.config.settings import Settings
from edged.doctor.finding import Finding
from edged.engine.session import Session
from edged.errors import EdgedError, ModelError
from edged.events import Text
from edged.models.loader import Models, load
from edged.options import Options

CLIP_S = 5.0
GOOD_RTF, WORST_RTF = 0.5, 0.9  # above, a busy moment makes it late; above the second, it is late


def check_models(settings: Settings) -> tuple[Models | None, list[Finding]]:
    """The models, if they can be loaded, and what is to be said of them."""
    try:
        models = load(settings.models_dir, settings.model, settings.threads)
    except ModelError as problem:
        sentence, _, remedy = str(problem).rpartition(": ")
        remedy = remedy or "edged models fetch"
        return None, [Finding("fail", "models", sentence or str(problem), remedy)]
    findings = [Finding("ok", "models", f"{models.name} ({models.hash}) is complete")]
    if models.missing:
        text = f"{', '.join(models.missing)} is missing: turns end by silence alone"
        findings.append(Finding("warn", "models", text, "edged models fetch"))
    return models, findings


def check_speed(models: Models, options: Options, clip: Path | None = None) -> list[Finding]:
    """Real-time factor of 5 s of speech: seconds of work per second of audio."""
    clip = clip or resources.sample_speech() / "mister-hale.flac"
    try:
        with contextlib.closing(open_audio(str(clip))) as source:
            frames = list(islice(source.frames(), round(CLIP_S / STEP_S)))
    except EdgedError as problem:
        return [Finding("warn", "speed", f"not measured: {problem}", "edged models fetch")]
    words, rtf = _run(models, options, frames)
    text = f"real-time factor {rtf:.2f} ({CLIP_S:g} s of speech in {rtf * CLIP_S:.1f} s)"
    if words == 0:
        remedy = "edged models verify"
        return [Finding("fail", "speed", f"{text}, and not one word was heard", remedy)]
    if rtf > WORST_RTF:
        remedy = "stop other programs, set EDGED_THREADS=2, or use a faster board"
        return [Finding("fail", "speed", f"{text}: too slow for live speech", remedy)]
    if rtf > GOOD_RTF:
        return [Finding("warn", "speed", text, "stop other programs, or set EDGED_THREADS=2")]
    return [Finding("ok", "speed", text)]


def _run(models: Models, options: Options, frames: list[Frame]) -> tuple[int, float]:
    session = Session(models, options)
    started = time.monotonic()
    events = [event for frame in frames for event in session.push(frame)]
    events += session.end()
    spent = time.monotonic() - started
    return sum(isinstance(e, Text) for e in events), spent / (len(frames) * STEP_S)
