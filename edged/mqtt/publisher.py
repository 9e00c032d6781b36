"""The facade of the MQTT client: all that leaves for the broker goes through `Publisher`."""

from __future__ import annotations

import itertools
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
from edged.events import Error, Event, Ready, Step, Turn
from edged.logs import log_event, log_exception
from edged.mqtt import commands, homeassistant
from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.commands import Command
from edged.mqtt.connection import Connection
from edged.mqtt.connection_status import ConnectionReport, ConnectionStatus
from edged.mqtt.exception_log_throttle import ExceptionLogThrottle
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.inbox import Batch, Inbox
from edged.mqtt.link_events import Received
from edged.mqtt.loss_reporter import LossReporter
from edged.mqtt.outbound import (
    answer_message,
    encode,
    event_message,
    step_message,
)
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool_settings import SpoolSettings

_log = logging.getLogger(__name__)
_GOODBYE_S = 1.0
_ROUND_S = 0.05
_AFTER_FAILURE_S = 0.2
_MAX_WAITING_ANSWERS = 256  # with so many, further commands wait at the broker


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """The publisher at one moment.

    Attributes:
        connected: whether the broker accepted the connection.
        auth_failed: whether the broker refuses the credentials.
        status: the status of the connection.
        last_error: the last error of the connection, even if it is over.
        depth: messages that the broker has not acknowledged.
        spooled, spooled_bytes: those on disk.
        sent: acknowledged publishes.
        dropped: how many messages were dropped since the start, by reason. `steps`, `reply`,
            `commands` and `live_copies` are expendable; any other reason is a loss that an
            `error` event tells.
        disk_error: what is wrong with the spool at present.
        damaged: how many damaged files were put aside.
    """

    connected: bool = False
    auth_failed: bool = False
    status: ConnectionStatus = ConnectionStatus.CONNECTING
    last_error: str | None = None
    depth: int = 0
    spooled: int = 0
    spooled_bytes: int = 0
    sent: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    disk_error: str | None = None
    damaged: int = 0


