"""The one door through which anything leaves for the broker.

`Publisher` numbers and stamps events, and owns the MQTT thread; nothing else publishes. Its
methods may be called from any thread and never wait for the network or the disk.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from edged.errors import RequestError
from edged.events import Error, Event, Ready, Step, Turn, to_json
from edged.mqtt import commands, homeassistant
from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.commands import Command
from edged.mqtt.connection import Connection
from edged.mqtt.connection_status import ConnectionReport, ConnectionStatus
from edged.mqtt.exception_log_throttle import ExceptionLogThrottle
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.inbox import Answer, Batch, Inbox, Numbered
from edged.mqtt.link_events import Received
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool import Message
from edged.mqtt.spool_settings import SpoolSettings
from edged.mqtt.topics import Topics

_log = logging.getLogger(__name__)
_GOODBYE_S = 1.0
_LOST = {
    "spool_full": "because the spool was full (the oldest first)",
    "too_old": "because they had waited too long",
    "memory_full": "because memory was full and the disk could not be written",
    "disk": "because the disk could not be written",
    "damaged": "because the spool on disk was damaged",
    "inbox_full": "because the MQTT thread was stuck",
    "malformed": "because they could not be written as JSON",
}


@dataclass(frozen=True, slots=True)
class Stats:
    """A moment of the publisher. `depth` counts messages not acknowledged, `spooled` those on disk.

    `dropped` says why and how many since the start: `steps`, `reply` and `live_copies` are
    expendable, every other reason is a loss that an `error` event has told or will tell.
    `disk_error` is present trouble with the spool; `damaged` counts files that were put aside.
    """

    connected: bool = False
    auth_failed: bool = False
    kind: ConnectionStatus = ConnectionStatus.CONNECTING
    last_error: str | None = None
    depth: int = 0
    spooled: int = 0
    spooled_bytes: int = 0
    sent: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    disk_error: str | None = None
    damaged: int = 0


class Publisher:
    """Thread-safe. The constructor opens nothing and cannot fail; `start` makes the MQTT thread.

    `on_command` gets well-formed commands; it may raise `queue.Full`, which is answered "busy".
    `on_state` hears of each change of the link. Both are called on the MQTT thread.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        spool: SpoolSettings,
        on_command: Callable[[Command], None],
        on_state: Callable[[ConnectionReport], None],
        timing: Timing = Timing(),  # noqa: B008  (frozen)
    ) -> None:
        self.session = uuid.uuid4().hex
        self._timing = timing
        self._on_command = on_command
        self._on_state = on_state
        self._topics = Topics(broker.base, broker.device)
        self._step_every = 1
        self._seq = 0
        self._numbering = threading.Lock()
        self._inbox = Inbox()
        self._outbox = Outbox(spool)
        self._courier = Connection(
            broker,
            self._outbox,
            self._inbox.report,
            self._told_state,
            self._command,
            self._say,
            timing,
        )
        self._dropped: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._tell_at = 0.0
        self._disk_told = False
        self._disk_tell_at = 0.0
        self._damaged_told = 0
        self._replies = 0
        self._warned: set[str] = set()
        self._faults = ExceptionLogThrottle()
        self._stats = Stats()
        self._last_error: str | None = None
        self._beat = time.monotonic()
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="edged-mqtt", daemon=True)

    def start(self) -> None:
        self._beat = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Sends what it can, says offline, keeps the rest on disk. Returns within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        if not self._thread.is_alive():
            return
        self._inbox.order(lambda: setattr(self, "_stop_at", deadline - 0.2))
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.error("the MQTT thread did not end within %g s", timeout_s)

    def event(self, event: Event, latency_ms: float | None = None) -> None:
        """Publishes one message. Every n-th step; all others are numbered and never lost.

        `latency_ms` is a turn's, from the end of speech, if it is known.
        """
        ts = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(event, Step):
            every = self._step_every
            if every and event.step_idx % every == 0:
                self._inbox.step(Numbered(event, 0, ts))
        elif not isinstance(event, Ready):
            with self._numbering:
                self._seq += 1
                self._inbox.event(Numbered(event, self._seq, ts, latency_ms))

    def state(self, name: str, value: Mapping[str, Any] | str) -> None:
        """The retained `state/<name>`; only the last value counts."""
        if not re.fullmatch(r"[a-z0-9_]{1,64}", name):
            raise ValueError(f"a state's name must be of a-z, 0-9 and _, not {name!r}")
        self._inbox.retain(f"state/{name}", _encode(value))

    def info(self, payload: Mapping[str, Any]) -> None:
        """The retained `info`."""
        self._inbox.retain("info", _encode(payload))

    def reply(self, command: Command, ok: bool, error: str | None = None, **more: Any) -> None:
        """Answers a command, after all events that came before; lost if the link is lost."""
        body: dict[str, Any] = {"ok": ok}
        if error is not None:
            body["error"] = error
        asked, usable = command.response_topic, self._topics.may_answer_at(command.response_topic)
        topic = asked if asked and usable else self._topics.result_of(command.name)
        correlation = command.correlation if usable else None
        self._inbox.event(Answer(_encode(body | more), topic, correlation))

    def homeassistant(self, settings: HomeAssistantSettings) -> None:
        """Announces the device, or removes it. Call it before `start` to connect only once."""
        self._inbox.order(lambda: self._courier.homeassistant(settings))

    def step_every(self, n: int) -> None:
        """Publishes every n-th step from now on; 0 publishes none."""
        self._step_every = n

    def reconfigure(self, broker: BrokerSettings) -> None:
        """Connects anew with other settings, without losing anything."""

        def change() -> None:
            self._topics = Topics(broker.base, broker.device)
            self._courier.reconfigure(broker)

        self._inbox.order(change)

    def heartbeat_age_s(self) -> float:
        """Since the MQTT thread last went round without a fault, for the watchdog. It goes round
        every 0.5 s."""
        return time.monotonic() - self._beat

    def stats(self) -> Stats:
        waiting = self._inbox.events  # first: an event is then counted twice rather than not at all
        stats = self._stats
        return replace(stats, depth=stats.depth + waiting)

    # Below: the MQTT thread.

    def _run(self) -> None:
        left = self._outbox.open()
        if left:
            _log.info("%d messages of an earlier run will be published first", left)
        while self._stop_at is None:
            self._guarded(self._courier.due_s(time.monotonic()))
        self._finish(self._stop_at)

    def _finish(self, deadline: float) -> None:
        try:
            self._part(deadline)
        finally:
            self._outbox.close()
            self._observe()

    def _part(self, deadline: float) -> None:
        """Sends what can be sent, then offline, then goodbye."""
        while self._courier.busy and time.monotonic() < deadline - _GOODBYE_S:
            self._guarded(0.05)
        if self._courier.state.connected:
            self._courier.retained.set("availability", b"offline")
            while self._courier.retained.pending and time.monotonic() < deadline - _GOODBYE_S / 2:
                self._guarded(0.05)
            self._courier.disconnect()
            while not self._courier.gone and time.monotonic() < deadline:
                time.sleep(0.01)
        self._take(self._inbox.take(0), time.monotonic())

    def _guarded(self, timeout_s: float) -> None:
        """One round, which a bug of ours must not end: then nothing would be published again.

        Only a good round feeds the watchdog: one that always fails publishes nothing either.
        """
        if self._faults.guard("a round", lambda: self._round(timeout_s)):
            self._beat = time.monotonic()
        else:
            time.sleep(0.2)

    def _round(self, timeout_s: float) -> None:
        batch = self._inbox.take(timeout_s)
        now = time.monotonic()
        self._take(batch, now)
        self._tell_losses(now)
        self._tell_disk(now)
        self._courier.tick(now)
        self._send_steps(batch.steps)
        self._outbox.maintain(now)
        self._observe()

    def _take(self, batch: Batch, now: float) -> None:
        """Nothing else has this batch: a fault in one thing must not lose the others."""
        for do in batch.orders:
            self._faults.guard("an order", do)
        for link, report in batch.reports:
            self._faults.guard("a report", partial(self._courier.handle, link, report, now))
        for name, payload in batch.retained.items():
            self._courier.retained.set(name, payload)
        messages = [m for m in map(self._message, batch.events) if m is not None]
        if messages:
            proven = self._courier.proven(now)
            self._faults.guard("the outbox", partial(self._outbox.add, messages, proven=proven))

    def _send_steps(self, steps: list[Numbered]) -> None:
        """Behind the words of the same moment: nobody answers a step, and a broker with Nagle's
        algorithm (mosquitto, unless told otherwise) holds what follows it back for 40 ms."""
        for step in steps:
            self._faults.guard("a step", partial(self._send_step, step))

    def _send_step(self, step: Numbered) -> None:
        self._courier.window.step(_encode(self._enveloped(step)))

    def _enveloped(self, item: Numbered) -> dict[str, Any]:
        envelope: dict[str, Any] = {"session": self.session}
        if item.seq:
            envelope["seq"] = item.seq
        return item.event.wire() | envelope | {"ts": item.ts}

    def _message(self, item: Numbered | Answer) -> Message | None:
        if isinstance(item, Answer):
            self._replies += 1
            where = (item.topic, item.correlation)
            return Message(f"reply:{self._replies}", "", item.payload, durable=False, answer=where)
        try:
            payload = _encode(self._enveloped(item))
            if isinstance(item.event, Turn):
                self._transcript(item.event, item)
        except Exception:
            _log.exception("a %s cannot be written as JSON", item.event.type)
            self._dropped["malformed"] += 1
            return None
        return Message(f"{self.session}:{item.seq:012d}", item.event.type, payload)

    def _transcript(self, turn: Turn, item: Numbered) -> None:
        last = homeassistant.transcript(turn, self.session, item.seq, item.ts, item.latency_ms)
        self._courier.retained.set("state/transcript", _encode(last))

    def _command(self, name: str, message: Received) -> None:
        """Well-formed commands go to the daemon; all others are answered here, and do nothing."""
        asked = Command(name, None, message.response_topic, message.correlation)
        try:
            command = commands.parse(
                name,
                message.payload,
                retained=message.retained,
                response_topic=message.response_topic,
                correlation=message.correlation,
            )
            self._on_command(command)
        except RequestError as problem:
            known = name if name in commands.NAMES else "unknown"  # anybody may make up others
            if message.retained and f"retained {known}" not in self._warned:
                self._warned.add(f"retained {known}")
                _log.warning("%s", problem)
            self.reply(asked, False, str(problem))
        except queue.Full:
            self.reply(asked, False, "busy: too many commands are waiting")
        except Exception:
            _log.exception("a command failed")
            self.reply(asked, False, "this command failed inside edged: see its log")

    def _told_state(self, state: ConnectionReport) -> None:
        try:
            self._on_state(state)
        except Exception:
            _log.exception("a fault in the daemon's on_state")

    def _say(self, sentence: str) -> None:
        self.event(Error(sentence))

    def _tell_losses(self, now: float) -> None:
        """One error for all losses of an episode, once the rest is through."""
        lost = {r: n - self._told[r] for r, n in self._losses().items() if n > self._told[r]}
        busy = not self._courier.state.connected or self._outbox.waiting
        if not lost or busy or now < self._tell_at:
            return
        self._tell_at = now + self._timing.report_interval_s
        self._told.update(lost)
        parts = [f"{n} {_LOST[reason]}" for reason, n in lost.items()]
        sentence = f"messages were lost: {', '.join(parts)}"
        _log.warning("%s", sentence)
        self._say(sentence)

    def _tell_disk(self, now: float) -> None:
        """Once per episode, at once: whoever hears it may still free the card in time."""
        trouble, damaged = self._outbox.disk_error, self._outbox.damaged
        if trouble is None:
            self._disk_told = False
        if now < self._disk_tell_at:
            return  # an error is a message too, which a bad card may fail over again
        if damaged > self._damaged_told:
            self._say("a damaged spool was put aside: what could not be read from it is lost")
        elif trouble is not None and not self._disk_told:
            self._disk_told = True
            self._say(trouble)
        else:
            return
        self._damaged_told = damaged
        self._disk_tell_at = now + self._timing.report_interval_s

    def _losses(self) -> Counter[str]:
        """Those of many messages; single ones the courier tells itself."""
        found = self._outbox.dropped + self._inbox.dropped + self._dropped
        return Counter({reason: n for reason, n in found.items() if reason in _LOST})

    def _observe(self) -> None:
        state = self._courier.state
        if state.status not in (
            ConnectionStatus.CONNECTED,
            ConnectionStatus.CONNECTING,
            ConnectionStatus.STOPPED,
        ):
            self._last_error = state.message
        dropped = (
            self._outbox.dropped
            + self._inbox.dropped
            + self._courier.window.dropped
            + self._dropped
        )
        self._stats = Stats(
            connected=state.connected,
            auth_failed=state.status is ConnectionStatus.AUTH and not state.connected,
            kind=state.status,
            last_error=self._last_error,
            depth=self._outbox.depth,
            spooled=self._outbox.spooled,
            spooled_bytes=self._outbox.spooled_bytes,
            sent=self._courier.window.sent,
            dropped=dict(dropped),
            disk_error=self._outbox.disk_error,
            damaged=self._outbox.damaged,
        )
        self._inbox.settled()


def _encode(value: Mapping[str, Any] | str) -> bytes:
    text = value if isinstance(value, str) else to_json(value)
    return text.encode(errors="replace")
