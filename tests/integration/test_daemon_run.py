"""A real `edged run` with models, mosquitto, speech, signals and the socket of systemd."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.alsa_paced import DEVICE, PacedMicrophone
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, free_port, until

LISTENING = "0A"  # in /proc/net/tcp


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "first") as running:
        yield running


def state(ear: Subscriber, name: str) -> Any:
    """The last `state/<name>`; None if there is none."""
    found = ear.on(f"state/{name}")
    if not found:
        return None
    text = found[-1].payload.decode()
    return json.loads(text) if text.startswith(("{", "[")) else text


def ask(ear: Subscriber, command: str, payload: str) -> Any:
    """Publishes a command and waits for its answer."""
    until(lambda: ear.on("availability"), "the device is online", 15)
    before = len(ear.on(f"cmd/{command}/result"))
    ear.publish(f"edged/device/cmd/{command}", payload)
    until(lambda: len(ear.on(f"cmd/{command}/result")) > before, f"an answer to {command}")
    return ear.on(f"cmd/{command}/result")[-1].json()


def gapless(events: list[Any]) -> bool:
    return [e["seq"] for e in events] == list(range(1, len(events) + 1))


def test_speech_becomes_words_and_a_stop_in_mid_sentence_loses_none(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        Subscriber(broker.port, ("edged/#",)) as ear,
        DaemonProcess(tmp_path, broker.port) as daemon,
    ):
        assert "playing" in daemon.systemd.status
        until(lambda: len(ear.on("text")) >= 3, "three words", 20)
        assert state(ear, "speaking") == "on"
        answer = ask(ear, "flush", '"mine"')
        assert answer == {"ok": True, "flush_id": "mine"}
        until(lambda: len(ear.on("text")) >= 8, "more words", 20)
        assert daemon.stop() < 5
        until(lambda: ear.on("availability")[-1].payload == b"offline", "offline")
        events = ear.events()
    assert gapless(events)
    assert len({e["session"] for e in events}) == 1
    kinds = [e["type"] for e in events]
    assert kinds.index("flushed") > kinds.index("text")
    assert kinds[-2:] == ["turn", "end_of_stream"]
    steps = [s.json()["step_idx"] for s in ear.on("step")]
    assert steps == sorted(set(steps))
    assert len(events[-2]["text"].split()) >= 6
    assert daemon.systemd.lines("STOPPING=1")
    assert [line.split("=")[0] for _, line in daemon.systemd.received].index("READY") > 0


def test_a_daemon_without_api_listens_on_no_port_and_loads_none_of_its_libraries(
    tmp_path: Path, broker: Mosquitto
) -> None:
    """Protocols that are off cost nothing: Gradium, OpenAI, Wyoming, captions, metrics."""
    with DaemonProcess(tmp_path, broker.port) as daemon:
        assert daemon.process is not None
        proc = Path("/proc", str(daemon.process.pid))
        sockets = {os.readlink(fd) for fd in (proc / "fd").iterdir() if fd.is_symlink()}
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                is_open = table.startswith("udp") or fields[3] == LISTENING
                assert not (is_open and f"socket:[{fields[9]}]" in sockets), line
        mapped = (proc / "maps").read_text(encoding="utf-8")
        for library in ("aiohttp", "zeroconf", "multidict"):
            assert library not in mapped


def test_a_stop_while_the_models_load_ends_it(tmp_path: Path, broker: Mosquitto) -> None:
    with Subscriber(broker.port, ("edged/#",)) as ear:
        daemon = DaemonProcess(tmp_path, broker.port).start(ready=False)
        with contextlib.ExitStack() as after:
            after.push(daemon.__exit__)
            until(lambda: "loading" in daemon.systemd.status, "it loads")
            assert daemon.systemd.lines("EXTEND_TIMEOUT_USEC=")
            assert daemon.stop() < 5
        assert [h.payload for h in ear.on("availability")][-1:] in ([], [b"offline"])


def test_ready_is_sent_without_a_broker_and_without_a_microphone(tmp_path: Path) -> None:
    """systemd must not restart a device for ever that boots before its router."""
    with DaemonProcess(tmp_path, free_port(), alsa_device="hw:CARD=Nowhere") as daemon:
        assert "Nowhere" in daemon.systemd.status
        until(lambda: "no broker" in daemon.systemd.status, daemon.systemd.status)
        assert daemon.stop() < 5


def test_the_watchdog_is_fed_though_microphone_and_broker_are_away(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, free_port(), alsa_device="file:/nowhere.wav")
    daemon.environment = {"WATCHDOG_USEC": "1500000"}
    with daemon:
        until(lambda: len(daemon.systemd.lines("WATCHDOG=1")) >= 4, "four signs of life", 10)


def test_a_watchdog_meant_for_another_process_is_not_fed(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, free_port(), alsa_device="file:/nowhere.wav")
    daemon.environment = {"WATCHDOG_USEC": "600000", "WATCHDOG_PID": "1"}
    with daemon:
        time.sleep(1.5)
        assert not daemon.systemd.lines("WATCHDOG=1")


def test_a_reload_changes_live_settings_without_a_lost_step(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        Subscriber(broker.port, ("edged/#",)) as ear,
        DaemonProcess(tmp_path, broker.port) as daemon,
    ):
        until(lambda: ear.on("step"), "steps", 20)
        daemon.write(delay_in_frames=12, turn_silence_ms=900, device="other")
        daemon.signal(signal.SIGHUP)
        until(lambda: (state(ear, "config") or {}).get("changed"), "the reload is confirmed")
        count = len(ear.on("step"))
        until(lambda: len(ear.on("step")) > count + 10, "more steps")
        found = state(ear, "config")
        assert found["ok"] is True
        assert found["changed"] == ["delay_in_frames", "turn_silence_ms"]
        assert found["at_next_start"] == ["device"]
        assert len(found["files"][0]["sha256"]) == 64
        until(lambda: state(ear, "settings")["delay_in_frames"] == 12, "state/settings")
        steps = [s.json()["step_idx"] for s in ear.on("step")]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        assert len({s.json()["session"] for s in ear.on("step")}) == 1
        said = [line.split("=")[0] for _, line in daemon.systemd.received]
        reloading = said.index("RELOADING")
        assert said[reloading + 1] == "MONOTONIC_USEC"
        assert "READY" in said[reloading + 2 :]


def test_an_invalid_file_changes_nothing_and_is_reported_everywhere(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        Subscriber(broker.port, ("edged/#",)) as ear,
        DaemonProcess(tmp_path, broker.port) as daemon,
    ):
        before = until(lambda: state(ear, "settings"), "the settings")
        daemon.write(delay_in_frames=13, temp=7, vad_threshold=0.7)
        daemon.signal(signal.SIGHUP)
        until(lambda: (state(ear, "config") or {}).get("ok") is False, "the refusal")
        found = state(ear, "config")
        assert len(found["problems"]) == 2
        assert "EDGED_DELAY_IN_FRAMES" in " ".join(found["problems"])
        assert len(found["files"][0]["sha256"]) == 64
        until(lambda: "were not applied" in daemon.systemd.status, "STATUS says so")
        assert "EDGED_TEMP" in daemon.log()
        assert state(ear, "settings") == before
        answer = ask(ear, "reload", "")
        assert answer["ok"] is False
        assert "EDGED_TEMP" in answer["error"]
        daemon.write(delay_in_frames=14, temp=0.2)
        assert ask(ear, "reload", "")["ok"] is True
        until(lambda: "were not applied" not in daemon.systemd.status, "STATUS is right again")
        assert daemon.systemd.lines("READY=1")


def test_other_settings_reopen_only_what_they_must(tmp_path: Path, broker: Mosquitto) -> None:
    """A pushed file moves the device to another microphone, another broker and more threads: the
    stream goes on in one session."""
    with Mosquitto(tmp_path / "second") as second, Subscriber(second.port, ("edged/#",)) as there:
        with (
            Subscriber(broker.port, ("edged/#",)) as ear,
            DaemonProcess(tmp_path, broker.port) as daemon,
        ):
            until(lambda: ear.on("step"), "steps", 20)
            session = ear.on("step")[-1].json()["session"]
            sample = Path(daemon.settings["alsa_device"].removeprefix("file:"))
            daemon.write(alsa_device=f"file:{sample.with_name('sojourn.flac')}", threads=2)
            found = ask(ear, "reload", "")
            assert found["changed"] == ["alsa_device", "threads"]
            until(lambda: "sojourn" in state(ear, "mic")["message"], "the other microphone")
            daemon.write(mqtt_url=f"mqtt://127.0.0.1:{second.port}")
            daemon.signal(signal.SIGHUP)
            until(lambda: len(there.on("step")) > 5, "steps on the other broker", 15)
            assert there.on("step")[-1].json()["session"] == session
            daemon.write(mqtt_url="mqtts://127.0.0.1:1", mqtt_ca_file="/nowhere.pem")
            daemon.signal(signal.SIGHUP)
            until(lambda: state(there, "config")["ok"] is False, "a missing file is refused")
            assert "nowhere.pem" in state(there, "config")["problems"][0]
            assert daemon.stop() < 5


def test_mute_closes_the_microphone_and_survives_kill_9(tmp_path: Path, broker: Mosquitto) -> None:
    with (
        Subscriber(broker.port, ("edged/#",)) as ear,
        DaemonProcess(tmp_path, broker.port) as daemon,
    ):
        until(lambda: ear.on("text"), "a word", 20)
        assert ask(ear, "mute", "on")["ok"] is True
        until(lambda: state(ear, "mic")["state"] == "muted", "the microphone is closed")
        until(lambda: state(ear, "speaking") == "off", "nobody is heard")
        assert state(ear, "mute") == "on"
        assert state(ear, "listening") == "off"
        time.sleep(0.3)
        steps = len(ear.on("step"))
        time.sleep(0.5)
        assert len(ear.on("step")) == steps
        daemon.kill()
        ear.heard.clear()
        daemon.start()
        until(lambda: (state(ear, "mic") or {}).get("state") == "muted", "still muted", 15)
        assert state(ear, "mute") == "on"
        assert ask(ear, "mute", "false")["ok"] is True
        until(lambda: ear.on("step"), "steps again")
        assert state(ear, "mute") == "off"


def test_a_locked_mute_cannot_be_undone_over_mqtt_but_in_the_settings_file(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        Subscriber(broker.port, ("edged/#",)) as ear,
        DaemonProcess(tmp_path, broker.port, mute="on", mute_lock="on") as daemon,
    ):
        for command, payload in [
            ("mute", "off"),
            ("config", '{"mute": false}'),
            ("config", '{"mute": null}'),
            ("config", '{"mute_lock": false}'),
        ]:
            answer = ask(ear, command, payload)
            assert answer["ok"] is False, payload
        assert state(ear, "mute") == "on"
        daemon.write(mute="off")
        assert ask(ear, "reload", "")["changed"] == ["mute"]
        until(lambda: ear.on("step"), "steps")


def test_live_settings_are_applied_or_refused_as_a_whole_and_saved(
    tmp_path: Path, broker: Mosquitto
) -> None:
    daemon = DaemonProcess(tmp_path, broker.port)
    daemon.environment = {"EDGED_PADDING_BONUS": "1"}
    with Subscriber(broker.port, ("edged/#",)) as ear, daemon:
        good = ask(ear, "config", '{"delay_in_frames": 16, "temperature": 0.25}')
        assert good == {"ok": True, "changed": {"delay_in_frames": 16, "temp": 0.25}}
        before = state(ear, "settings")
        for payload, reason in [
            ('{"temp": 0.5, "delay_in_frames": 9}', "must be one of"),
            ('{"tmp": 0.5}', "did you mean temp?"),
            ('{"mqtt_url": "mqtt://elsewhere"}', "cannot be changed over MQTT"),
            ('{"padding_bonus": 2}', "fixed by the environment"),
            ('{"temp": true}', "must be a number"),
            ('{"temp": ""}', "must be a number"),
            ('{"alsa_device": "file:/etc/passwd"}', "cannot be changed over MQTT"),
            ("[]", "JSON object"),
            ("{", "not valid JSON"),
        ]:
            answer = ask(ear, "config", payload)
            assert answer["ok"] is False, payload
            assert reason in answer["error"], answer
        assert state(ear, "settings") == before
        daemon.kill()
        ear.heard.clear()
        daemon.start()
        kept = until(lambda: state(ear, "settings"), "the settings", 15)
        assert kept["delay_in_frames"] == 16
        daemon.write(delay_in_frames=20)
        assert ask(ear, "reload", "")["changed"] == ["delay_in_frames"]
        until(lambda: state(ear, "settings")["delay_in_frames"] == 20, "the newer file counts")
        assert state(ear, "settings")["temp"] == 0.25


NOTED = """
import time
from edged.mqtt.publisher import Publisher
_event = Publisher.event
def _noted(self, *event, **more):
    before = self._seq
    _event(self, *event, **more)
    if self._seq > before:
        with open({path!r}, "a") as book:
            print(self.session, self._seq, time.monotonic(), file=book)
