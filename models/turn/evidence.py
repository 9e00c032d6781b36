"""Runs sessions over labelled audio and collects evidence and labels for every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.engine.session import Session
from edged.events import HORIZONS_S, Turn
from edged.models.loader import Models
from edged.options import Options
from edged.stt.second_pass import transcribe
from edged.vad.endpoint import Endpoint
from edged.vad.gate import WINDOW_S, Gate
from edged.vad.inactivity import Inactivity, Weights
from edged.vad.silero import RATE, Silero
from edged.vad.text_evidence import Evidence
from models.turn.material import Audio, FindSpeech, FindWords, LabelledStream, Span
from models.turn.sentences import TimedWord

# Silero's probability falls below its threshold this long after the voice has stopped: median over
# 15 clips with hand-labelled ends. Its onset is 0.02 s off, which is within one window.
TAIL_S = 0.09

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class SessionTrace:
    """What a session computed for a stream.

    evidence: the turn detector's evidence, one item a step.
    inactivity: float64[steps, 3], P(nobody speaks in the next 0.5, 1.0, 2.0 s).
    closed_s: stream times at which a `turn` was given.
    asked: how often Smart Turn ran.
    """

    stream: LabelledStream
    evidence: tuple[Evidence, ...]
    inactivity: Floats
    closed_s: tuple[float, ...]
    asked: int = 0


def run_session(models: Models, stream: LabelledStream, options: Options) -> SessionTrace:
    """Pushes a stream through a new session, without real-time pacing; the result is repeatable."""
    session = Session(models, options)
    evidence, inactivity, closed = [], [], []
    for number, frame in enumerate(_frames(stream.audio)):
        events = session.push(frame)
        closed += [(number + 1) * STEP_S for event in events if isinstance(event, Turn)]
        assert session.turn_detector.evidence is not None
        evidence.append(session.turn_detector.evidence)
        inactivity.append(session.turn_detector.inactivity)
    return SessionTrace(
        stream,
        tuple(evidence),
        np.array(inactivity),
        tuple(closed),
        session.turn_detector.smart_turn_runs,
    )


def rescore(one: SessionTrace, weights: Weights, smart_turn: bool = True) -> SessionTrace:
    """Computes the inactivity again, with other weights or without Smart Turn's answers.

    `closed_s` stays that of the session.
    """
    model = Inactivity(weights)
    evidence = one.evidence
    if not smart_turn:
        evidence = tuple(replace(e, p_complete=None) for e in evidence)
    return replace(one, evidence=evidence, inactivity=np.array([model.push(e) for e in evidence]))


def close_turns(one: SessionTrace, endpoint: Endpoint) -> SessionTrace:
    """Replaces `closed_s` by the times at which `endpoint` would close turns.

    A session opens a turn when the voice gate opens; here any detected speech opens one.
    """
    closed, is_open = [], False
    for number, (e, p) in enumerate(zip(one.evidence, one.inactivity, strict=True), 1):
        is_open = is_open or e.silence_s == 0.0
        if is_open and endpoint.is_over(float(p[2]), e.silence_s, e.unfinished, e.short_answer):
            closed.append(number * STEP_S)
            is_open = False
    return replace(one, closed_s=tuple(closed))


def silence_s(one: SessionTrace) -> Floats:
    """float64[steps]: seconds since the last speech, or since the start before any."""
    silence = [e.heard_s if e.silence_s is None else e.silence_s for e in one.evidence]
    return np.array(silence)


def _frames(audio: Audio) -> Iterator[Audio]:
    for start in range(0, len(audio) - STEP_SAMPLES + 1, STEP_SAMPLES):
        yield audio[start : start + STEP_SAMPLES]


def inactivity_labels(stream: LabelledStream, steps: int) -> Floats:
    """float64[steps, 3]: 1 if nobody speaks in the next 0.5, 1.0, 2.0 s, else 0; nan if unknown.

    Steps are unknown where the labels end, and from 2 s before an ambiguous span to its end.
    """
    labels = np.full((steps, len(HORIZONS_S)), np.nan)
    for step in range(steps):
        now = (step + 1) * STEP_S
        if any(start - HORIZONS_S[-1] < now < stop for start, stop in stream.ambiguous):
            continue
        following = next_speech_s(stream.speech, now)
        for column, horizon in enumerate(HORIZONS_S):
            if following < now + horizon:
                labels[step, column] = 0
            elif now + horizon <= stream.known_s:
                labels[step, column] = 1
    return labels


def next_speech_s(speech: Sequence[Span], now: float) -> float:
    """Returns when somebody next speaks: `now` if somebody does, infinity if nobody will."""
    return next((max(start, now) for start, stop in speech if stop > now), math.inf)


def in_pause(stream: LabelledStream, steps: int) -> NDArray[np.bool_]:
    """bool[steps]: at the step's end nobody speaks, and somebody has spoken before."""
    first = stream.speech[0][0] if stream.speech else math.inf
    times = [(step + 1) * STEP_S for step in range(steps)]
    return np.array([t > first and next_speech_s(stream.speech, t) > t for t in times])


def speech_finder(models: Models) -> FindSpeech:
    """Returns a function that finds the speech in a clip with the voice detector."""

    def listen(audio: Audio) -> list[Span]:
        x = soxr.resample(audio.astype(np.float32) / 32768, SAMPLE_RATE, RATE)
        gate = Gate(min_speech=1, close_after_s=WINDOW_S)
        spans: list[Span] = []
        for number, p in enumerate(
            Silero(models.silero).push(np.append(x, np.zeros(RATE // 2, np.float32)))
        ):
            match gate.push(p):
                case "open":
                    start = number * WINDOW_S
                case "close":
                    spans.append((start, max(number * WINDOW_S - TAIL_S, start + WINDOW_S)))
        return spans

    return listen


def word_finder(models: Models) -> FindWords:
    """Returns a function that recognises the words of a whole clip."""

    def read(audio: Audio) -> list[TimedWord]:
        x = soxr.resample(audio.astype(np.float32) / 32768, SAMPLE_RATE, RATE)
        words = transcribe(models.recogniser, x, models.languages[0]).words
        return [(word.text, word.start_s, word.stop_s) for word in words]

    return read
