"""What goes over the present connection: the order, the limit, the answers and the refusals.

Order: retained topics, live copies for Home Assistant, then the outbox, oldest first.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from edged.mqtt.backoff import PoisonMessageDetector
from edged.mqtt.homeassistant import EVENT_TYPES
from edged.mqtt.link import Link
from edged.mqtt.link_events import Acknowledged, Connected, Outgoing
from edged.mqtt.outbox import Outbox
from edged.mqtt.retained import Retained
from edged.mqtt.spool import Message
from edged.mqtt.topics import Topics

_log = logging.getLogger(__name__)
SIZE = 16  # mosquitto takes 20 at once; a broker's Receive Maximum may be less
OUR_MAX_PACKET = 256 * 1024
_STEP_EXPIRY_S = 1
_ANSWER_EXPIRY_S = 60
_LIVE_EXPIRY_S = 60
_COPIES = 64


@dataclass(slots=True)
class _Away:
    """One QoS 1 publish that the broker has not answered."""

    topic: str
    sent_at: float
    message: Message | None = None
    retained: str | None = None

    @property
    def key(self) -> str:
        return self.message.key if self.message else self.topic


class Window:
    """At most 16 unanswered publishes over one link at a time.

    `say` tells users what went wrong with single messages. `expected_refusals` are retained names
    that a broker may refuse without anybody being told.
    """

    def __init__(
        self, topics: Topics, outbox: Outbox, retained: Retained, say: Callable[[str], None]
    ) -> None:
        self.topics = topics
        self.live_copies = False
        self.expected_refusals: set[str] = set()
        self.suspicion = PoisonMessageDetector()
        self.dropped: Counter[str] = Counter()
        self.sent = 0
        self._outbox = outbox
        self._retained = retained
        self._say = say
        self._link: Link | None = None
        self._size = SIZE
        self._max_packet = OUR_MAX_PACKET
        self._away: dict[int, _Away] = {}
        self._token = 0
        self._copies: deque[Message] = deque()
        self._refused: dict[str, str] = {}  # topic: the sentence that says so
        self._unsaid: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        """Whether something could still be sent."""
        return bool(self._away or self._retained.pending or self._outbox.waiting)

    @property
    def refusal(self) -> str | None:
        """What the broker refuses at present, as a sentence."""
        return next(reversed(self._refused.values()), None)

    def open(self, link: Link, up: Connected) -> None:
        self._link = link
        self._size = min(SIZE, up.receive_maximum)
        self._max_packet = min(OUR_MAX_PACKET, up.maximum_packet)
        self._refused.clear()
        self._retained.all_again()

    def close(self, *, disconnected_by_peer: bool) -> None:
        """The link has ended: what was not answered comes again, but for a message it died of."""
        if self._link is not None:
            if self._link.dropped:
                self.dropped["steps"] += self._link.dropped
            if disconnected_by_peer:
                culprit = self.suspicion.hung_up([a.key for a in self._away.values()])
                for away in [a for a in self._away.values() if a.key == culprit]:
                    self._give_up(away)
        self._link = None
        for away in self._away.values():
            if away.retained is not None:
                self._retained.done(away.retained)
        self._away.clear()
        self._copies.clear()
        self._outbox.link_lost()

    def unanswered_s(self, now: float) -> float:
        """How long the oldest publish has waited for its answer."""
        oldest = next(iter(self._away.values()), None)
        return 0.0 if oldest is None else now - oldest.sent_at

    def step(self, payload: bytes) -> None:
        """QoS 0, at once or never."""
        if self._link is None:
            self.dropped["steps"] += 1
        else:
            self._link.send(Outgoing(0, self.topics("step"), payload, 0, expiry_s=_STEP_EXPIRY_S))

    def answered(self, answer: Acknowledged) -> None:
        away = self._away.pop(answer.token, None)
        if away is None:
            return
        self.sent += 1
        self.suspicion.answered(away.key)
        if away.retained is not None:
            self._retained.done(away.retained)
        if away.message is not None:
            self._outbox.acked(away.message)
        if answer.reason >= 128:
            self._was_refused(away, answer.name)
        elif self._refused.pop(away.topic, None):
            _log.info("the broker accepts %s again", away.topic)

    def fill(self, now: float) -> None:
        """Sends as much as the limit allows; of a broker that hangs up, one at a time."""
        if self._link is None:
            return
        size = 1 if self.suspicion.careful else self._size
        while len(self._away) < size and self._send_next(now):
            pass
        if not self._away:
            self.suspicion.all_sent()
            while self._unsaid:
                self._say(self._unsaid.pop(next(iter(self._unsaid))))

    def _send_next(self, now: float) -> bool:
        retained = self._retained.next()
        if retained is not None:
            self._send_retained(*retained, now)
        elif self._copies:
            self._send_copy(self._copies.popleft(), now)
        elif (message := self._outbox.next()) is not None:
            self._send(message, now)
        else:
            return False
        return True

    def _send_retained(self, name: str, payload: bytes, now: float) -> None:
        topic = name[1:] if name.startswith("/") else self.topics(name)
        away = _Away(topic, now, retained=name)
        if not self._publish(Outgoing(self._token, topic, payload, 1, retain=True), away):
            self._retained.done(name)

    def _send(self, message: Message, now: float) -> None:
        topic, correlation = message.answer or (self.topics(message.name), None)
        expiry = None if message.durable else _ANSWER_EXPIRY_S
        outgoing = Outgoing(
            self._token, topic, message.payload, 1, expiry_s=expiry, correlation=correlation
        )
        if not self._publish(outgoing, _Away(topic, now, message)):
            self._outbox.acked(message)
        elif self.live_copies and not message.waited and message.name in EVENT_TYPES:
            if len(self._copies) >= _COPIES:
                self._copies.popleft()
                self.dropped["live_copies"] += 1
            self._copies.append(message)

    def _send_copy(self, message: Message, now: float) -> None:
        """What Home Assistant's event entity hears: live only, never sent again."""
        topic = self.topics("event")
        outgoing = Outgoing(self._token, topic, message.payload, 1, expiry_s=_LIVE_EXPIRY_S)
        self._publish(outgoing, _Away(topic, now))

    def _publish(self, outgoing: Outgoing, away: _Away) -> bool:
        """Hands it to the link; False for one that would make the broker hang up."""
        assert self._link is not None
        if outgoing.packet_bytes > self._max_packet:
            self.dropped["too_large"] += 1
            sentence = (
                f"a message of {len(outgoing.payload)} bytes for {outgoing.topic} was dropped: "
                f"at most {self._max_packet} bytes can be sent"
            )
            _log.error("%s", sentence)
            self._unsaid[outgoing.topic] = sentence
            return False
        self._away[self._token] = away
        self._token += 1
        self._link.send(outgoing)
        return True

    def _was_refused(self, away: _Away, why: str) -> None:
        if away.message is not None:
            self.dropped["refused"] += 1
            if away.message.answer is not None:
                return  # the asker's affair, who can name a new topic each time
        if away.topic in self._refused or away.retained in self.expected_refusals:
            return
        sentence = f"the broker refuses {away.topic}: {why}"
        self._refused[away.topic] = sentence
        _log.warning("%s", sentence)
        if away.topic != self.topics("error"):
            self._say(sentence)

    def _give_up(self, away: _Away) -> None:
        sentence = f"the broker hangs up over a message for {away.topic}: it was given up"
        _log.error("%s", sentence)
        self._unsaid[away.topic] = sentence
        if away.message is not None:
            self._outbox.acked(away.message)
            self.dropped["poison"] += 1
        if away.retained is not None:
            self._retained.forget(away.retained)
