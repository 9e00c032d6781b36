"""Nothing that was said is lost: broker away, frozen or restarted, daemon killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edged.events import EndOfStream, Error, Flushed, Step, Text, Turn
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.mosquitto import Mosquitto, Subscriber, until
from tests.support.mqtt_publisher import IMPATIENT, Rig, assert_gapless, once, words

pytestmark = pytest.mark.broker


def test_each_message_carries_session_a_gapless_number_and_the_time(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        rig.publish_words(0, 3)
        rig.publisher.event(Turn("word0 word1 word2", 0, 0.4))
        rig.publisher.event(Flushed("a"))
        rig.publisher.event(Error("oops"))
        rig.publisher.event(EndOfStream())
        until(lambda: ear.on("end_of_stream"), "the last message")
        heard = ear.events()
        assert [m["seq"] for m in heard] == list(range(1, 11))
        assert {m["session"] for m in heard} == {rig.publisher.session}
        assert all(m["ts"].endswith("Z") and m["ts"][10] == "T" for m in heard)
        assert not any("delayed" in m for m in heard)
        assert all(h.qos == 1 and not h.retained for h in ear.on("text"))


def test_a_step_has_no_number_goes_at_once_and_expires(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        rig.publisher.step_every(3)
        for n in range(9):
            rig.publisher.event(Step(n))
        until(lambda: len(ear.on("step")) == 3, "three steps")
        heard = ear.on("step")
        assert [h.json()["step_idx"] for h in heard] == [0, 3, 6]
        assert all(h.qos == 0 and "seq" not in h.json() for h in heard)
        assert heard[0].properties.MessageExpiryInterval == 1
        assert heard[0].properties.ContentType == "application/json"


def test_words_go_before_the_step_that_they_came_with(tmp_path: Path) -> None:
    """A step went first, and nobody answers a step: the broker held the word behind it back until
    the subscriber's system acknowledged it, 40 ms later. (Nagle's algorithm, mosquitto's default.)
    """
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        for n in range(20):
            rig.publisher.event(Text(f"word{n}", n))
            rig.publisher.event(Step(n))
            until(lambda: len(ear.on("step")) > n, "the step")  # noqa: B023
        kinds = [h.topic.rpartition("/")[2] for h in ear.heard]
    assert [k for k in kinds if k in ("text", "step")] == ["text", "step"] * 20


def test_steps_are_dropped_and_counted_while_the_broker_is_away(tmp_path: Path) -> None:
    with Rig(tmp_path, 1) as rig:
        for n in range(10):
            rig.publisher.event(Step(n))
        until(lambda: rig.publisher.stats().dropped.get("steps") == 10, "ten counted")
        assert rig.publisher.stats().spooled == 0


def test_a_restarted_broker_gets_all_in_order_and_late_ones_are_marked(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Subscriber(broker.port) as ear,
        Rig(tmp_path, broker.port) as rig,
    ):
        rig.connected()
        rig.publish_words(0, 20)
        rig.drained()
        broker.stop()
        until(lambda: not rig.publisher.stats().connected, "the loss is noticed")
        rig.publish_words(20, 220)
        until(lambda: rig.publisher.stats().spooled == 400, "all on disk")
        broker.start()
        rig.connected()
        rig.publish_words(220, 240)
        rig.drained()
        until(lambda: len({m["seq"] for m in ear.events()}) == 480, "all heard")
        assert_gapless(ear.events())
        assert once(words(ear.events())) == [f"word{n}" for n in range(240)]
        late = {m["text"] for m in ear.events() if m["type"] == "text" and m.get("delayed")}
        assert {"word20", "word219"} <= late
        assert "word19" not in late
        assert rig.publisher.stats().spooled == 0


def test_a_healthy_broker_means_no_write_to_the_card(tmp_path: Path) -> None:
    """Steady writes kill SD cards: users lost theirs to peers' logs and databases."""
    with Mosquitto(tmp_path) as broker, Rig(tmp_path, broker.port) as rig:
        rig.connected()
        rig.publish_words(0, 100)
        rig.drained()
        assert not (tmp_path / "spool").exists()


def test_a_frozen_broker_sends_everything_to_disk_then_the_link_is_given_up(
    tmp_path: Path,
) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        with Rig(tmp_path, broker.port, timing=IMPATIENT) as rig:
            rig.connected()
            rig.publish_words(0, 5)
            rig.drained()
            broker.freeze(True)
            rig.publish_words(5, 30)
            until(lambda: rig.publisher.stats().spooled == 50, "all on disk")
            assert rig.publisher.stats().connected, "and that before the connection was given up"
            until(lambda: not rig.publisher.stats().connected, "given up")
            broker.freeze(False)
            rig.drained()
            until(lambda: words(ear.events())[-1:] == ["word29"], "the last word")
            assert_gapless(ear.events())


def test_a_broker_that_answers_slowly_keeps_the_order(tmp_path: Path) -> None:
    """And gets nothing twice: what went to disk unanswered is not read back on the same link."""
    patient = replace(IMPATIENT, keepalive_timeout_s=60)
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        with Rig(tmp_path, broker.port, timing=patient) as rig:
            rig.connected()
            for turn in range(3):
                broker.freeze(True)
                rig.publish_words(turn * 20, turn * 20 + 20)
                until(lambda: rig.publisher.stats().spooled, "on disk")
                broker.freeze(False)
            rig.drained()
            until(lambda: len(words(ear.events())) >= 60, "all heard")
            assert words(ear.events()) == [f"word{n}" for n in range(60)]
            assert_gapless(ear.events())


