"""What went wrong only when two things went wrong at once: the courier and the window by hand."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edged.mqtt.broker_settings import BrokerSettings, Timing
from edged.mqtt.connection import Connection
from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.link_events import (
    Acknowledged,
    Connected,
    Disconnected,
    Outgoing,
    Received,
)
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool import Message
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.mosquitto import Ear, Mosquitto, until
from tests.support.mqtt_publisher import Rig, words


def text(n: int) -> Message:
    return Message(f"s:{n:012d}", "text", b'{"seq": %d}' % n)


class DeafLink:
    """Stands for a connection: keeps what it is given, and never ends by itself."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.dropped = 0
        self.alive = True

    def send(self, outgoing: Outgoing) -> None:
        self.sent.append(outgoing)

    def on(self, name: str) -> list[bytes]:
        return [o.payload for o in self.sent if o.topic == f"edged/kitchen/{name}"]


class Hand:
    """A courier whose link and clock are the test's."""

    def __init__(self, folder: Path, timing: Timing = Timing()) -> None:  # noqa: B008  (frozen)
        self.outbox = Outbox(SpoolSettings(folder / "spool", journal_dir=folder / "journal"))
        self.outbox.open()
        self.said: list[str] = []
        self.courier = Connection(
            BrokerSettings(device="kitchen"),
            self.outbox,
            lambda link, report: None,
            lambda state: None,
            lambda name, message: None,
            self.said.append,
            timing,
        )

    def up(self, now: float) -> DeafLink:
        self.link = DeafLink()
        self.courier._link = self.link  # type: ignore[assignment]
        self.hear(Connected(5, 20, 10**6), now)
        return self.link

    def hear(self, report: Connected | Acknowledged | Received | Disconnected, now: float) -> None:
        self.courier.handle(self.link, report, now)  # type: ignore[arg-type]


def test_a_broker_that_goes_right_after_a_birth_does_not_keep_the_processor_busy(
    tmp_path: Path,
) -> None:
    """Home Assistant and its broker restart together: the birth comes, and the link goes within
    the five seconds before its answer. That answer stayed due for as long as the broker was away,
    so the MQTT thread went round without a pause: one core, all of it."""
    hand = Hand(tmp_path)
    hand.courier.homeassistant(HomeAssistantSettings())
    hand.up(100)
    hand.hear(Received("homeassistant/status", b"online", False, None, None), 101)
    assert hand.courier._birth_at is not None
    hand.hear(Disconnected(ConnectionStatus.NETWORK, "gone"), 101)
    hand.courier._retry_at = 130  # as after some failed tries
    assert hand.courier.due_s(110) > 0.4


def test_orders_that_waited_in_memory_are_not_live_when_the_broker_is_back(tmp_path: Path) -> None:
    """With a full or read-only card they wait in memory, and were taken for live ones: each went
    to Home Assistant's event entity, where hours-old orders must not switch anything. Some even
    lacked `delayed`, because a disk that has just failed is not tried for five seconds."""
    (tmp_path / "spool").write_text("a file where the folder should be")
    hand = Hand(tmp_path)
    hand.courier.homeassistant(HomeAssistantSettings())
    link = hand.up(100)
    hand.outbox.add([text(0)], proven=True)
    hand.courier.window.fill(100)
    assert link.on("event") == [b'{"seq": 0}'], "a live one is copied"
    hand.hear(Disconnected(ConnectionStatus.NETWORK, "gone"), 101)  # text 0 was not answered
    for n in (1, 2):
        hand.outbox.add([text(n)], proven=False)
    link = hand.up(10_000)
    hand.courier.window.fill(10_000)
    assert link.on("text") == [b'{"seq": %d, "delayed": true}' % n for n in range(3)]
    assert link.on("event") == []


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

    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        rig.publisher._inbox.order(first)
        assert held.wait(10)
        for do in (wrong, wrong, wrong_elsewhere):
            rig.publisher._inbox.order(do)
        rig.say(0, 5)
        go_on.set()
        rig.drained()
        until(lambda: len(ear.events()) == 10, "all words")
        assert words(ear.events()) == [f"word{n}" for n in range(5)]
    assert caplog.text.count("ZeroDivisionError: once") == 1
    assert caplog.text.count("KeyError: 'twice'") == 1


