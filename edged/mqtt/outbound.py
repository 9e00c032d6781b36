"""The one record of a message that is published, from the event to the packet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from edged.events import Event, Step, to_json

STEP_EXPIRY_S = 1
ANSWER_EXPIRY_S = 60
LIVE_COPY_EXPIRY_S = 60
_DELAYED = b', "delayed": true}'


@dataclass(slots=True, eq=False)
class OutboundMessage:
    """One message to be published.

    Attributes:
        key: unique among the messages that wait; for a numbered event its session and `seq`.
        name: the topic below `<base>/<device>/`, such as `text` or `state/mute`.
        payload: the bytes of the PUBLISH packet.
        qos: 0 or 1.
        retain: whether the broker keeps it for later subscribers.
        durable: it survives the loss of the connection and of the process. Others are expendable.
        topic: the full topic; None for `name` below the device's own.
        correlation: MQTT 5 correlation data of an answer.
        expiry_s: MQTT 5 message expiry; None: never.
        row: its row in the store; None: it is only in memory.
        delayed: it could not be sent at once, so that it is no longer live.
    """

    key: str
    name: str
    payload: bytes
    qos: Literal[0, 1] = 1
    retain: bool = False
    durable: bool = True
    topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None
    row: int | None = None
    delayed: bool = False

    @property
    def is_answer(self) -> bool:
        """Whether it answers a command."""
        return self.topic is not None and not self.retain

    def mark_delayed(self) -> None:
        """Adds `"delayed": true`, so that nobody carries out an old order unawares."""
        self.delayed = True
        if self.payload.endswith(b"}") and not self.payload.endswith(_DELAYED):
            self.payload = self.payload[:-1] + _DELAYED

    def live_copy(self) -> OutboundMessage:
        """Returns the copy for Home Assistant's event entity, which is never sent again."""
        return replace(
            self, key="event", name="event", durable=False, row=None, expiry_s=LIVE_COPY_EXPIRY_S
        )


def step_message(step: Step, session: str, timestamp: str) -> OutboundMessage:
    """Returns the QoS 0 message of a step. Raises ValueError if it cannot be written as JSON."""
    payload = encode(step.wire() | {"session": session, "ts": timestamp})
    return OutboundMessage("step", "step", payload, 0, durable=False, expiry_s=STEP_EXPIRY_S)


def event_message(event: Event, session: str, seq: int, timestamp: str) -> OutboundMessage:
    """Returns the durable message of an event. Raises ValueError if it cannot be written."""
    payload = encode(event.wire() | {"session": session, "seq": seq, "ts": timestamp})
    return OutboundMessage(f"{session}:{seq:012d}", event.type, payload)


def answer_message(
    number: int, topic: str, payload: bytes, correlation: bytes | None
) -> OutboundMessage:
    """Returns the answer to a command, for the full `topic`."""
    return OutboundMessage(
        f"answer:{number}",
        "",
        payload,
        durable=False,
        topic=topic,
        correlation=correlation,
        expiry_s=ANSWER_EXPIRY_S,
    )


def encode(value: Mapping[str, Any] | str) -> bytes:
    """Returns JSON, or a string as it is, in UTF-8; lone surrogates become `?`."""
    text = value if isinstance(value, str) else to_json(value)
    return text.encode(errors="replace")
