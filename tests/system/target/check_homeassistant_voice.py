"""edged as the speech-to-text of Home Assistant's voice assistant, by its own Wyoming integration:
`make test-homeassistant HASS=.../bin/hass`. `check_homeassistant.py` says how to install it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from tests.support.api_process import EDGED, ServeProcess, serving
from tests.support.chromium import Chromium
from tests.support.home_assistant import HomeAssistant, HomeAssistantSocket
from tests.support.mosquitto import free_port, until

SAMPLES = Path(__file__).parents[3] / "models" / "samples"
LAMP = "1-lamp.flac"
COMMANDS = (LAMP, "2-large-mocha.flac", "3-cappuccino.flac")
CONFIGURATION = """
assist_pipeline:
wyoming:
input_boolean: {lamp: {name: Relay}}
light:
  - platform: template
    lights:
      living_room_lamp:
        friendly_name: Living room lamp
        unique_id: living_room_lamp
        value_template: "{{ is_state('input_boolean.lamp', 'on') }}"
        turn_on: {action: input_boolean.turn_on, target: {entity_id: input_boolean.lamp}}
        turn_off: {action: input_boolean.turn_off, target: {entity_id: input_boolean.lamp}}
"""
ENGINE = "stt.edged"
PIPELINE = {
    "name": "Kitchen",
    "language": "en",
    "conversation_engine": "conversation.home_assistant",
    "conversation_language": "en",
    "stt_engine": ENGINE,
    "stt_language": "en",
    "tts_engine": None,
    "tts_language": None,
    "tts_voice": None,
    "wake_word_entity": None,
    "wake_word_id": None,
}
STEP_S = 0.03
STEP_BYTES = 960
SILENCE = bytes(STEP_BYTES)
PATIENCE_S = 60  # of silence after a command, on a busy machine


@pytest.fixture(scope="module")
def wyoming() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def edged(wyoming: str) -> Iterator[ServeProcess]:
    with serving("--wyoming", wyoming) as served:
        yield served


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, edged: ServeProcess, wyoming: str
) -> Iterator[HomeAssistant]:
    """Home Assistant after the dialogues of its settings: an integration is added by host and
    port, and an assistant is made that uses it."""
    with HomeAssistant(tmp_path_factory.mktemp("home") / "config", CONFIGURATION) as home:
        until(lambda: home.state("light.living_room_lamp")["state"] == "off", "the lamp", 120)
        host, _, port = wyoming.rpartition(":")
        step = home.post("config/config_entries/flow", {"handler": "wyoming"})
        at = f"config/config_entries/flow/{step['flow_id']}"
        entry = home.post(at, {"host": host, "port": int(port)})
        assert (entry["type"], entry["title"]) == ("create_entry", "edged")
        until(lambda: home.state(ENGINE)["state"] is not None, "the entity", 60)
        yield home


@pytest.fixture
def socket(home: HomeAssistant) -> Iterator[HomeAssistantSocket]:
    with home.socket() as socket:
        known = socket.command("assist_pipeline/pipeline/list")["pipelines"]
        if not any(pipeline["name"] == PIPELINE["name"] for pipeline in known):
            made = socket.command("assist_pipeline/pipeline/create", **PIPELINE)
            socket.command("assist_pipeline/pipeline/set_preferred", pipeline_id=made["id"])
        yield socket


def pcm_16k(name: str) -> bytes:
    audio, rate = soundfile.read(SAMPLES / name, dtype="int16")
    assert rate == 16_000
    return bytes(audio.tobytes())


def text_by_edged(name: str) -> str:
    command = [*EDGED, "transcribe", str(SAMPLES / name)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def open_streams(edged: ServeProcess) -> int:
    families = text_string_to_metric_families(requests.get(f"{edged.url}/metrics").text)
    return int(next(f.samples[0].value for f in families if f.name == "edged_api_streams"))


class Speaker:
    """Speaks into a pipeline in real time, as a voice satellite does, and notes its events."""

    def __init__(self, socket: HomeAssistantSocket, end_stage: str, vad: bool) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self._handler = socket.start_pipeline(
            start_stage="stt",
            end_stage=end_stage,
            input={"sample_rate": 16_000, "no_vad": not vad},
        )
        self._next = time.monotonic()

    def speak(self, audio: bytes) -> None:
        for at in range(0, len(audio), STEP_BYTES):
            self._next += STEP_S
            self._collect(self._next - time.monotonic())
            if self.has("stt-end"):
                return
            self.socket.send_audio(self._handler, audio[at : at + STEP_BYTES])

    def end(self) -> None:
        """Ends the audio, as a button that is released does."""
        self.socket.send_audio(self._handler, b"")

    def has(self, kind: str) -> bool:
        return any(event["type"] == kind for event in self.events)

    def data(self, kind: str) -> dict[str, Any]:
        """The data of the first event of a kind, which is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.has(kind):
            assert time.monotonic() < deadline, f"no {kind}"
            self._collect(0.1)
        found: dict[str, Any] = next(e["data"] for e in self.events if e["type"] == kind)
        return found

    @property
    def text(self) -> str:
        return str(self.data("stt-end")["stt_output"]["text"]).strip()

    def _collect(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self.socket.event(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return
            assert event["type"] != "error", event
            self.events.append(event)


def test_it_offers_english_speech_to_text_by_its_entity(home: HomeAssistant) -> None:
    formats = home.session.get(f"{home.url}/api/stt/{ENGINE}").json()
    assert formats["languages"] == ["en"]
    assert formats["sample_rates"] == [16_000]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_ends_by_silence_becomes_its_text(
    socket: HomeAssistantSocket, name: str
) -> None:
    """Nobody ends the audio: Home Assistant detects the silence, or, from the version on that
    heeds `requires_external_vad`, edged alone does."""
    speaker = Speaker(socket, "stt", vad=True)
    speaker.speak(pcm_16k(name) + SILENCE * round(PATIENCE_S / STEP_S))
    assert speaker.text == text_by_edged(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_edged_has_ended_becomes_its_text(
    socket: HomeAssistantSocket, edged: ServeProcess, name: str
) -> None:
    """Home Assistant does not look for silence. The text that edged sends while audio still
    arrives must reach the pipeline, and the audio after it must do no harm."""
    speaker = Speaker(socket, "stt", vad=False)
    audio = pcm_16k(name)
    speaker.speak(audio[:32_000])
    assert open_streams(edged) == 1
    speaker.speak(audio[32_000:])
    deadline = time.monotonic() + PATIENCE_S
    while open_streams(edged) and not speaker.has("stt-end"):
        assert time.monotonic() < deadline, "edged did not end the turn"
        speaker.speak(SILENCE * 10)
    speaker.speak(SILENCE * 30)
    if not speaker.has("stt-end"):
        speaker.end()
    assert speaker.text == text_by_edged(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_audio_ends_with_it_becomes_its_text(
    socket: HomeAssistantSocket, name: str
) -> None:
    speaker = Speaker(socket, "stt", vad=False)
    speaker.speak(pcm_16k(name))
    speaker.end()
    assert speaker.text == text_by_edged(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_recording_that_is_posted_becomes_its_text(home: HomeAssistant, name: str) -> None:
    fields = "format=wav; codec=pcm; sample_rate=16000; bit_rate=16; channel=1; language=en"
    answer = home.session.post(
        f"{home.url}/api/stt/{ENGINE}",
        data=pcm_16k(name),
        headers={"X-Speech-Content": fields},
    ).json()
    assert answer["result"] == "success"
    assert answer["text"].strip() == text_by_edged(name)


def test_a_spoken_command_switches_the_lamp_on(
    home: HomeAssistant, socket: HomeAssistantSocket
) -> None:
    assert home.state("light.living_room_lamp")["state"] == "off"
    speaker = Speaker(socket, "intent", vad=True)
    speaker.speak(pcm_16k(LAMP) + SILENCE * round(PATIENCE_S / STEP_S))
    answer = speaker.data("intent-end")["intent_output"]["response"]
    assert answer["response_type"] == "action_done"
    until(lambda: home.state("light.living_room_lamp")["state"] == "on", "the lamp", 30)


def test_the_settings_show_edged_as_speech_to_text(
    home: HomeAssistant, socket: HomeAssistantSocket
) -> None:
    with Chromium() as browser:
        page = browser.page(f"{home.url}/manifest.json", 1000, 800)
        page.js(f"localStorage.setItem('hassTokens', {json.dumps(home.browser_tokens())}); 1")
        page.close()
        page = browser.page(f"{home.url}/config/voice-assistants/assistants", 1000, 800)
        page.js(
            """window.everything = function* (root) {
                 for (const e of root.querySelectorAll('*')) {
                   yield e;
                   if (e.shadowRoot) yield* everything(e.shadowRoot);
                 } }; 1"""
        )
        assistant = "e.tagName === 'HA-LIST-ITEM' && e.textContent.includes('Kitchen')"
        page.wait(f"[...everything(document)].some(e => {assistant})", 120)
        page.js(f"[...everything(document)].find(e => {assistant}).click(); 1")
        picker = f"e.tagName === 'HA-STT-PICKER' && e.value === '{ENGINE}'"
        page.wait(f"[...everything(document)].some(e => {picker})", 120)
        time.sleep(10)  # until it is drawn
        picture = Path(os.environ.get("VOICE_PICTURE", "/tmp/edged-homeassistant-voice.png"))
        page.screenshot(picture)
        print(f"look at {picture}")