CHILD = """
import sys, threading
from pathlib import Path
from edged.events import Text
from edged.mqtt.spool_settings import SpoolSettings
from edged.mqtt.publisher import Publisher
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.broker_settings import BrokerSettings
from tests.support.mqtt_publisher import FAST
port, folder = int(sys.argv[1]), Path(sys.argv[2])
publisher = Publisher(
    BrokerSettings(BrokerAddress("127.0.0.1", port), device="kitchen"),
    SpoolSettings(folder / "spool", journal_dir=folder / "journal"),
    lambda command: None, lambda state: None, FAST,
)
publisher.start()
for line in sys.stdin:
    publisher.event(Text(line.strip(), 0.0))
    handed_over = threading.Event()
    publisher.call(handed_over.set)
    handed_over.wait()
    handed_over.clear()
    publisher.call(handed_over.set)  # the round before has put it into the journal or on disk
    handed_over.wait()
    print(publisher.stats().connected, flush=True)
"""


class Child:
    """A small daemon in a process of its own, to be killed."""

    def __init__(self, port: int, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(port), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def publish_words(self, first: int, last: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for n in range(first, last):
            self.process.stdin.write(f"word{n}\n")
            self.process.stdin.flush()
            self.connected = self.process.stdout.readline().strip() == "True"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def test_a_daemon_killed_while_the_broker_is_away_loses_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        child = Child(broker.port, tmp_path)
        child.publish_words(0, 50)
        until(lambda: len(ear.events()) >= 50, "the first fifty")
        broker.stop()
        child.publish_words(50, 400)
        child.kill()
        broker.start()
        with Rig(tmp_path, broker.port) as rig:
            rig.publisher.event(Text("after", 0.0))
            rig.connected().drained()
            until(lambda: words(ear.events())[-1:] == ["after"], "the newest")
        assert once(words(ear.events())) == [
            *(f"word{n}" for n in range(400)),
            "after",
        ]
        assert_gapless(ear.events())
        assert len({m["session"] for m in ear.events()}) == 2


def test_a_daemon_killed_before_the_broker_answered_loses_nothing(tmp_path: Path) -> None:
    """The link was up and believed to be well: these messages were in the journal only.

    It once killed the child 50 ms after the last word. On a busy machine the MQTT thread had not
    taken the words by then: the child now says a word is said when it has been handed over.
    """
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        child = Child(broker.port, tmp_path)
        child.publish_words(0, 1)
        until(lambda: len(ear.events()) == 1, "the first word")
        broker.freeze(True)
        child.publish_words(1, 60)
        assert child.connected, "it thought that the link was well"
        child.kill()
        broker.freeze(False)
        with Rig(tmp_path, broker.port) as rig:
            rig.publisher.event(Text("after", 0.0))
            rig.connected().drained()
            until(lambda: words(ear.events())[-1:] == ["after"], "the newest")
        assert once(words(ear.events())) == [
            *(f"word{n}" for n in range(60)),
            "after",
        ]


def test_stopping_says_offline_and_keeps_what_could_not_be_sent(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        with Rig(tmp_path, broker.port) as rig:
            rig.connected()
            rig.publish_words(0, 10)
        until(
            lambda: [h.payload for h in ear.on("availability")] == [b"online", b"offline"], "both"
        )
        assert len(ear.events()) == 20
        with Rig(tmp_path, broker.port) as rig:
            rig.connected()
            broker.freeze(True)
            rig.publish_words(10, 40)
            began = time.monotonic()
            rig.publisher.stop(2)
            assert time.monotonic() - began < 2.2
        broker.freeze(False)
        with Rig(tmp_path, broker.port) as rig:
            rig.connected().drained()
            until(lambda: words(ear.events())[-1:] == ["word39"], "the last")
        assert once(words(ear.events())) == [f"word{n}" for n in range(40)]


def test_what_a_full_spool_dropped_is_counted_and_said(tmp_path: Path) -> None:
    spool = SpoolSettings(tmp_path / "spool", max_mb=0.02)
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        broker.stop()
        with Rig(tmp_path, broker.port, spool=spool) as rig:
            rig.publish_words(0, 200)
            until(lambda: rig.publisher.stats().dropped.get("spool_full"), "some are dropped")
            broker.start()
            rig.connected().drained()
            errors = until(lambda: ear.on("error"), "an error says so")
        lost = rig.publisher.stats().dropped["spool_full"]
        assert f"{lost} because the spool was full" in errors[0].json()["message"]
        numbers = [m["seq"] for m in ear.events()]
        assert numbers == list(range(lost + 1, 402)), "the oldest went, the rest is gapless"


def test_what_a_disk_that_cannot_be_written_holds_up_stays_in_memory(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port) as ear:
        broker.stop()
        with Rig(tmp_path, broker.port) as rig:
            rig.publish_words(0, 30)
            until(lambda: rig.publisher.stats().disk_error, "the trouble is known")
            broker.start()
            rig.connected().drained()
            until(lambda: len(ear.events()) == 61, "all heard")
        assert "cannot be used" in ear.on("error")[0].json()["message"], "nobody was told once"
        assert words(ear.events()) == [f"word{n}" for n in range(30)]


def test_the_heartbeat_is_fresh_with_and_without_a_broker(tmp_path: Path) -> None:
    """It waited 0.3 s for a beat that was less than 2 s old, as that of the start still was."""
    with Mosquitto(tmp_path / "broker") as broker:
        for port in (1, broker.port):
            with Rig(tmp_path / str(port), port) as rig:
                began = time.monotonic()
                beaten = rig.publisher.heartbeat_age_s
                until(lambda: time.monotonic() - beaten() > began + 1, "a beat a second later", 10)  # noqa: B023
    assert not [t for t in threading.enumerate() if t.name.startswith("edged-mqtt")]
