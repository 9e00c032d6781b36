"""The blueprints and the dashboard in Home Assistant: `make test-homeassistant HASS=.../bin/hass`.

Not part of `make test`: Home Assistant needs 500 MB and its own Python environment, created by
`python3.13 -m venv ha && ha/bin/pip install homeassistant==2025.4.4`. It downloads the rest when it
starts for the first time (use `HASS="ha/bin/hass --skip-pip"` after that).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.chromium import Chromium
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, free_port, until

KIT = Path(__file__).parents[3] / "deploy" / "homeassistant"
CONFIGURATION = """
homeassistant: {{name: Home, latitude: 48, longitude: 16, elevation: 0, time_zone: UTC}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
frontend:
config:
logbook:
history:
conversation:
input_boolean: {{lamp: {{name: Lamp}}, television: {{name: Television}}}}
media_player:
  - platform: universal
    name: TV
    state_template: "{{{{ 'playing' if is_state('input_boolean.television', 'on') else 'idle' }}}}"
lovelace:
  dashboards:
    edged-kitchen: {{mode: yaml, title: edged, filename: dashboard.yaml}}
automation:
  - alias: a phrase
    use_blueprint:
      path: edged/act_on_a_phrase.yaml
      input:
        speech: event.edged_kitchen
        phrases: "brown sugar"
        act: [{{action: input_boolean.turn_on, target: {{entity_id: input_boolean.lamp}}}}]
  - alias: a conversation
    use_blueprint:
      path: edged/turn_to_conversation.yaml
      input:
        speech: event.edged_kitchen
        answer:
          - action: mqtt.publish
            data: {{topic: test/answer, payload: "{{{{ heard }}}} -> {{{{ answer }}}}"}}
  - alias: deaf while the television speaks
    use_blueprint:
      path: edged/mute_while_media_plays.yaml
      input: {{mute: switch.edged_kitchen_mute, player: media_player.tv}}
"""
WHEN = "2025-01-01T00:00:00.000000+00:00"


class Home:
    """A Home Assistant whose MQTT integration is set up and that has one user."""

    def __init__(self, folder: Path, broker_port: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        (folder / ".storage").mkdir(parents=True)
        shutil.copytree(KIT / "blueprints", folder / "blueprints")
        shutil.copy(KIT / "dashboard.yaml", folder)
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=self.port))
        entry = {"domain": "mqtt", "entry_id": "1", "title": "broker", "version": 1,
                 "minor_version": 2, "data": {"broker": "127.0.0.1", "port": broker_port},
                 "options": {}, "source": "user", "unique_id": None, "disabled_by": None,
                 "pref_disable_new_entities": False, "pref_disable_polling": False,
                 "created_at": WHEN, "modified_at": WHEN, "discovery_keys": {},
                 "subentries": []}  # fmt: skip
        self._store("core.config_entries", 1, 5, {"entries": [entry]})
        steps = ["user", "core_config", "analytics", "integration"]
        self._store("onboarding", 4, 1, {"done": steps})

    def _store(self, key: str, version: int, minor: int, data: Any) -> None:
        text = {"version": version, "minor_version": minor, "key": key, "data": data}
        (self._folder / ".storage" / key).write_text(json.dumps(text))

    def __enter__(self) -> Home:
        hass = os.environ["HASS"].split()
        user: list[str | Path] = [
            hass[0],
            "--script",
            "auth",
            "-c",
            self._folder,
            "add",
            "maria",
            "a password",
        ]
        subprocess.run(user, check=True, capture_output=True)
        self._process = subprocess.Popen([*hass, "-c", self._folder])
        until(self._answers, "Home Assistant", 600)
        self.token = self._login()
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {self.token['access_token']}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return requests.get(f"{self.url}/auth/providers", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _login(self) -> dict[str, Any]:
        client = {"client_id": f"{self.url}/"}
        flow = {"handler": ["homeassistant", None], "redirect_uri": f"{self.url}/"}
        at = f"{self.url}/auth/login_flow"
        step = requests.post(at, json=client | flow).json()
        known = {"username": "maria", "password": "a password"}
        done = requests.post(f"{at}/{step['flow_id']}", json=client | known).json()
        ask = client | {"grant_type": "authorization_code", "code": done["result"]}
        token: dict[str, Any] = requests.post(f"{self.url}/auth/token", data=ask).json()
        return token

    def state(self, entity: str) -> dict[str, Any]:
        found = self._session.get(f"{self.url}/api/states/{entity}")
        return found.json() if found.ok else {"state": None, "attributes": {}}

    def call(self, service: str, entity: str) -> None:
        where = f"{self.url}/api/services/{service}"
        self._session.post(where, json={"entity_id": entity}).raise_for_status()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("device")
    with (
        Home(tmp_path_factory.mktemp("home") / "config", broker.port) as home,
        DaemonProcess(folder, broker.port, "kitchen", alsa_device="sample"),
    ):
        yield home


def test_a_turn_runs_the_phrase_and_reaches_the_conversation_agent(
    home: Home, broker: Mosquitto
) -> None:
    with Subscriber(broker.port, ("test/answer",)) as ear:
        until(lambda: home.state("input_boolean.lamp")["state"] == "on", "the phrase", 180)
        until(lambda: ear.on("answer"), "the agent's answer", 60)
        heard, _, answer = ear.on("answer")[0].payload.decode().partition(" -> ")
    assert len(heard.split()) > 3
    assert answer


def test_while_the_television_speaks_the_device_is_muted(home: Home) -> None:
    mute = "switch.edged_kitchen_mute"
    assert home.state(mute)["state"] == "off"
    home.call("input_boolean/turn_on", "input_boolean.television")
    until(lambda: home.state(mute)["state"] == "on", "muted", 30)
    home.call("input_boolean/turn_off", "input_boolean.television")
    until(lambda: home.state(mute)["state"] == "off", "unmuted", 30)


def test_every_entity_of_the_dashboard_is_there_and_it_is_shown(home: Home) -> None:
    text = (KIT / "dashboard.yaml").read_text()
    names = {word.strip(" -\n") for word in text.replace("entity:", " ").split()
             if word.split(".")[0] in ("sensor", "binary_sensor", "switch", "button", "select",
                                       "number", "event")}  # fmt: skip
    assert len(names) > 15
    assert [name for name in names if home.state(name)["state"] is None] == []
    token = home.token | {"hassUrl": home.url, "clientId": f"{home.url}/",
                          "expires": (time.time() + 1800) * 1000}  # fmt: skip
    with Chromium() as browser:
        page = browser.page(f"{home.url}/manifest.json", 1400, 900)
        page.js(f"localStorage.setItem('hassTokens', {json.dumps(json.dumps(token))}); 1")
        page.close()
        page = browser.page(f"{home.url}/edged-kitchen/speech", 1400, 900)
        time.sleep(20)  # its parts come one by one, in shadow trees of shadow trees
        picture = Path(os.environ.get("PICTURE", "/tmp/edged-homeassistant.png"))
        page.screenshot(picture)
        print(f"look at {picture}")
