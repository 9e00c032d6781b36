"""What is sent over the present connection: the order, the limit, the answers and the refusals."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from edged.logs import log_event
from edged.mqtt.homeassistant import EVENT_TYPES
from edged.mqtt.link import PACKET_TOO_LARGE, Link
from edged.mqtt.link_events import Acknowledged, Connected
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.outbox import Outbox
from edged.mqtt.poison_message_detector import PoisonMessageDetector
from edged.mqtt.retained_topics import RetainedTopics
from edged.mqtt.topics import Topics

_log = logging.getLogger(__name__)
SIZE = 16  # mosquitto takes 20 at once; a broker's Receive Maximum may be less
_LIVE_COPIES = 64


@dataclass(slots=True)
class Inflight:
    """One QoS 1 publish that the broker has not acknowledged."""

    message: OutboundMessage
    topic: str
    sent_at: float
    from_outbox: bool


class InflightWindow:
    """Keeps at most 16 publishes unacknowledged over one link at a time.

    Order: retained topics, live copies for Home Assistant, then the outbox, oldest first.

    Args:
        topics: the topics of the device.
        outbox: where durable messages and answers come from.
        report_error: publishes an `error` event. It is never called about the topic `error`
            itself, so that a report about a failed report cannot follow.
        report_interval_s: least time between two reports about the same topic.
    """

    def __init__(
        self,
        topics: Topics,
        outbox: Outbox,
        report_error: Callable[[str], None],
        report_interval_s: float,
    ) -> None:
        self.topics = topics
        self.live_event_copies = False
        self._retained = RetainedTopics()
        self.dropped: Counter[str] = Counter()
        self.sent = 0
        self._outbox = outbox
        self._report_error = report_error
        self._report_interval_s = report_interval_s
        self._poison = PoisonMessageDetector()
        self._link: Link | None = None
        self._size = SIZE
        self._inflight: dict[int, Inflight] = {}  # by token
        self._token = 0
        self._copies: deque[OutboundMessage] = deque()
        self._first_step_at: float | None = None
        self._expected_refusals: set[str] = set()
        self._refused: dict[str, str] = {}  # by topic: one sentence
        self._reported_at: dict[str, float] = {}  # by topic
        self._unreported: dict[str, str] = {}  # by topic: what to report when all is acknowledged

    @property
    def busy(self) -> bool:
        """Whether something can still be sent."""
        return bool(self._inflight or self._retained.pending or self._outbox.backlog)

    @property
    def refusal(self) -> str | None:
        """What the broker refuses at present, as one sentence."""
        return next(reversed(self._refused.values()), None)

    @property
    def message_suspected(self) -> bool:
        """Whether the broker may disconnect because of a message."""
        return self._poison.suspects_something

    @property
    def retained_pending(self) -> bool:
        """Whether the broker does not have every retained message yet."""
        return self._retained.pending

    def set_retained(self, message: OutboundMessage) -> None:
        """Publishes a retained message, now and at each connection."""
        self._retained.set(message)

    def publish_states(self) -> None:
        """Publishes all retained messages again, for Home Assistant's birth message."""
        self._retained.publish_states()

    def expect_refusals(self, keys: set[str]) -> None:
        """Names the retained messages that a broker may refuse without a report."""
        self._expected_refusals = keys

    def use_topics(self, topics: Topics) -> None:
        """Changes base and device, for the next connection; what was learnt is forgotten."""
        self.topics = topics
        self._poison = PoisonMessageDetector()
        self._reported_at.clear()

    def open(self, link: Link, connected: Connected) -> None:
        """Begins to send over a new link."""
        self._link = link
        self._size = min(SIZE, connected.receive_maximum)
        self._first_step_at = None
        self._refused.clear()
        self._retained.publish_all()

    def close(self, now: float, *, disconnected_by_peer: bool) -> None:
        """The link has ended: what was not acknowledged is sent again, except a poison message."""
        if self._link is not None:
            if self._link.dropped:
                self.dropped["steps"] += self._link.dropped
            if disconnected_by_peer:
                self._look_for_poison(now)
        self._link = None
        for inflight in self._inflight.values():
            if inflight.message.retain:
                self._retained.done(inflight.message.key)
        self._inflight.clear()
        self._copies.clear()
        self._outbox.link_lost()

    def oldest_wait_s(self, now: float) -> float:
        """Returns how long the oldest publish has waited for its acknowledgement."""
        oldest = next(iter(self._inflight.values()), None)
        return 0.0 if oldest is None else now - oldest.sent_at

    def publish_step(self, message: OutboundMessage, now: float) -> None:
        """Sends a step at once or never."""
        if self._link is None or self._poison.steps_refused or self._poison.one_at_a_time:
            self.dropped["steps"] += 1
            return
        topic = self.topics(message.name)
        if not self._link.send(message, topic):
            self._too_large(message, topic, now, f"at most {self._link.max_packet} bytes")
        elif self._first_step_at is None:
            self._first_step_at = now

    def acknowledged(self, answer: Acknowledged, now: float) -> None:
        """The broker has answered a publish."""
        inflight = self._inflight.pop(answer.token, None)
        if inflight is None:
            return
        self.sent += 1
        self._poison.acknowledged(inflight.message.key)
        self._done_with(inflight)
        if answer.reason == PACKET_TOO_LARGE:
            self._too_large(inflight.message, inflight.topic, now, "the broker refuses its size")
        elif answer.reason >= 128:
            self._was_refused(inflight, answer.reason_name)
        elif self._refused.pop(inflight.topic, None):
            message = f"the broker accepts messages on {inflight.topic} again"
            log_event(_log, logging.INFO, "mqtt-accepted", message)

    def fill(self, now: float) -> None:
        """Sends as much as the limit allows, or one at a time while a poison message is sought."""
        if self._link is None:
            return
        size = 1 if self._poison.one_at_a_time else self._size
        while len(self._inflight) < size and self._send_next(self._link, now):
            pass
        if not self._inflight:
            self._poison.all_acknowledged()
            while self._unreported:
                self._report_error(self._unreported.pop(next(iter(self._unreported))))

    def _send_next(self, link: Link, now: float) -> bool:
        if (message := self._retained.next()) is not None:
            self._publish(link, message, now)
        elif self._copies:
            self._publish(link, self._copies.popleft(), now)
        elif (message := self._outbox.next()) is not None:
            sent = self._publish(link, message, now, from_outbox=True)
            live = not message.delayed and message.name in EVENT_TYPES
            if sent and live and self.live_event_copies:
                self._copy(message)
        else:
            return False
        return True

    def _copy(self, message: OutboundMessage) -> None:
        if len(self._copies) >= _LIVE_COPIES:
            self._copies.popleft()
            self.dropped["live_copies"] += 1
        self._copies.append(message.live_copy())

    def _publish(
        self, link: Link, message: OutboundMessage, now: float, *, from_outbox: bool = False
    ) -> bool:
        """Sends one message with QoS 1. Returns False if the broker takes no packet so large."""
        topic = message.topic or self.topics(message.name)
        inflight = Inflight(message, topic, now, from_outbox)
        if not link.send(message, topic, self._token):
            self._done_with(inflight)
            self._too_large(message, topic, now, f"at most {link.max_packet} bytes")
            return False
        self._inflight[self._token] = inflight
        self._token += 1
        return True

    def _done_with(self, inflight: Inflight) -> None:
        """The message will not be sent again."""
        if inflight.message.retain:
            self._retained.done(inflight.message.key)
        if inflight.from_outbox:
            self._outbox.acknowledged(inflight.message)

    def _too_large(self, message: OutboundMessage, topic: str, now: float, limit: str) -> None:
        self.dropped["too_large"] += 1
        if not message.is_answer:  # who asked can name a new topic each time
            sentence = (
                f"a message of {len(message.payload)} bytes for {topic} was dropped: "
                f"it is too large for the broker ({limit})"
            )
            self._report_drop(topic, sentence, now, once=not message.durable)

    def _was_refused(self, inflight: Inflight, reason: str) -> None:
        message, topic = inflight.message, inflight.topic
        if inflight.from_outbox:
            self.dropped["refused"] += 1
            if message.is_answer:
                return  # who asked can name a new topic each time
        if topic in self._refused or message.key in self._expected_refusals:
            return
        sentence = f"the broker refuses {topic}: {reason}"
        self._refused[topic] = sentence
        log_event(_log, logging.WARNING, "mqtt-refused", sentence)
        if topic != self.topics("error"):
            self._report_error(sentence)

    def _look_for_poison(self, now: float) -> None:
        if self._inflight:
            key = self._poison.disconnected([i.message.key for i in self._inflight.values()])
            for inflight in [i for i in self._inflight.values() if i.message.key == key]:
                self._give_up(inflight, now)
            return
        since = None if self._first_step_at is None else now - self._first_step_at
        if self._poison.disconnected_after_step(since):
            topic = self.topics("step")
            sentence = (
                f"the broker closes the connection after each message for {topic}: "
                "steps are not published any more"
            )
            self._report_drop(topic, sentence, now, once=True)

    def _give_up(self, inflight: Inflight, now: float) -> None:
        sentence = (
            f"a message for {inflight.topic} was dropped: "
            "the broker closed the connection each time it was sent"
        )
        self._report_drop(inflight.topic, sentence, now, once=False)
        if inflight.from_outbox:
            self.dropped["poison"] += 1
            self._outbox.acknowledged(inflight.message)
        if inflight.message.retain:
            self._retained.forget(inflight.message.key)

    def _report_drop(self, topic: str, sentence: str, now: float, *, once: bool) -> None:
        """Logs and reports a dropped message: for one topic once, or once in a while."""
        reported_at = self._reported_at.get(topic)
        if reported_at is not None and (once or now - reported_at < self._report_interval_s):
            return
        self._reported_at[topic] = now
        log_event(_log, logging.ERROR, "mqtt-message-dropped", sentence)
        if topic != self.topics("error"):
            self._unreported[topic] = sentence
