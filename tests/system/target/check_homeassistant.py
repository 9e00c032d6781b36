"""The blueprints and the dashboard in Home Assistant: `make test-homeassistant HASS=.../bin/hass`.

Not part of `make test`: Home Assistant needs 500 MB and its own Python environment, created by
`python3.13 -m venv ha && ha/bin/pip install homeassistant==2025.4.4`. It downloads the rest when it
starts for the first time (use `HASS="ha/bin/hass --skip-pip"` after that).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import Chromium
from tests.support.daemon_process import DaemonProcess
from tests.support.home_assistant import HomeAssistant
from tests.support.mosquitto import Mosquitto, Subscriber, until

KIT = Path(__file__).parents[3] / "deploy" / "homeassistant"
CONFIGURATION = """
logbook:
history:
input_boolean: {lamp: {name: Lamp}, television: {name: Television}}
media_player:
  - platform: universal
    name: TV
    state_template: "{{ 'playing' if is_state('input_boolean.television', 'on') else 'idle' }}"
lovelace:
  dashboards:
    edged-kitchen: {mode: yaml, title: edged, filename: dashboard.yaml}
automation:
  - alias: a phrase
    use_blueprint:
      path: edged/act_on_a_phrase.yaml
      input:
        speech: event.edged_kitchen
        phrases: "brown sugar"
        act: [{action: input_boolean.turn_on, target: {entity_id: input_boolean.lamp}}]
  - alias: a conversation
    use_blueprint:
      path: edged/turn_to_conversation.yaml
      input:
        speech: event.edged_kitchen
        answer:
          - action: mqtt.publish
            data: {topic: test/answer, payload: "{{ heard }} -> {{ answer }}"}
  - alias: deaf while the television speaks
    use_blueprint:
      path: edged/mute_while_media_plays.yaml
      input: {mute: switch.edged_kitchen_mute, player: media_player.tv}
"""
WHEN = "2025-01-01T00:00:00.000000+00:00"


def mqtt_entry(port: int) -> dict[str, Any]:
    """The config entry of the MQTT integration."""
    return {"domain": "mqtt", "entry_id": "1", "title": "broker", "version": 1,
            "minor_version": 2, "data": {"broker": "127.0.0.1", "port": port},
            "options": {}, "source": "user", "unique_id": None, "disabled_by": None,
            "pref_disable_new_entities": False, "pref_disable_polling": False,
            "created_at": WHEN, "modified_at": WHEN, "discovery_keys": {},
            "subentries": []}  # fmt: skip


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto) -> Iterator[HomeAssistant]:
    folder = tmp_path_factory.mktemp("home") / "config"
    shutil.copytree(KIT / "blueprints", folder / "blueprints")
    shutil.copy(KIT / "dashboard.yaml", folder)
    with (
        HomeAssistant(folder, CONFIGURATION, [mqtt_entry(broker.port)]) as home,
        DaemonProcess(
            tmp_path_factory.mktemp("device"), broker.port, "kitchen", alsa_device="sample"
        ),
    ):
        yield home


def test_a_turn_runs_the_phrase_and_reaches_the_conversation_agent(
    home: HomeAssistant, broker: Mosquitto
) -> None:
    with Subscriber(broker.port, ("test/answer",)) as ear:
        until(lambda: home.state("input_boolean.lamp")["state"] == "on", "the phrase", 180)
        until(lambda: ear.on("answer"), "the agent's answer", 60)
        heard, _, answer = ear.on("answer")[0].payload.decode().partition(" -> ")
    assert len(heard.split()) > 3
    assert answer


def test_while_the_television_speaks_the_device_is_muted(home: HomeAssistant) -> None:
    mute = "switch.edged_kitchen_mute"
    assert home.state(mute)["state"] == "off"
    home.call("input_boolean/turn_on", "input_boolean.television")
    until(lambda: home.state(mute)["state"] == "on", "muted", 30)
    home.call("input_boolean/turn_off", "input_boolean.television")
    until(lambda: home.state(mute)["state"] == "off", "unmuted", 30)


def test_every_entity_of_the_dashboard_is_there_and_it_is_shown(home: HomeAssistant) -> None:
    text = (KIT / "dashboard.yaml").read_text()
    names = {word.strip(" -\n") for word in text.replace("entity:", " ").split()
             if word.split(".")[0] in ("sensor", "binary_sensor", "switch", "button", "select",
                                       "number", "event")}  # fmt: skip
    assert len(names) > 15
    assert [name for name in names if home.state(name)["state"] is None] == []
    with Chromium() as browser:
        page = browser.page(f"{home.url}/manifest.json", 1400, 900)
        page.js(f"localStorage.setItem('hassTokens', {json.dumps(home.browser_tokens())}); 1")
        page.close()
        page = browser.page(f"{home.url}/edged-kitchen/speech", 1400, 900)
        time.sleep(20)  # its parts come one by one, in shadow trees of shadow trees
        picture = Path(os.environ.get("PICTURE", "/tmp/edged-homeassistant.png"))
        page.screenshot(picture)
        print(f"look at {picture}")
