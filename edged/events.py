"""The messages of a session, as frozen types with a JSON form.

The vocabulary is that of Gradium's speech-to-text API (each message has a `type`), plus `turn`,
which edged adds. Times are seconds of stream time: 0 is the first sample of the session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from edged import SAMPLE_RATE, STEP_S, STEP_SAMPLES

JsonObject: TypeAlias = dict[str, Any]
HORIZONS_S = (0.5, 1.0, 2.0)


def _seconds(value: float) -> float:
    """Rounds to milliseconds: the recogniser's frames of 24 ms do not tell more."""
    return round(float(value), 3)


@dataclass(frozen=True, slots=True)
class Ready:
    """The session was accepted.

    keyterms: how many key terms are active. language: a code, or `auto` if the model finds it.
    """

    type: ClassVar[str] = "ready"
    request_id: str
    model_name: str
    delay_in_frames: int
    sample_rate: int = SAMPLE_RATE
    frame_size: int = STEP_SAMPLES
    keyterms: int = 0
    language: str = "en"

    def wire(self) -> JsonObject:
        return {
            "type": self.type,
            "request_id": self.request_id,
            "model_name": self.model_name,
            "sample_rate": self.sample_rate,
            "frame_size": self.frame_size,
            "delay_in_frames": self.delay_in_frames,
            "text_stream_names": [],
            "language": self.language,
            "keyterms": self.keyterms,
        }


@dataclass(frozen=True, slots=True)
class Text:
    """One committed word or word group: never revised, no spaces at its ends."""

    type: ClassVar[str] = "text"
    text: str
    start_s: float
    stream_id: int = 0

    def wire(self) -> JsonObject:
        return {
            "type": self.type,
            "text": self.text,
            "start_s": _seconds(self.start_s),
            "stream_id": self.stream_id,
        }


@dataclass(frozen=True, slots=True)
class EndText:
    """The end time of the last `text`."""

    type: ClassVar[str] = "end_text"
    stop_s: float
    stream_id: int = 0

    def wire(self) -> JsonObject:
        return {"type": self.type, "stop_s": _seconds(self.stop_s), "stream_id": self.stream_id}


@dataclass(frozen=True, slots=True)
class Step:
    """Sent for each 80 ms of audio, always.

    step_idx: counts from 0 and never resets.
    inactivity: P(nobody speaks in the next 0.5, 1.0, 2.0 s), not increasing; 0.0 while it is
        unknown.
    """

    type: ClassVar[str] = "step"
    step_idx: int
    inactivity: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def wire(self) -> JsonObject:
        return {
            "type": self.type,
            "vad": [
                {"horizon_s": h, "inactivity_prob": round(float(p), 4)}
                for h, p in zip(HORIZONS_S, self.inactivity, strict=True)
            ],
            "step_idx": self.step_idx,
            "step_duration_s": STEP_S,
            "total_duration_s": round((self.step_idx + 1) * STEP_S, 2),
        }


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its times."""

    text: str
    start_s: float
    stop_s: float

    def wire(self) -> JsonObject:
        return {
            "text": self.text,
            "start_s": _seconds(self.start_s),
            "stop_s": _seconds(self.stop_s),
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """A speaker has finished: the whole turn, decoded again with full context.

    confidence: geometric mean of the token probabilities, 0..1; None if unknown. language: the
    code of the language of the text.
    """

    type: ClassVar[str] = "turn"
    text: str
    start_s: float
    stop_s: float
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    language: str = "en"

    def wire(self) -> JsonObject:
        return {
            "type": self.type,
            "text": self.text,
            "language": self.language,
            "start_s": _seconds(self.start_s),
            "stop_s": _seconds(self.stop_s),
            "words": [w.wire() for w in self.words],
            "confidence": None if self.confidence is None else round(self.confidence, 3),
        }


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything before the flush has been answered. `flush_id` is echoed exactly as it came."""

    type: ClassVar[str] = "flushed"
    flush_id: int | str

    def wire(self) -> JsonObject:
        return {"type": self.type, "flush_id": self.flush_id}


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The last message of a session."""

    type: ClassVar[str] = "end_of_stream"

    def wire(self) -> JsonObject:
        return {"type": self.type}


@dataclass(frozen=True, slots=True)
class Error:
    """Something went wrong. `code` is 1008 (caused by the client) or 1011 (by edged)."""

    type: ClassVar[str] = "error"
    message: str
    code: int = 1011

    def wire(self) -> JsonObject:
        return {"type": self.type, "message": self.message, "code": self.code}


Event: TypeAlias = Ready | Text | EndText | Step | Turn | Flushed | EndOfStream | Error


def to_json(message: Mapping[str, Any]) -> str:
    """Encodes a message as JSON with keys in the order given, unescaped Unicode and no NaN."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def from_wire(message: Mapping[str, Any]) -> Event:
    """Decodes what `wire()` gives. Unknown keys are ignored.

    Raises ValueError for an unknown type and for a missing or mistyped field.
    """
    kind = message.get("type")
    try:
        match kind:
            case "ready":
                return Ready(
                    str(message["request_id"]),
                    str(message["model_name"]),
                    int(message["delay_in_frames"]),
                    int(message["sample_rate"]),
                    int(message["frame_size"]),
                    int(message.get("keyterms", 0)),
                    str(message.get("language", "en")),
                )
            case "text":
                return Text(
                    str(message["text"]),
                    float(message["start_s"]),
                    int(message.get("stream_id", 0)),
                )
            case "end_text":
                return EndText(float(message["stop_s"]), int(message.get("stream_id", 0)))
            case "step":
                a, b, c = (float(v["inactivity_prob"]) for v in message["vad"])
                return Step(int(message["step_idx"]), (a, b, c))
            case "turn":
                words = tuple(
                    Word(str(w["text"]), float(w["start_s"]), float(w["stop_s"]))
                    for w in message["words"]
                )
                confidence = message.get("confidence")
                return Turn(
                    str(message["text"]),
                    float(message["start_s"]),
                    float(message["stop_s"]),
                    words,
                    None if confidence is None else float(confidence),
                    str(message.get("language", "en")),
                )
            case "flushed":
                return Flushed(message["flush_id"])
            case "end_of_stream":
                return EndOfStream()
            case "error":
                return Error(str(message["message"]), int(message["code"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a {kind!r} message is malformed: {error!r}") from error
    raise ValueError(f"unknown message type {kind!r}")