Publisher.event = _noted
"""


def test_words_spoken_while_the_broker_is_away_survive_kill_9(tmp_path: Path) -> None:
    """The broker is down, somebody speaks, the process is killed: every word arrives, in order.

    The last ones too: the test once compared what arrived with itself, so that a lost end did not
    show.
    """
    book = tmp_path / "said"
    daemon = DaemonProcess(tmp_path, 1)
    daemon.before = NOTED.format(path=str(book))
    with Mosquitto(tmp_path / "broker") as broker:
        daemon.write(mqtt_url=f"mqtt://127.0.0.1:{broker.port}")
        with Subscriber(broker.port, ("edged/#",)) as ear, daemon:
            until(lambda: ear.on("text"), "a first word", 20)
            first = ear.events()[0]["session"]
            broker.stop()
            until(lambda: "broker ok" not in daemon.systemd.status, "the daemon notices")
            time.sleep(4)
            killed = time.monotonic()
            daemon.kill()
            broker.start()
            daemon.start()
            until(lambda: ear.on("availability")[-1].payload == b"online", "online again", 15)
            until(lambda: any(e["session"] != first for e in ear.events()), "the new run", 30)
            events = [e for e in ear.events() if e["session"] == first]
    seen = list(dict.fromkeys(e["seq"] for e in events))
    assert seen == list(range(1, len(seen) + 1))
    said = [line.split() for line in book.read_text().splitlines()]
    due = [int(seq) for whose, seq, at in said if whose == first and float(at) < killed - 0.5]
    assert len(due) > 10
    assert len(seen) >= due[-1], "what was said half a second before the end is there"
    assert len([e for e in events if e["type"] == "text"]) > 5


def test_a_disk_that_cannot_be_written_is_reported_to_systemd_and_in_health(tmp_path: Path) -> None:
    """It was not reported anywhere until words were missing."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "spool").write_text("a file where the folder should be")
    with Mosquitto(tmp_path / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        broker.stop()
        with DaemonProcess(tmp_path, broker.port) as daemon:
            until(lambda: "spool.db cannot be used" in daemon.systemd.status, "STATUS", 20)
            broker.start()
            until(lambda: ear.on("state/health"), "its health")
            assert "cannot be used" in state(ear, "health")["disk_error"]


def test_with_a_hanging_sound_server_commands_watchdog_and_stop_work(
    tmp_path: Path, broker: Mosquitto
) -> None:
    """Nothing worked: pyalsaaudio held the interpreter's lock while it closed the microphone."""
    with PacedMicrophone() as paced, Subscriber(broker.port, ("edged/#",)) as ear:
        daemon = DaemonProcess(tmp_path, broker.port, alsa_device=DEVICE)
        daemon.environment = paced.environment | {"WATCHDOG_USEC": "1500000"}
        with daemon:
            until(lambda: ear.on("step"), "steps", 20)
            paced.hang_server(True)
            try:
                until(lambda: state(ear, "mic")["state"] == "lost", "the loss is reported")
                fed = len(daemon.systemd.lines("WATCHDOG=1"))
                assert ask(ear, "flush", "1")["ok"] is True
                until(
                    lambda: len(daemon.systemd.lines("WATCHDOG=1")) > fed + 4, "the watchdog is fed"
                )
                assert daemon.stop() < 5
            finally:
                paced.hang_server(False)


def test_a_start_with_wrong_settings_ends_with_an_exit_code_and_every_reason(
    tmp_path: Path,
) -> None:
    """Exit code 5 for settings, 4 for a missing model."""
    daemon = DaemonProcess(tmp_path, 1883, temp=7, delay_in_frames=9).start(ready=False)
    with contextlib.ExitStack() as after:
        after.push(daemon.__exit__)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 5
        assert "EDGED_TEMP" in daemon.log()
        assert "EDGED_DELAY_IN_FRAMES" in daemon.log()
        daemon.write(temp=0, delay_in_frames=10, models_dir=tmp_path)
        daemon.start(ready=False)
        assert daemon.process.wait(20) == 4
        assert "edged models fetch" in daemon.log()


def test_a_second_daemon_in_the_same_state_directory_is_refused(tmp_path: Path) -> None:
    """Two of them sent and deleted each other's stored messages."""
    with DaemonProcess(tmp_path, free_port(), alsa_device="file:/nowhere.wav") as first:
        (tmp_path / "second").mkdir()
        second = DaemonProcess(
            tmp_path / "second", free_port(), state_dir=first.settings["state_dir"]
        ).start(ready=False)
        with contextlib.ExitStack() as after:
            after.push(second.__exit__)
            assert second.process is not None
            assert second.process.wait(30) == 5
            assert "already uses the directory" in second.log()
            assert "Traceback" not in second.log()
        assert first.stop() < 5
