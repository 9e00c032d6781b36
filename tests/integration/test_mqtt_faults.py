"""Unexpected exceptions on the MQTT thread lose nothing, and are logged once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.mosquitto import Mosquitto, Subscriber, until
from tests.support.mqtt_publisher import Rig, words

pytestmark = pytest.mark.broker


class BrokenOutbox(Outbox):
    """An outbox with a bug that a test switches on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(SpoolSettings(folder / "spool", journal_dir=folder / "journal"))
        self.fails_to_add = False
        self.fails_to_maintain = False
        self.failures = 0

    def add(self, messages: Iterable[OutboundMessage], *, link_healthy: bool) -> None:
        super().add(messages, link_healthy=link_healthy)
        if self.fails_to_add and not self.failures:
            self.failures += 1
            raise ZeroDivisionError("in the outbox")

    def maintain(self) -> None:
        if self.fails_to_maintain:
            raise ZeroDivisionError("in the outbox")
        super().maintain()


def test_a_fault_in_one_order_does_not_lose_the_words_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The words had left the inbox with the order, and went with it: not counted, not said. And
    of all the faults in the life of a process only the first was logged."""
    held, go_on = threading.Event(), threading.Event()

    def first() -> None:  # what follows comes in one batch
        held.set()
        assert go_on.wait(10)

    def wrong() -> None:
        raise ZeroDivisionError("once")

    def wrong_elsewhere() -> None:
        raise KeyError("twice")

    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        rig.publisher.call(first)
        assert held.wait(10)
        for do in (wrong, wrong, wrong_elsewhere):
            rig.publisher.call(do)
        rig.publish_words(0, 5)
        go_on.set()
        rig.drained()
        until(lambda: len(ear.events()) == 10, "all words")
        assert words(ear.events()) == [f"word{n}" for n in range(5)]
    assert caplog.text.count("ZeroDivisionError: once") == 1
    assert caplog.text.count("KeyError: 'twice'") == 1


def test_a_fault_of_the_outbox_loses_neither_words_nor_states(
    tmp_path: Path,
) -> None:
    """The new states of the batch came after the words, and went with the fault: the broker kept
    an old `state/mute` until the next change."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go_on.wait(10)

    outbox = BrokenOutbox(tmp_path)
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port, outbox=outbox) as rig,
    ):
        rig.connected()
        outbox.fails_to_add = True
        rig.publisher.call(hold)
        assert held.wait(10)
        rig.publish_words(0, 5)
        rig.publisher.state("mute", "on")
        go_on.set()
        until(lambda: len(ear.events()) == 10, "all words")
        until(lambda: ear.on("state/mute"), "the state")
        assert words(ear.events()) == [f"word{n}" for n in range(5)]
        assert outbox.failures == 1


def test_a_thread_whose_every_round_fails_does_not_feed_the_watchdog(
    tmp_path: Path,
) -> None:
    """The beat came before the round: a daemon that published nothing any more looked alive."""
    outbox = BrokenOutbox(tmp_path)
    with Rig(tmp_path, 1, outbox=outbox) as rig:
        until(lambda: rig.states, "it tries to connect")
        outbox.fails_to_maintain = True
        until(lambda: rig.publisher.heartbeat_age_s() > 1.5, "no beat", 10)
        outbox.fails_to_maintain = False
        until(lambda: rig.publisher.heartbeat_age_s() < 1, "a beat")