def test_a_fault_of_the_outbox_loses_neither_words_nor_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new states of the batch came after the words, and went with the fault: the broker kept
    an old `state/mute` until the next change."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go_on.wait(10)

    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        outbox = rig.publisher._outbox
        write, failed = outbox._write_journal, []

        def wrong_once(messages: list[Message]) -> None:
            if not failed:
                failed.append(messages)
                raise ZeroDivisionError("in the outbox")
            write(messages)

        monkeypatch.setattr(outbox, "_write_journal", wrong_once)
        rig.publisher._inbox.order(hold)
        assert held.wait(10)
        rig.say(0, 5)
        rig.publisher.state("mute", "on")
        go_on.set()
        until(lambda: len(ear.events()) == 10, "all words")
        until(lambda: ear.on("state/mute"), "the state")
        assert words(ear.events()) == [f"word{n}" for n in range(5)]
        assert failed


def test_a_thread_whose_every_round_fails_does_not_feed_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beat came before the round: a daemon that published nothing any more looked alive."""
    with Rig(tmp_path, 1) as rig:
        until(lambda: rig.states, "it tries to connect")
        with monkeypatch.context() as broken:
            broken.setattr(rig.publisher._courier, "tick", lambda now: 1 / 0)
            until(lambda: rig.publisher.heartbeat_age_s() > 1.5, "no beat", 10)
        until(lambda: rig.publisher.heartbeat_age_s() < 1, "a beat")


@pytest.mark.parametrize("told", [True, False])
def test_two_boxes_of_one_name_give_each_other_more_and_more_time(
    tmp_path: Path, told: bool
) -> None:
    """Each came back after five seconds, threw the other out, and had the link for five seconds,
    which counted as a good connection: so it went on for ever. Mosquitto 2.0 tells nobody why."""
    hand = Hand(tmp_path)
    evicted = Disconnected(
        ConnectionStatus.DUPLICATE if told else ConnectionStatus.NETWORK,
        "evicted",
        disconnected_by_peer=True,
    )
    now, waits = 100.0, [5.0]
    for _ in range(12):
        hand.up(now)
        now += max(5.0, waits[-1])  # until the other one is back
        hand.hear(evicted, now)
        waits.append(hand.courier._retry_at - now)
        now = hand.courier._retry_at
    assert all(wait >= 48 for wait in waits[-4:]), waits
    hand.up(now)
    hand.hear(evicted, now + 400)
    assert hand.courier._retry_at - (now + 400) <= 6, "the other one has got another name"


def test_a_bad_radio_link_is_not_taken_for_another_box_for_ever(tmp_path: Path) -> None:
    """Three quick hang-ups look like a rival. Then each link that lasted less than five minutes
    counted as one more: the box waited a minute each time, and blamed another box for days."""
    hand = Hand(tmp_path)
    hung_up = Disconnected(ConnectionStatus.NETWORK, "gone", disconnected_by_peer=True)
    now = 100.0
    kinds = []
    for life in (20, 20, 20, 200, 200):
        hand.up(now)
        hand.hear(hung_up, now + life)
        kinds.append(hand.courier.state.status)
        now = hand.courier._retry_at
    assert kinds == [
        ConnectionStatus.NETWORK,
        ConnectionStatus.NETWORK,
        ConnectionStatus.DUPLICATE,
        ConnectionStatus.NETWORK,
        ConnectionStatus.NETWORK,
    ]
    assert "hangs up" not in hand.courier.state.message


def test_a_box_with_a_new_name_is_not_blamed_for_what_befell_the_old_one(tmp_path: Path) -> None:
    """The first quick hang-up under the new name was the fourth in the count."""
    hand = Hand(tmp_path)
    hung_up = Disconnected(ConnectionStatus.NETWORK, "gone", disconnected_by_peer=True)
    for now in (100.0, 200.0, 300.0):
        hand.up(now)
        hand.hear(hung_up, now + 20)
    assert hand.courier.state.status is ConnectionStatus.DUPLICATE
    hand.courier.reconfigure(BrokerSettings(device="hall"))
    hand.up(400)
    hand.hear(hung_up, 420)
    assert hand.courier.state.status is ConnectionStatus.NETWORK


def test_answers_that_the_broker_refuses_are_counted_and_no_more(tmp_path: Path) -> None:
    """Each response topic that an ACL denies was remembered, said in an `error` event, and left
    the link in the state of a box without rights: whoever may ask could do that without end."""
    hand = Hand(tmp_path)
    link = hand.up(100)
    for n in range(5):
        answer = Message(f"reply:{n}", "", b"{}", durable=False, answer=(f"denied/{n}", None))
        hand.outbox.add([answer], proven=True)
    hand.courier.window.fill(100)
    for sent in link.sent:
        refused = 135 if sent.topic.startswith("denied/") else 0
        hand.hear(Acknowledged(sent.token, refused, "not authorized"), 100)
    assert hand.courier.window.dropped["refused"] == 5
    assert hand.said == []
    assert hand.courier.state.status is ConnectionStatus.CONNECTED
