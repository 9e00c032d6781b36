"""Real sessions over labelled audio: the evidence and the truth of every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES
from edged.bench.sentences import TimedWord
from edged.bench.turn_material import Audio, Listen, Read, Span, Stream
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

# Silero's probability falls below its threshold this long after the voice has stopped: median
# over 15 clips with hand-labelled ends. Its onset is off by 0.02 s: within a window.
TAIL_S = 0.09

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Heard:
    """What a session made of a stream: one item a step, but for `closed_s`.

    closed_s: when each `turn` was given (stream time). asked: how often Smart Turn ran.
    """

    stream: Stream
    evidence: tuple[Evidence, ...]
    inactivity: Floats
    closed_s: tuple[float, ...]
    asked: int = 0


def hear(models: Models, stream: Stream, options: Options) -> Heard:
    """Pushes the whole stream through a session, at once and repeatably."""
    session = Session(models, options)
    evidence, inactivity, closed = [], [], []
    for number, frame in enumerate(_frames(stream.audio)):
        events = session.push(frame)
        closed += [(number + 1) * STEP_S for event in events if isinstance(event, Turn)]
        assert session.judge.evidence is not None
        evidence.append(session.judge.evidence)
        inactivity.append(session.judge.inactivity)
    return Heard(stream, tuple(evidence), np.array(inactivity), tuple(closed), session.judge.asked)


def judge(one: Heard, weights: Weights, smart_turn: bool = True) -> Heard:
    """The same evidence judged anew, by other weights or without what Smart Turn has said.

    The turns stay those of the session.
    """
    model = Inactivity(weights)
    evidence = one.evidence
    if not smart_turn:
        evidence = tuple(replace(e, complete=None) for e in evidence)
    return replace(one, evidence=evidence, inactivity=np.array([model.push(e) for e in evidence]))


def close(one: Heard, endpoint: Endpoint) -> Heard:
    """The turns that `endpoint` would close, by the evidence and the probabilities of `one`.

    A session's turns but for what opens one: here all that the clock takes for speech.
    """
    closed, is_open = [], False
    for number, (e, p) in enumerate(zip(one.evidence, one.inactivity, strict=True), 1):
        is_open = is_open or e.silence_s == 0.0
        if is_open and endpoint.is_over(float(p[2]), e.silence_s, e.unfinished, e.answer):
            closed.append(number * STEP_S)
            is_open = False
    return replace(one, closed_s=tuple(closed))


def silence_s(one: Heard) -> Floats:
    """float64[steps]: since the last speech, or since the start where there was none."""
    silence = [e.heard_s if e.silence_s is None else e.silence_s for e in one.evidence]
    return np.array(silence)


def _frames(audio: Audio) -> Iterator[Audio]:
    for start in range(0, len(audio) - STEP_SAMPLES + 1, STEP_SAMPLES):
        yield audio[start : start + STEP_SAMPLES]


def truth(stream: Stream, steps: int) -> Floats:
    """float64[steps, 3]: 1 if nobody speaks in the next 0.5, 1.0, 2.0 s, nan if unknown."""
    labels = np.full((steps, len(HORIZONS_S)), np.nan)
    for step in range(steps):
        now = (step + 1) * STEP_S
        following = next_speech_s(stream.speech, now)
        for column, horizon in enumerate(HORIZONS_S):
            if following < now + horizon:
                labels[step, column] = 0
            elif now + horizon <= stream.known_s:
                labels[step, column] = 1
    return labels


def next_speech_s(speech: Sequence[Span], now: float) -> float:
    """When somebody next speaks: now, if somebody does; infinity, if nobody will."""
    return next((max(start, now) for start, stop in speech if stop > now), math.inf)


def in_pause(stream: Stream, steps: int) -> NDArray[np.bool_]:
    """bool[steps]: nobody speaks at the step's end, and somebody has spoken before."""
    first = stream.speech[0][0] if stream.speech else math.inf
    times = [(step + 1) * STEP_S for step in range(steps)]
    return np.array([t > first and next_speech_s(stream.speech, t) > t for t in times])


def listener(models: Models) -> Listen:
    """Finds the speech in a clip that nobody has labelled."""

    def listen(audio: Audio) -> list[Span]:
        x = soxr.resample(audio.astype(np.float32) / 32768, SAMPLE_RATE, RATE)
        gate = Gate(min_speech=1, close_s=WINDOW_S)
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


def reader(models: Models) -> Read:
    """Finds the words of a clip, all of which it hears first."""

    def read(audio: Audio) -> list[TimedWord]:
        x = soxr.resample(audio.astype(np.float32) / 32768, SAMPLE_RATE, RATE)
        words = transcribe(models.graphs, models.vocabulary, x).words
        return [(word.text, word.start_s, word.stop_s) for word in words]

    return read
