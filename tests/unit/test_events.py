"""The messages on the wire, byte for byte, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.events import (
    EndOfStream,
    EndText,
    Error,
    Event,
    Flushed,
    Ready,
    Step,
    Text,
    Turn,
    Word,
    from_wire,
    to_json,
)

GOLDEN: list[tuple[Event, str]] = [
    (
        Ready("r1", "tiny-en", 10, keyterms=3, language="de"),
        '{"type": "ready", "request_id": "r1", "model_name": "tiny-en", "sample_rate": 24000, '
        '"frame_size": 1920, "delay_in_frames": 10, "text_stream_names": [], "language": "de", '
        '"keyterms": 3}',
    ),
    (Text("naïve", 1.23456), '{"type": "text", "text": "naïve", "start_s": 1.235, "stream_id": 0}'),
    (EndText(2.0), '{"type": "end_text", "stop_s": 2.0, "stream_id": 0}'),
    (
        Step(24, (0.9, 0.5, 0.123456)),
        '{"type": "step", "vad": [{"horizon_s": 0.5, "inactivity_prob": 0.9}, '
        '{"horizon_s": 1.0, "inactivity_prob": 0.5}, '
        '{"horizon_s": 2.0, "inactivity_prob": 0.1235}], '
        '"step_idx": 24, "step_duration_s": 0.08, "total_duration_s": 2.0}',
    ),
    (
        Turn("Yes.", 0.1, 0.5, (Word("Yes.", 0.1, 0.5),), 0.91234),
        '{"type": "turn", "text": "Yes.", "language": "en", "start_s": 0.1, "stop_s": 0.5, '
        '"words": [{"text": "Yes.", "start_s": 0.1, "stop_s": 0.5}], "confidence": 0.912}',
    ),
    (Flushed("7"), '{"type": "flushed", "flush_id": "7"}'),
    (Flushed(7), '{"type": "flushed", "flush_id": 7}'),
    (EndOfStream(), '{"type": "end_of_stream"}'),
    (Error("no", 1008), '{"type": "error", "message": "no", "code": 1008}'),
]


@pytest.mark.parametrize(("event", "line"), GOLDEN, ids=lambda v: getattr(v, "type", ""))
def test_a_message_has_exactly_this_form(event: Event, line: str) -> None:
    assert to_json(event.wire()) == line


@given(st.text(), st.integers(0, 10**7), st.integers(0, 10**6))
def test_text_and_word_times_come_back_from_json(text: str, start: int, length: int) -> None:
    stop = (start + length) / 1000
    word = Word(text, start / 1000, stop)
    turn = Turn(text, start / 1000, stop, (word,), None)
    for event in (Text(text, start / 1000), EndText(stop), turn):
        assert from_wire(json.loads(to_json(event.wire()))) == event


@given(st.one_of(st.integers(), st.text()))
def test_a_flush_id_is_echoed_as_it_came(flush_id: int | str) -> None:
    echoed = json.loads(to_json(Flushed(flush_id).wire()))["flush_id"]
    assert (type(echoed), echoed) == (type(flush_id), flush_id)


def test_total_duration_is_derived_from_the_step_and_does_not_drift() -> None:
    month = 30 * 24 * 3600
    step = Step(int(month / 0.08) - 1)
    assert step.wire()["total_duration_s"] == month


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "bogus"},
        {"type": "text"},
        {"type": "step", "step_idx": 1, "vad": []},
        {"type": "turn", "text": "x", "start_s": 0, "stop_s": 1, "words": [3]},
        {"type": "text", "text": "x", "start_s": None},
    ],
)
def test_a_malformed_message_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown message|malformed"):
        from_wire(message)


def test_nan_never_reaches_a_subscriber() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"type": "text", "start_s": float("nan")})
