"""The captions page on another web server: from a real mosquitto, MQTT over WebSockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.captions_page import FakeApiServer, turn, word
from tests.support.chromium import Chromium, Page
from tests.support.deployed_broker import DeployedBroker
from tests.support.mosquitto import until

STATUS = "document.body.dataset.status"
LIVE = "document.querySelector('#live').textContent"


class FakeDevice:
    """Publishes what the device would publish."""

    def __init__(self, broker: DeployedBroker) -> None:
        self.commands: list[str] = []
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.username_pw_set("kitchen", broker.passwords["kitchen"])
        self.client.on_connect = lambda c, *_: c.subscribe("edged/kitchen/cmd/mute")
        self.client.on_message = lambda _, __, m: self.commands.append(m.payload.decode())
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.local_port)
        self.client.loop_start()

    def publish(self, name: str, value: Any, retain: bool = False) -> None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        self.client.publish(f"edged/kitchen/{name}", text, 1, retain).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedBroker]:
    folder: Path = tmp_path_factory.mktemp("kiosk") / "m"
    kit = DeployedBroker(folder, ws_tls=False)
    for device in ("kitchen", "hall"):
        kit.add_user(device)
    kit.add_user("kitchen", kiosk=True)
    with kit:
        yield kit


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def device(broker: DeployedBroker) -> Iterator[FakeDevice]:
    made = FakeDevice(broker)
    made.publish("availability", "online", retain=True)
    made.publish("state/mute", "off", retain=True)
    yield made
    made.close()


def config(broker: DeployedBroker, **more: str) -> str:
    values = {
        "mqtt": f"ws://127.0.0.1:{broker.ws_port}",
        "device": "kitchen",
        "base": "edged",
        "username": "kiosk-kitchen",
        "password": broker.passwords["kiosk-kitchen"],
        "theme": "",
        "hint": "",
    }
    return f"export default {json.dumps(values | more)};"


@pytest.fixture
def page(browser: Chromium, broker: DeployedBroker, device: FakeDevice) -> Iterator[Page]:
    with FakeApiServer(config(broker)) as web:
        opened = browser.page(web.url)
        opened.wait(f"{STATUS} == 'listening'", 20)
        yield opened
        opened.close()


def test_captions_come_from_the_broker(page: Page, device: FakeDevice) -> None:
    device.publish("text", word("café", 0.0))
    page.wait(f"{LIVE} == 'café'")
    device.publish("turn", turn("Café, please. " + "x" * 20_000, 0.0, 1.0))
    page.wait("document.querySelector('#log p')?.textContent.length == 20014")


def test_the_mute_button_sends_a_command_and_shows_the_devices_state(
    page: Page, device: FakeDevice
) -> None:
    assert page.text("#mute") == "Mute"
    page.js("document.querySelector('#mute').click()")
    until(lambda: device.commands == ["on"], "the command")
    assert page.js(STATUS) == "listening"  # until the device has done it
    device.publish("state/mute", "on", retain=True)
    page.wait(f"{STATUS} == 'muted'")
    assert page.js("document.querySelector('#mute').getAttribute('aria-pressed')") == "true"
    page.js("document.querySelector('#mute').click()")
    until(lambda: device.commands == ["on", "off"], "the command")


def test_the_button_can_be_reached_and_pressed_by_keyboard_and_by_thumb(page: Page) -> None:
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                  windowsVirtualKeyCode=9)  # fmt: skip
    assert page.js("document.activeElement.id") == "mute"
    assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.screen(800, 480)
    area = page.js("(({width, height}) => [width, height])"
                   "(document.querySelector('#mute').getBoundingClientRect())")  # fmt: skip
    assert min(area) >= 44  # CSS pixels, WCAG 2.5.5


def test_a_reload_shows_the_retained_states(page: Page, device: FakeDevice) -> None:
    device.publish(
        "state/mic", {"ok": False, "state": "lost", "message": "no microphone"}, retain=True
    )
    page.reload()
    page.wait(f"{STATUS} == 'no-microphone'")
    device.publish("state/mic", {"ok": True, "state": "running", "message": ""}, retain=True)
    device.publish("availability", "offline", retain=True)
    page.wait(f"{STATUS} == 'offline'")
    assert page.js("document.querySelector('#mute').disabled")


def test_the_page_outlives_a_restart_of_the_broker(
    page: Page, device: FakeDevice, broker: DeployedBroker
) -> None:
    broker.stop()
    page.wait(f"{STATUS} == 'unreachable'")
    broker.start()
    page.wait(f"{STATUS} == 'listening'", 30)
    until(device.client.is_connected, "the device is connected again", 30)
    device.publish("text", word("again", 5.0))
    page.wait(f"{LIVE}.endsWith('again')")


def test_wrong_credentials_are_reported_on_the_page(
    browser: Chromium, broker: DeployedBroker, device: FakeDevice
) -> None:
    with FakeApiServer(config(broker, password="wrong")) as web:
        page = browser.page(web.url)
        page.wait(f"{STATUS} == 'unreachable'", 20)
        said = page.text("#status")
        page.close()
    assert said in (
        "The broker refuses this page",
        "The broker does not know this user or password",
    )


def test_a_link_cannot_send_the_password_to_another_broker(
    browser: Chromium, broker: DeployedBroker, device: FakeDevice
) -> None:
    """With `?mqtt=` in the page's address, user and password of config.js were sent to the broker
    named there in the first packet."""
    with socket.create_server(("127.0.0.1", 0)) as thief, FakeApiServer(config(broker)) as web:
        thief.settimeout(0.5)
        page = browser.page(f"{web.url}?mqtt=ws://127.0.0.1:{thief.getsockname()[1]}")
        page.wait(f"{STATUS} == 'unreachable'", 20)
        with pytest.raises(TimeoutError):
            thief.accept()
        assert (
            page.text("#status")
            == "The broker must be set in config.js, not in the address of this page"
        )
        page.close()


def test_without_a_password_the_address_may_name_the_broker(
    browser: Chromium, broker: DeployedBroker, device: FakeDevice
) -> None:
    with FakeApiServer(config(broker, mqtt="", password="")) as web:
        page = browser.page(f"{web.url}?mqtt=ws://127.0.0.1:{broker.ws_port}")
        page.wait("document.querySelector('#status').innerText.startsWith('The broker')", 20)
        assert "config.js" not in page.text(
            "#status"
        )  # it was connected to, and requires a password
        page.close()


def test_a_page_without_a_device_reports_what_is_missing(
    browser: Chromium, broker: DeployedBroker
) -> None:
    with FakeApiServer(config(broker, device="")) as web:
        page = browser.page(web.url)
        page.wait("document.querySelector('#status').innerText.includes('config.js')", 20)
        page.close()


def test_packets_are_reassembled_however_they_were_split(page: Page) -> None:
    """A WebSocket frame may hold half a packet, or three (MQTT 3.1.1, section 6)."""
    found = page.js("""(async () => {
      const { firstPacket } = await import('./mqtt.js');
      const body = new Uint8Array(300).fill(7);
      const packet = new Uint8Array([0x30, 0xac, 0x02, ...body]);
      const found = [];
      for (const size of [0, 1, 2, 3, 302]) found.push(firstPacket(packet.slice(0, size)));
      const whole = firstPacket(new Uint8Array([...packet, 0xd0, 0]));
      found.push([whole.type, whole.body.length, whole.length]);
      found.push(firstPacket(new Uint8Array([0x30, 255, 255, 255, 255, 1])));
      found.push(firstPacket(new Uint8Array([0x30, 255, 255, 255, 127])));
      return found;
    })()""")
    assert found == [None, None, None, None, None, [3, 300, 303], "malformed", "malformed"]
