"""A flood of commands costs nobody else anything: no text is lost, no step waits long."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edged.events import Flushed, Step, Text
from edged.mqtt.commands import Command
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.mosquitto import Mosquitto, Subscriber, until
from tests.support.mqtt_publisher import Rig, assert_gapless
from tests.support.outbox import FULL, FaultyStore

pytestmark = [pytest.mark.broker, pytest.mark.slow]


class FlushingRig(Rig):
    """Answers each flush as the daemon does: with a numbered `flushed`, then the result."""

    def _command(self, command: Command) -> None:
        self.commands.append(command)
        self.publisher.event(Flushed(command.payload))
        self.publisher.reply(command, True, flush_id=command.payload)


class Speaker:
    """Publishes a step each 80 ms, and a word each second, until it is stopped."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._stop = threading.Event()
        self.steps = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Speaker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.08):
            if self.steps % 12 == 0:
                self._rig.publisher.event(Text(f"word{self.steps}", self.steps * 0.08))
            self._rig.publisher.event(Step(self.steps))
            self.steps += 1


@pytest.mark.parametrize(("disk_full", "count"), [(True, 9500), (False, 3000)])
def test_a_burst_of_commands_loses_no_numbered_message(
    tmp_path: Path, disk_full: bool, count: int
) -> None:
    """With a full disk, 9500 commands pushed 13 numbered messages out of memory. With a healthy
    one "4064 messages were lost" was reported though none was, fewer than half were answered, and
    steps paused for 6.7 s."""
    store = FaultyStore(tmp_path)
    store.write_error = FULL if disk_full else None
    spool = SpoolSettings(tmp_path / "spool", journal_dir=tmp_path / "journal")
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, ("edged/kitchen/#",)) as ear:
        outbox = Outbox(spool, store=store)
        with FlushingRig(tmp_path, broker.port, outbox=outbox) as rig:
            rig.connected()
            with Speaker(rig) as speaker:
                time.sleep(0.5)
                for n in range(count):
                    ear.client.publish("edged/kitchen/cmd/flush", str(n), 1)
                wait_for_answers(ear, count)
                rig.drained()
            until(lambda: len(ear.on("flushed")) == count, "all flushed")
            rig.drained()
            assert_gapless(ear.events())
            assert [m["flush_id"] for m in ear.events() if m["type"] == "flushed"] == list(
                range(count)
            )
            answers = [h.json()["flush_id"] for h in ear.on("result")]
            assert answers == list(range(count)), "each is answered, in order"
            assert [h.json() for h in ear.on("error") if "lost" in h.json()["message"]] == []
            published = speaker.steps
            assert len(ear.on("step")) > published * 0.9, "steps go on"


def wait_for_answers(ear: Subscriber, count: int) -> None:
    """Looks twice a second only: looking through all messages takes time from the others."""
    deadline = time.monotonic() + 300
    while len(ear.on("result")) < count:
        assert time.monotonic() < deadline, f"{len(ear.on('result'))} of {count} answers"
        time.sleep(0.5)
