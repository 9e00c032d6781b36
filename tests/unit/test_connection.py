"""The connection driven by hand: what went wrong only when two things went wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.homeassistant import HomeAssistantSettings
from edged.mqtt.link_events import Acknowledged, Disconnected, Received
from edged.mqtt.outbound import OutboundMessage, answer_message
from tests.support.fake_link import Driver


def text(n: int) -> OutboundMessage:
    return OutboundMessage(f"s:{n:012d}", "text", b'{"seq": %d}' % n)


def test_a_broker_that_goes_right_after_a_birth_does_not_keep_the_processor_busy(
    tmp_path: Path,
) -> None:
    """Home Assistant and its broker restart together: the birth comes, and the link goes within
    the five seconds before its answer. That answer stayed due for as long as the broker was away,
    so the MQTT thread went round without a pause: one core, all of it."""
    driver = Driver(tmp_path)
    driver.connection.announce(HomeAssistantSettings())
    driver.connect(100)
    driver.hear(Received("homeassistant/status", b"online", False, None, None), 101)
    assert driver.connection.due_s(106) == 0, "its answer is due"
    driver.hear(Disconnected(ConnectionStatus.NETWORK, "gone"), 101)
    driver.connection.retry_at = 130  # as after some failed tries
    assert driver.connection.due_s(110) > 0.4


def test_orders_that_waited_in_memory_are_not_live_when_the_broker_is_back(tmp_path: Path) -> None:
    """With a full or read-only disk they wait in memory, and were taken for live ones: each went
    to Home Assistant's event entity, where hours-old orders must not switch anything. Some even
    lacked `delayed`, because a disk that has just failed is not tried for five seconds."""
    (tmp_path / "spool").write_text("a file where the folder should be")
    driver = Driver(tmp_path)
    driver.connection.announce(HomeAssistantSettings())
    link = driver.connect(100)
    driver.outbox.add([text(0)], link_healthy=True)
    driver.connection.tick(100)
    assert link.on("event") == [b'{"seq": 0}'], "a live one is copied"
    driver.hear(Disconnected(ConnectionStatus.NETWORK, "gone"), 101)  # text 0 was not answered
    for n in (1, 2):
        driver.outbox.add([text(n)], link_healthy=False)
    link = driver.connect(10_000)
    driver.connection.tick(10_000)
    assert link.on("text") == [b'{"seq": %d, "delayed": true}' % n for n in range(3)]
    assert link.on("event") == []


@pytest.mark.parametrize("told", [True, False])
def test_two_devices_of_one_name_give_each_other_more_and_more_time(
    tmp_path: Path, told: bool
) -> None:
    """Each came back after five seconds, threw the other out, and had the link for five seconds,
    which counted as a good connection: so it went on for ever. Mosquitto 2.0 tells nobody why."""
    driver = Driver(tmp_path)
    evicted = Disconnected(
        ConnectionStatus.DUPLICATE if told else ConnectionStatus.NETWORK,
        "evicted",
        disconnected_by_peer=True,
    )
    now, waits = 100.0, [5.0]
    for _ in range(12):
        driver.connect(now)
        now += max(5.0, waits[-1])  # until the other one is back
        driver.hear(evicted, now)
        waits.append(driver.retry_in_s)
        now = driver.connection.retry_at
    assert all(wait >= 48 for wait in waits[-4:]), waits
    driver.connect(now)
    driver.hear(evicted, now + 400)
    assert driver.retry_in_s <= 6, "the other one has got another name"


def test_a_bad_radio_link_is_not_taken_for_another_device_forever(tmp_path: Path) -> None:
    """Three quick disconnections look like a rival. Then each link that lasted less than five
    minutes counted as one more: the device waited a minute each time, and blamed another one."""
    driver = Driver(tmp_path)
    closed = Disconnected(ConnectionStatus.NETWORK, "gone", disconnected_by_peer=True)
    now = 100.0
    kinds = []
    for life in (20, 20, 20, 200, 200):
        driver.connect(now)
        driver.hear(closed, now + life)
        kinds.append(driver.connection.report.status)
        now = driver.connection.retry_at
    assert kinds == [
        ConnectionStatus.NETWORK,
        ConnectionStatus.NETWORK,
        ConnectionStatus.DUPLICATE,
        ConnectionStatus.NETWORK,
        ConnectionStatus.NETWORK,
    ]
    assert "again and again" not in driver.connection.report.message


def test_a_device_with_a_new_name_is_not_blamed_for_what_befell_the_old_one(tmp_path: Path) -> None:
    """The first quick disconnection under the new name was the fourth in the count."""
    driver = Driver(tmp_path)
    closed = Disconnected(ConnectionStatus.NETWORK, "gone", disconnected_by_peer=True)
    for now in (100.0, 200.0, 300.0):
        driver.connect(now)
        driver.hear(closed, now + 20)
    before = driver.connection.report.status
    assert before is ConnectionStatus.DUPLICATE
    driver.connection.reconfigure(BrokerSettings(device="hall"))
    driver.connect(400)
    driver.hear(closed, 420)
    after = driver.connection.report.status
    assert after is ConnectionStatus.NETWORK


def test_answers_that_the_broker_refuses_are_counted_and_no_more(tmp_path: Path) -> None:
    """Each response topic that an ACL denies was remembered, said in an `error` event, and left
    the link in the state of a device without rights: whoever may ask could do that without end."""
    driver = Driver(tmp_path)
    link = driver.connect(100)
    for n in range(5):
        answer = answer_message(n, f"denied/{n}", b"{}", None)
        driver.outbox.add([answer], link_healthy=True)
    driver.connection.tick(100)
    for sent in link.sent:
        refused = 135 if sent.topic.startswith("denied/") else 0
        driver.hear(Acknowledged(sent.token, refused, "not authorized"), 100)
    assert driver.connection.dropped["refused"] == 5
    assert driver.errors == []
    assert driver.connection.report.status is ConnectionStatus.CONNECTED
