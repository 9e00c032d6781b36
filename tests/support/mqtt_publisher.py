"""A publisher under test, with short waits, and what it told its daemon."""

from __future__ import annotations

import queue
from dataclasses import replace
from pathlib import Path
from typing import Any

from edged.events import EndText, Text
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.commands import Command
from edged.mqtt.connection_status import ConnectionReport, ConnectionStatus
from edged.mqtt.outbox import Outbox
from edged.mqtt.publisher import Publisher
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.mosquitto import until

# Short where a test waits for it, long where a busy machine must not be taken for a dead broker.
FAST = Timing(
    connect_s=5,
    ack_timeout_s=2,
    keepalive_timeout_s=20,
    retry=(0.05, 0.2),
    retry_refused=(0.05, 0.2),
    stable_after_s=0.5,
    ha_birth_delay_s=0.1,
    will_delay_s=1,
    report_interval_s=0,
)

IMPATIENT = replace(FAST, ack_timeout_s=0.2, keepalive_timeout_s=3)


class Rig:
    """`with Rig(folder, port) as rig:` a started publisher for the device kitchen."""

    def __init__(
        self,
        folder: Path,
        port: int,
        timing: Timing = FAST,
        spool: SpoolSettings | None = None,
        answer: bool = True,
        outbox: Outbox | None = None,
        **broker: Any,
    ) -> None:
        asked: dict[str, Any] = {
            "address": BrokerAddress("127.0.0.1", port),
            "device": "kitchen",
        } | broker
        self.broker = BrokerSettings(**asked)
        self.states: list[ConnectionReport] = []
        self.commands: list[Command] = []
        self.full = False
        self.answer = answer
        self.spool = spool or SpoolSettings(folder / "spool", journal_dir=folder / "journal")
        self.publisher = Publisher(
            self.broker,
            self.spool,
            self._command,
            lambda report: self.states.append(report),
            timing,
            outbox=outbox,
        )

    def __enter__(self) -> Rig:
        self.publisher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.publisher.stop(3)

    def connected(self) -> Rig:
        until(lambda: self.publisher.stats().connected, f"connected: {self.states}")
        return self

    def publish_words(self, first: int, last: int) -> None:
        """The words first to last - 1, each with its end."""
        for n in range(first, last):
            self.publisher.event(Text(f"word{n}", n * 0.1))
            self.publisher.event(EndText(n * 0.1 + 0.1))

    def drained(self) -> None:
        until(lambda: self.publisher.stats().depth == 0, f"drained: {self.publisher.stats()}")

    def was(self, status: ConnectionStatus) -> ConnectionReport:
        """Waits for the first report with that status."""
        found = until(
            lambda: [s for s in list(self.states) if s.status is status], f"{status}: {self.states}"
        )
        report: ConnectionReport = found[0]
        return report

    def _command(self, command: Command) -> None:
        if self.full:
            raise queue.Full
        self.commands.append(command)
        if self.answer:
            self.publisher.reply(command, True)


def words(messages: list[Any]) -> list[str]:
    return [m["text"] for m in messages if m["type"] == "text"]


def once(items: list[str]) -> list[str]:
    """Without what was sent again."""
    return list(dict.fromkeys(items))


def assert_gapless(messages: list[Any]) -> None:
    """Per session: every seq from 1 on was heard, in order but for what was sent again."""
    last: dict[str, int] = {}
    for message in messages:
        before = last.get(message["session"], 0)
        assert message["seq"] <= before + 1, f"{before} is followed by {message}"
        last[message["session"]] = max(before, message["seq"])