class Publisher:
    """Publishes events and states, and receives commands. Any thread may call it.

    No method waits for the network or the disk, except `stop`. The constructor opens nothing and
    cannot fail; `start` makes the MQTT thread.

    Args:
        broker: where to connect, and as whom.
        spool: where messages wait while the broker is away.
        on_command: gets well-formed commands, on the MQTT thread. It may raise queue.Full, which
            is answered with "busy".
        on_status: called at each change of the connection, on the MQTT thread.
        timing: waiting times.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        spool: SpoolSettings,
        on_command: Callable[[Command], None],
        on_status: Callable[[ConnectionReport], None],
        timing: Timing = Timing(),  # noqa: B008  (frozen)
        *,
        outbox: Outbox | None = None,
    ) -> None:
        self.session = uuid.uuid4().hex
        self._on_command = on_command
        self._on_status = on_status
        self._topics = broker.topics
        self._response_barred: tuple[str, ...] = ()
        self._step_every = 1
        self._seq = 0
        self._numbering = threading.Lock()
        self._answers = itertools.count(1)
        self._inbox = Inbox()
        self._outbox = outbox if outbox is not None else Outbox(spool, on_progress=self._keep_alive)
        self._connection = Connection(
            broker,
            self._outbox,
            self._inbox.put_link_event,
            self._status_changed,
            self._command,
            self._report_error,
            timing,
        )
        self._losses = LossReporter(self._report_error, timing.report_interval_s)
        self._malformed = 0
        self._warned: set[str] = set()
        self._exceptions = ExceptionLogThrottle()
        self._stats = PublisherStats()
        self._last_error: str | None = None
        self._beat = time.monotonic()
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="edged-mqtt", daemon=True)

    def start(self) -> None:
        self._beat = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Sends what it can, publishes offline, and keeps the rest on disk, within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        if not self._thread.is_alive():
            return
        self.call(lambda: setattr(self, "_stop_at", deadline - 0.2))
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            message = f"the MQTT thread did not end within {timeout_s:g} s"
            log_event(_log, logging.ERROR, "mqtt-thread-stuck", message)

    def event(self, event: Event, latency_ms: float | None = None) -> None:
        """Publishes one event. Steps are thinned out; all others are numbered and never lost.

        `latency_ms` is a turn's, from the end of speech, if it is known.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            if isinstance(event, Step):
                every = self._step_every
                if every and event.step_idx % every == 0:
                    self._inbox.put_step(step_message(event, self.session, now))
            elif not isinstance(event, Ready):
                with self._numbering:
                    message = event_message(event, self.session, self._seq + 1, now)
                    self._seq += 1
                    self._inbox.put_message(message)
                    if isinstance(event, Turn):
                        last = homeassistant.transcript(
                            event, self.session, self._seq, now, latency_ms
                        )
                        self._inbox.put_retained("state/transcript", encode(last))
        except (ValueError, TypeError) as error:
            self._malformed += 1
            message_text = f"a {event.type} message cannot be written as JSON and was dropped"
            log_exception(_log, "mqtt-malformed", message_text, error)

    def state(self, name: str, value: Mapping[str, Any] | str) -> None:
        """Publishes the retained `state/<name>`; only the last value counts."""
        if not re.fullmatch(r"[a-z0-9_]{1,64}", name):
            raise ValueError(f"the name of a state may have a-z, 0-9 and _, not {name!r}")
        self._inbox.put_retained(f"state/{name}", encode(value))

    def info(self, payload: Mapping[str, Any]) -> None:
        """Publishes the retained `info`."""
        self._inbox.put_retained("info", encode(payload))

    def reply(self, command: Command, ok: bool, error: str | None = None, **more: Any) -> None:
        """Answers a command, after all events before it; the answer is lost with the link."""
        body: dict[str, Any] = {"ok": ok}
        if error is not None:
            body["error"] = error
        asked = command.response_topic
        usable = self._topics.may_answer_at(asked, self._response_barred)
        topic = asked if asked and usable else self._topics.result_of(command.name)
        correlation = command.correlation if usable else None
        payload = encode(body | more)
        self._inbox.put_message(answer_message(next(self._answers), topic, payload, correlation))

    def homeassistant(self, settings: HomeAssistantSettings) -> None:
        """Announces the device, or removes it. Call it before `start` to connect only once."""
        self._response_barred = (settings.prefix,)
        self.call(lambda: self._connection.announce(settings))

    def step_every(self, n: int) -> None:
        """Publishes every n-th step from now on; 0 publishes none."""
        self._step_every = n

    def reconfigure(self, broker: BrokerSettings) -> None:
        """Connects anew with other settings, without losing anything."""

        def change() -> None:
            self._topics = broker.topics
            self._connection.reconfigure(broker)

        self.call(change)

    def call(self, action: Callable[[], None]) -> None:
        """Runs `action` on the MQTT thread."""
        self._inbox.call(action)

    def heartbeat_age_s(self) -> float:
        """Returns the seconds since the MQTT thread last finished a round, for the watchdog.

        Without trouble that is at most 0.5 s.
        """
        return time.monotonic() - self._beat

    def stats(self) -> PublisherStats:
        waiting = self._inbox.waiting  # first: a message is then counted twice, not missed
        stats = self._stats
        dropped = Counter(stats.dropped) + self._inbox.dropped
        return replace(stats, depth=stats.depth + waiting, dropped=dict(dropped))

    # Below: the MQTT thread.

    def _run(self) -> None:
        left = self._outbox.open()
        if left:
            message = f"{left} messages of an earlier run will be published first"
            log_event(_log, logging.INFO, "spool-found", message)
        while self._stop_at is None:
            self._guarded_round(self._connection.due_s(time.monotonic()))
        try:
            self._finish(self._stop_at)
        finally:
            self._outbox.close()
            self._update_stats()

    def _finish(self, deadline: float) -> None:
        """Sends what can be sent, then offline, then disconnects."""
        while self._connection.busy and time.monotonic() < deadline - _GOODBYE_S:
            self._guarded_round(_ROUND_S)
        if self._connection.report.connected:
            self._connection.say_offline()
            while (
                self._connection.retained_pending and time.monotonic() < deadline - _GOODBYE_S / 2
            ):
                self._guarded_round(_ROUND_S)
            self._connection.close()
            while not self._connection.closed and time.monotonic() < deadline:
                time.sleep(0.01)
        self._take(self._inbox.take(0), time.monotonic())

    def _guarded_round(self, timeout_s: float) -> None:
        """One round, which an unexpected exception must not end: nothing would be published then.

        Only a good round feeds the watchdog: a thread whose rounds all fail publishes nothing.
        """
        if self._exceptions.guard("a round", lambda: self._round(timeout_s)):
            self._keep_alive()
        else:
            time.sleep(_AFTER_FAILURE_S)

    def _keep_alive(self) -> None:
        self._beat = time.monotonic()

    def _round(self, timeout_s: float) -> None:
        room = max(0, _MAX_WAITING_ANSWERS - self._outbox.waiting_answers)
        batch = self._inbox.take(timeout_s, room)
        now = time.monotonic()
        self._take(batch, now)
        if self._connection.report.connected and not self._outbox.backlog:
            self._losses.report_losses(now, self._dropped() + self._inbox.dropped)
        self._losses.report_disk(now, self._outbox.disk_error, self._outbox.damaged)
        self._connection.tick(now)
        # After the texts of the same moment: nobody acknowledges a step, and a broker that uses
        # Nagle's algorithm (mosquitto's default) holds what follows back for 40 ms.
        for step in batch.steps:
            send = partial(self._connection.publish_step, step, now)
            self._exceptions.guard("a step", send)
        self._outbox.maintain()
        self._update_stats()

    def _take(self, batch: Batch, now: float) -> None:
        """Nothing else has this batch: an exception in one part must not lose the others."""
        for call in batch.calls:
            self._exceptions.guard("a call", call)
        for link, event in batch.link_events:
            handle = partial(self._connection.handle, link, event, now)
            self._exceptions.guard("an event of the link", handle)
        for name, payload in batch.retained.items():
            self._connection.set_retained(name, payload)
        if batch.messages:
            healthy = self._connection.link_healthy(now)
            add = partial(self._outbox.add, batch.messages, link_healthy=healthy)
            self._exceptions.guard("the outbox", add)

    def _command(self, name: str, received: Received) -> None:
        """Hands a well-formed command to the daemon; answers any other here."""
        asked = Command(name, None, received.response_topic, received.correlation)
        try:
            command = commands.parse(
                name,
                received.payload,
                retained=received.retained,
                response_topic=received.response_topic,
                correlation=received.correlation,
            )
            self._on_command(command)
        except RequestError as error:
            known = name if name in commands.NAMES else "unknown"  # anybody may make up others
            if received.retained and known not in self._warned:
                self._warned.add(known)
                log_event(_log, logging.WARNING, "mqtt-command-retained", str(error))
            self.reply(asked, False, str(error))
        except queue.Full:
            self.reply(asked, False, "busy: too many commands are waiting")
        except Exception:
            log_exception(_log, "mqtt-command-failed", f"the command {name[:40]!r} failed")
            self.reply(asked, False, "this command failed inside edged: see its log")

    def _status_changed(self, report: ConnectionReport) -> None:
        try:
            self._on_status(report)
        except Exception:
            log_exception(_log, "mqtt-listener-failed", "the daemon's on_status failed")

    def _report_error(self, message: str) -> None:
        self.event(Error(message))

    def _dropped(self) -> Counter[str]:
        """What was dropped behind the inbox."""
        found = self._outbox.dropped + self._connection.dropped
        return found + Counter(malformed=self._malformed)

    def _update_stats(self) -> None:
        report = self._connection.report
        if report.status.is_error:
            self._last_error = report.message
        self._stats = PublisherStats(
            connected=report.connected,
            auth_failed=report.status is ConnectionStatus.AUTH and not report.connected,
            status=report.status,
            last_error=self._last_error,
            depth=self._outbox.depth,
            spooled=self._outbox.spooled,
            spooled_bytes=self._outbox.spooled_bytes,
            sent=self._connection.sent,
            dropped=dict(self._dropped()),
            disk_error=self._outbox.disk_error,
            damaged=self._outbox.damaged,
        )
        self._inbox.settled()
