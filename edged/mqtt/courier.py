"""Takes messages to the broker: connects, keeps to the window, notices refusals, tries again.

Everything here runs on the MQTT thread. Order of work on each connection: availability, info,
states and discovery (all retained), then what is waiting, oldest first.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from edged.events import to_json
from edged.mqtt import homeassistant
from edged.mqtt.backoff import Backoff, Suspicion
from edged.mqtt.client import Link
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.outbox import Outbox
from edged.mqtt.reports import Acked, Down, Incoming, Kind, LinkState, Outgoing, Report, Up
from edged.mqtt.retained import Retained
from edged.mqtt.settings import BrokerSettings, Timing
from edged.mqtt.spool import Message
from edged.mqtt.topics import Topics

_log = logging.getLogger(__name__)
WINDOW = 16  # mosquitto takes 20 at once; a broker's Receive Maximum may be less
OUR_MAX_PACKET = 256 * 1024
_STEP_EXPIRY_S = 1
_ANSWER_EXPIRY_S = 60
_LIVE_EXPIRY_S = 60
_COPIES = 64
_LASTING_S = 60


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


class Courier:
    """One at a time: `handle` what a link reports, then `tick`; `due_s` says when to come again."""

    def __init__(
        self,
        broker: BrokerSettings,
        outbox: Outbox,
        report: Callable[[Link, Report], None],
        on_state: Callable[[LinkState], None],
        on_command: Callable[[str, Incoming], None],
        say: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self.retained = Retained()
        self.dropped: Counter[str] = Counter()
        self.state = LinkState(False, Kind.CONNECTING, "not connected yet")
        self.sent = 0
        self._broker = broker
        self._topics = Topics(broker.base, broker.device)
        self._outbox = outbox
        self._report = report
        self._on_state = on_state
        self._on_command = on_command
        self._say = say
        self._timing = timing
        self._protocol = broker.protocol
        self._silences = 0
        self._evictions = 0
        self._backoff = Backoff(timing)
        self._suspicion = Suspicion()
        self._homeassistant: HomeAssistantSettings | None = None
        self._birth_at: float | None = None
        self._link: Link | None = None
        self._link_since = 0.0
        self._orphaned = False
        self._up: Up | None = None
        self._works = self.state
        self._retry_at = 0.0
        self._away: dict[int, _Away] = {}
        self._token = 0
        self._copies: deque[Message] = deque()
        self._refused: set[str] = set()  # names that the broker refuses at present
        self._unsaid: dict[str, str] = {}  # topic: what was wrong with one message, to be said

    @property
    def busy(self) -> bool:
        """Whether something could still be sent over the present connection."""
        return self._up is not None and bool(
            self._away or self.retained.pending or self._outbox.waiting
        )

    def proven(self, now: float) -> bool:
        """Whether the link is known to work: up, and nothing waits long for its answer."""
        return self._up is not None and self._unanswered_s(now) < self._timing.unproven_s

    def due_s(self, now: float) -> float:
        """Seconds until `tick` has something to do by the clock."""
        due = now + 0.5
        if self._link is None:
            due = min(due, self._retry_at)
        if self._birth_at is not None:
            due = min(due, self._birth_at)
        if self._away:
            due = min(due, now + self._timing.unproven_s / 2)
        return max(0.0, due - now)

    # What others want.

    def step(self, payload: bytes) -> None:
        """QoS 0, at once or never."""
        if self._up is None or self._link is None:
            self.dropped["steps"] += 1
            return
        self._link.send(Outgoing(0, self._topics("step"), payload, 0, expiry_s=_STEP_EXPIRY_S))

    def homeassistant(self, settings: HomeAssistantSettings) -> None:
        """Announces the device as `settings` say; a device that was announced is removed."""
        before = self._homeassistant
        self._homeassistant = settings
        if before and before.enabled and before.prefix != settings.prefix:
            self._announce(before, b"")
        described = to_json(homeassistant.discovery(self._topics, settings)).encode()
        self._announce(settings, described if settings.enabled else b"")
        birth = settings.enabled and settings.birth_topic
        was = before is not None and before.enabled and before.birth_topic
        if birth != was and self._link is not None:
            self._link.abort()  # subscriptions are made when connecting; the Will waits meanwhile

    def reconfigure(self, broker: BrokerSettings) -> None:
        """Connects anew; what the old broker has not answered goes to the new one."""
        old, self._broker = self._broker, broker
        moved = (old.url, old.base, old.device) != (broker.url, broker.base, broker.device)
        self._topics = Topics(broker.base, broker.device)
        self._protocol = broker.protocol
        self._backoff.reset()
        if self._homeassistant is not None:
            self.homeassistant(self._homeassistant)
        if self._link is not None:
            if self._up is not None and moved:
                topic = Topics(old.base, old.device)("availability")
                self._link.send(Outgoing(0, topic, b"offline", 1, retain=True))
                self._link.close()
            else:
                self._link.abort()
            self._ended(Down(Kind.CONNECTING, "reconnecting with new settings"), time.monotonic())
        self._retry_at = 0.0

    def disconnect(self) -> None:
        """Says goodbye. `gone` tells when it is over."""
        if self._link is not None:
            self._link.close()

    @property
    def gone(self) -> bool:
        return self._link is None or not self._link.alive

    # What a link reports.

    def handle(self, link: Link, report: Report, now: float) -> None:
        if link is not self._link:
            return  # an abandoned one
        match report:
            case Up():
                self._connected(report, now)
            case Acked():
                self._acked(report)
            case Incoming():
                self._incoming(report, now)
            case Down():
                self._ended(report, now)

    def _connected(self, up: Up, now: float) -> None:
        self._up = up
        self._link_since = now
        self._refused.clear()
        self.retained.set("availability", b"online")
        self.retained.all_again()
        host, port = self._broker.address
        version = "5" if up.protocol >= 5 else "3.1.1"
        self._works = LinkState(True, Kind.UP, f"connected to {host}:{port} (MQTT {version})")
        self._became(self._works)

    def _acked(self, answer: Acked) -> None:
        away = self._away.pop(answer.token, None)
        if away is None:
            return
        self.sent += 1
        self._suspicion.answered(away.key)
        if away.retained is not None:
            self.retained.done(away.retained)
        if away.message is not None:
            self._outbox.acked(away.message)
        if answer.reason >= 128:
            self._was_refused(away, answer.name)
        elif away.topic in self._refused:
            self._refused.discard(away.topic)
            _log.info("the broker accepts %s again", away.topic)
            if not self._refused:
                self._became(self._works)

    def _was_refused(self, away: _Away, why: str) -> None:
        if away.message is not None:
            self.dropped["refused"] += 1
        if away.topic in self._refused or (away.retained and self._is_removal(away.retained)):
            return
        self._refused.add(away.topic)
        sentence = f"the broker refuses {away.topic}: {why}"
        _log.warning("%s", sentence)
        self._became(LinkState(True, Kind.AUTH, sentence))
        if away.topic != self._topics("error"):
            self._say(sentence)

    def _incoming(self, message: Incoming, now: float) -> None:
        command = self._topics.command_of(message.topic)
        if command is not None:
            self._on_command(command, message)
        elif self._is_birth(message):
            # All devices hear it at once: spread the answers, as Home Assistant asks.
            self._birth_at = now + random.uniform(0, self._timing.birth_s)

    def _is_birth(self, message: Incoming) -> bool:
        settings = self._homeassistant
        return (
            settings is not None
            and settings.enabled
            and message.topic == settings.birth_topic
            and message.payload == b"online"
            and not message.retained
        )

    def _ended(self, down: Down, now: float) -> None:
        up, self._up = self._up, None
        if self._link is not None and self._link.dropped:
            self.dropped["steps"] += self._link.dropped
        self._link = None
        if down.by_broker and up is not None:
            culprit = self._suspicion.hung_up([a.key for a in self._away.values()])
            for away in [a for a in self._away.values() if a.key == culprit]:
                self._give_up(away)
        for away in self._away.values():
            if away.retained is not None:
                self.retained.done(away.retained)
        self._away.clear()
        self._copies.clear()
        self._outbox.link_lost()
        if up is not None and now - self._link_since >= self._timing.steady_s:
            self._backoff.reset()
        self._choose_protocol(down)
        if up is not None:
            down = self._judged(down, now)
        self._retry_at = now + self._backoff.wait_s(down.kind)
        self._became(LinkState(False, down.kind, down.message))

    def _judged(self, down: Down, now: float) -> Down:
        """Mosquitto 2.0 does not tell a client that another took its place: it just hangs up."""
        short = now - self._link_since < _LASTING_S and not self._suspicion.careful
        self._evictions = self._evictions + 1 if down.by_broker and short else 0
        if self._evictions < 3 or down.kind is not Kind.NETWORK:
            return down
        who = self._broker.client_id
        sentence = (
            f"the broker hangs up on {who} again and again: if another box has that name, "
            "give each its own EDGED_DEVICE"
        )
        return replace(down, kind=Kind.DUPLICATE, message=sentence)

    def _choose_protocol(self, down: Down) -> None:
        """MQTT 3.1.1 for brokers that refuse 5, be it by name or twice by silence."""
        if self._broker.protocol < 5:
            return
        if down.bad_version:
            self._protocol = 4
            self._backoff.reset()
        elif self._protocol >= 5:
            self._silences = self._silences + 1 if down.silent else 0
            if self._silences >= 2:
                self._protocol = 4
        elif self._silences:
            self._protocol, self._silences = 5, 1  # it may have been the network after all

    def _give_up(self, away: _Away) -> None:
        sentence = f"the broker hangs up over a message for {away.topic}: it was given up"
        _log.error("%s", sentence)
        self._unsaid[away.topic] = sentence
        if away.message is not None:
            self._outbox.acked(away.message)
            self.dropped["poison"] += 1
        if away.retained is not None:
            self.retained.forget(away.retained)

    def _became(self, state: LinkState) -> None:
        if state != self.state:
            calm = state.kind in (Kind.UP, Kind.CONNECTING, Kind.STOPPED)
            level = logging.INFO if calm else logging.WARNING
            _log.log(level, "broker: %s", state.message, extra={"MQTT_STATE": state.kind.value})
            self.state = state
            self._on_state(state)

    # By the clock.

    def tick(self, now: float) -> None:
        """Connects, sends what the window allows, and gives up what is dead."""
        if self._link is None:
            if now >= self._retry_at:
                self._connect(now)
            return
        if not self._link.alive:
            # Its last report is in the inbox by now, or it will never come: look once more.
            if self._orphaned:
                self._ended(Down(Kind.NETWORK, "the connection ended unexpectedly"), now)
            self._orphaned = True
            return
        if self._up is None:
            if now - self._link_since > 12 * self._timing.connect_s:  # a resolver that hangs
                self._link.abort()
                self._ended(Down(Kind.NETWORK, "no connection came about"), now)
            return
        waited = self._unanswered_s(now)
        if waited >= self._timing.dead_s:
            self._link.abort()
        elif waited >= self._timing.unproven_s:
            self._outbox.spill()
        if self._birth_at is not None and now >= self._birth_at:
            self._birth_at = None
            self.retained.states_again()
        self._fill_window(now)

    def _connect(self, now: float) -> None:
        subscriptions = [self._topics.commands]
        if self._homeassistant is not None and self._homeassistant.enabled:
            subscriptions.append(self._homeassistant.birth_topic)
        if self._broker.insecure and self._broker.tls:
            _log.warning("the broker's certificate is not checked: EDGED_MQTT_INSECURE is on")
        self._link_since = now
        self._orphaned = False
        self._link = Link(
            self._broker, self._protocol, tuple(subscriptions), self._report, self._timing
        )
        self._link.start()

    def _unanswered_s(self, now: float) -> float:
        oldest = next(iter(self._away.values()), None)
        return 0.0 if oldest is None else now - oldest.sent_at

    def _fill_window(self, now: float) -> None:
        assert self._up is not None
        window = 1 if self._suspicion.careful else min(WINDOW, self._up.receive_maximum)
        while len(self._away) < window:
            retained = self.retained.next()
            if retained is not None:
                self._send_retained(*retained, now)
            elif self._copies:
                self._send_copy(self._copies.popleft(), now)
            elif (message := self._outbox.next()) is not None:
                self._send(message, now)
            else:
                break
        if not self._away:
            self._suspicion.all_sent()
            self._tell()

    def _send_retained(self, name: str, payload: bytes, now: float) -> None:
        topic = name[1:] if name.startswith("/") else self._topics(name)
        away = _Away(topic, now, retained=name)
        if not self._publish(Outgoing(self._token, topic, payload, 1, retain=True), away):
            self.retained.done(name)

    def _send(self, message: Message, now: float) -> None:
        topic, correlation = message.answer or (self._topics(message.name), None)
        expiry = None if message.durable else _ANSWER_EXPIRY_S
        outgoing = Outgoing(
            self._token, topic, message.payload, 1, expiry_s=expiry, correlation=correlation
        )
        if not self._publish(outgoing, _Away(topic, now, message)):
            self._outbox.acked(message)
            return
        live = message.durable and message.row is None
        settings = self._homeassistant
        if live and settings and settings.enabled and message.name in homeassistant.EVENT_TYPES:
            if len(self._copies) >= _COPIES:
                self._copies.popleft()
                self.dropped["live_copies"] += 1
            self._copies.append(message)

    def _send_copy(self, message: Message, now: float) -> None:
        """What Home Assistant's event entity hears: live only, never sent again."""
        topic = self._topics("event")
        outgoing = Outgoing(self._token, topic, message.payload, 1, expiry_s=_LIVE_EXPIRY_S)
        self._publish(outgoing, _Away(topic, now))

    def _publish(self, outgoing: Outgoing, away: _Away) -> bool:
        """Hands it to the link; False for one that would make the broker hang up."""
        assert self._link is not None
        assert self._up is not None
        most = min(OUR_MAX_PACKET, self._up.maximum_packet)
        if outgoing.packet_bytes > most:
            self.dropped["too_large"] += 1
            sentence = (
                f"a message of {len(outgoing.payload)} bytes for {outgoing.topic} was dropped: "
                f"at most {most} bytes can be sent"
            )
            _log.error("%s", sentence)
            self._unsaid[outgoing.topic] = sentence
            return False
        self._away[self._token] = away
        self._token += 1
        self._link.send(outgoing)
        return True

    def _tell(self) -> None:
        """Says what went wrong with single messages, now that the rest is through."""
        while self._unsaid:
            self._say(self._unsaid.pop(next(iter(self._unsaid))))

    def _announce(self, settings: HomeAssistantSettings, payload: bytes) -> None:
        topic = homeassistant.discovery_topic(settings.prefix, self._broker.device)
        self.retained.set(f"/{topic}", payload)

    def _is_removal(self, name: str) -> bool:
        """A broker may well refuse what a device without Home Assistant has no rights to."""
        settings = self._homeassistant
        return name.startswith("/") and (settings is None or not settings.enabled)
