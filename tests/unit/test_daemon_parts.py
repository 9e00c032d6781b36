"""The daemon's small parts: systemd's socket, the state file, health, logs, settings on request."""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edged import logs
from edged.audio.capture import MicrophoneState
from edged.audio.microphone import MicrophoneManager
from edged.config.settings import Settings
from edged.config.settings_manager import SettingsManager
from edged.config.sources import RuntimeOverride, load
from edged.config.startup import StartupSettings
from edged.config.state_file import StateFile
from edged.daemon import health
from edged.daemon import systemd as notify
from edged.daemon.control import Control, check_files
from edged.daemon.health import Heartbeats
from edged.daemon.service import Daemon
from edged.daemon.systemd import Notifier
from edged.engine.realtime_factor import RealtimeFactor
from edged.errors import ConfigError, RequestError
from edged.mqtt import commands
from tests.conftest import SAMPLES
from tests.support.daemon_process import Systemd
from tests.support.mosquitto import until

# -- systemd


@pytest.fixture(params=["library", "fallback"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With systemd-python, and without it as in a container."""
    if request.param == "fallback":
        monkeypatch.setattr(notify, "_systemd_notify", None)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_each_message_and_a_status_once(monkeypatch, abstract: bool) -> None:
    systemd = Systemd(abstract)
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    told = Notifier()
    told.ready()
    told.status("listening")
    told.status("listening")
    told.reloading()
    told.watchdog()
    told.stopping()
    until(lambda: systemd.lines("STOPPING=1"), "all messages")
    said = [line.partition("=")[0] for _, line in systemd.said]
    assert said == ["READY", "STATUS", "RELOADING", "MONOTONIC_USEC", "WATCHDOG", "STOPPING"]
    microseconds = int(systemd.lines("MONOTONIC_USEC=")[0].partition("=")[2])
    assert abs(microseconds / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 5
    systemd.close()


@pytest.mark.usefixtures("_either_way")
def test_nothing_happens_without_systemd_or_with_a_dead_socket(monkeypatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.send("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notify.send("READY=1")


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdogs_interval_is_ours_alone(monkeypatch, environment, interval) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_interval_s() == interval


def test_one_silent_thread_is_named_and_the_others_are_not() -> None:
    ages = {"capture": 0.0, "engine": 0.0, "mqtt": 0.0}
    beats = Heartbeats(stale_s=10)
    for name in ages:
        beats.watch(name, lambda name=name: ages[name])
    assert beats.stale() == []
    ages["engine"] = 11.0
    assert beats.stale() == ["engine"]


# -- state


def test_what_was_remembered_is_read_back_and_nothing_half_written_is_left(tmp_path) -> None:
    state = StateFile(tmp_path / "deep" / "state")
    assert state.read() == {}
    kept = {"mute": RuntimeOverride(True, None), "temp": RuntimeOverride(0.5, "0.3")}
    assert state.write(kept)
    assert StateFile(tmp_path / "deep" / "state").read() == kept
    assert [p.name for p in state.path.parent.iterdir()] == ["state.json"]
    assert state.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"settings": 1}', '{"settings": {"mute": true}}', "\xff"]
)
def test_a_damaged_state_file_forgets_and_says_so(tmp_path, caplog, text: str) -> None:
    state = StateFile(tmp_path)
    state.path.write_bytes(text.encode("latin-1"))
    assert state.read() == {}
    assert "are lost" in caplog.text


def test_a_disk_that_refuses_is_said_once_and_changes_nothing(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    state = StateFile(tmp_path / "file" / "below")
    assert not state.write({})
    assert not state.write({})
    assert caplog.text.count("cannot be written") == 1


# -- health


def test_memory_and_temperature_are_read_from_the_kernel(tmp_path: Path) -> None:
    assert 5 < (health.rss_mb() or 0) < 4000
    assert health.rss_mb(tmp_path / "none") is None
    assert health.cpu_temp_c(tmp_path) is None
    for n, (kind, temp) in enumerate([("gpu", "70000"), ("cpu-thermal", "51234"), ("x", "bad")]):
        zone = tmp_path / f"thermal_zone{n}"
        zone.mkdir()
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(temp)
    assert health.cpu_temp_c(tmp_path) == 51.2


def test_the_real_time_factor_follows_the_last_half_minute() -> None:
    speed = RealtimeFactor()
    assert speed.rtf is None
    speed.add(0.04, 0.08)
    assert speed.rtf == pytest.approx(0.5)
    for _ in range(2000):
        speed.add(0.008, 0.08)
    assert speed.rtf == pytest.approx(0.1, abs=0.01)


# -- logs


def test_log_lines_carry_a_code_and_fields_and_libraries_stay_quiet(capsys, monkeypatch) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    root.handlers[:] = []
    try:
        logs.setup("info")
        logs.setup("info")
        assert len(root.handlers) == 1
        records: list[logging.LogRecord] = []
        monkeypatch.setattr(root.handlers[0], "emit", records.append)
        logs.log_event(
            logging.getLogger("edged.x"), logging.INFO, "mic-lost", "gone: 100 %", device="d"
        )
        logging.getLogger("some.library").info("chatter")
    finally:
        root.handlers[:] = before
    (record,) = records
    assert record.getMessage() == "gone: 100 %"
    assert (record.EDGED_CODE, record.EDGED_DEVICE) == ("mic-lost", "d")


def test_stderr_of_the_journal_is_known_and_gets_priorities(tmp_path, monkeypatch) -> None:
    file = (tmp_path / "stream").open("w+")
    monkeypatch.setattr(sys, "stderr", file)
    assert not logs.to_journal()
    stat = os.fstat(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    assert logs.to_journal()
    monkeypatch.setattr(logs, "JournalHandler", None)
    handler = logs._handler()
    handler.emit(logging.makeLogRecord({"levelname": "WARNING", "msg": "two\nlines"}))
    file.seek(0)
    assert file.read() == "<4>two\n<4>lines\n"


# -- settings on request


class Parts:
    """Stands in for microphone, engine and publisher: keeps what they were told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.replies: list[dict[str, Any]] = []

    def reply(self, command: object, ok: bool, error: str | None = None, **more: Any) -> None:
        self.replies.append({"ok": ok, "error": error, **more})
        json.dumps(self.replies[-1], allow_nan=False)

    def submit(self, command: object) -> bool:
        self.said.append(("submit", command))
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.said.append((name, args))


def control(folder: Path, text: str = "") -> tuple[Control, SettingsManager, Parts]:
    env_file = folder / "edged.env"
    env_file.write_text(text)
    keeper = SettingsManager(StartupSettings(load(env_file), StateFile(folder)), env_file, {})
    parts = Parts()
    made: Any = Control(
        keeper,
        parts,
        parts,
        parts,
        Notifier(),
        lambda settings: settings.mqtt_url,
        list,  # type: ignore[arg-type]
        list,  # type: ignore[arg-type]
    )
    return made, keeper, parts


def fuzzed(dice: random.Random) -> tuple[str, bytes]:
    """A command's name and payload: noise, near misses, wrong types, nothing that is right."""
    name = dice.choice([*commands.NAMES[1:3], "config", "config", "restart!", "", "x" * 300])
    key = dice.choice([*Settings.model_fields, "temperature", "tmp", "", "é\u0000", "EDGED_TEMP"])
    value = dice.choice(
        ["no+pe", -1e9, 1e308, 10**30, [], {}, "\ud800", "x" * 5000, "#", "+1e999", -99]
    )
    payload = dice.choice(
        [
            json.dumps({key: value}),
            json.dumps({key: value, "temp": "x"}),
            json.dumps([key]),
            "{" * dice.randrange(3000),
            '{"temp": NaN}',
            '{"temp": Infinity}',
            str(value),
            "",
        ]
    ).encode("utf-8", "surrogatepass")
    if dice.random() < 0.2:
        payload = dice.randbytes(dice.randrange(60))
    if dice.random() < 0.02:
        payload += b" " * 20_000
    return name, payload


def test_ten_thousand_wrong_commands_change_nothing_and_are_all_answered(tmp_path) -> None:
    made, keeper, parts = control(tmp_path)
    before = keeper.loaded
    dice = random.Random(7)
    refused = 0
    for _ in range(10_000):
        name, payload = fuzzed(dice)
        try:
            command = commands.parse(name, payload, retained=dice.random() < 0.05)
        except RequestError as problem:
            refused += bool(str(problem))
            continue
        made.do(command)
        refused += 1
        assert parts.replies[-1]["ok"] is False, (name, payload)
        assert parts.replies[-1]["error"]
    assert refused == 10_000
    assert keeper.loaded is before
    assert not (tmp_path / "state.json").exists()
    assert not [said for said in parts.said if said[0] in ("mute", "submit", "use")]


def test_a_change_reaches_exactly_the_parts_it_concerns(tmp_path: Path) -> None:
    made, keeper, parts = control(tmp_path)
    made.do(commands.parse("config", b'{"gain_db": 3, "step_every": 5}'))
    assert parts.replies[-1]["changed"] == {"gain_db": 3.0, "step_every": 5}
    told = [name for name, _ in parts.said]
    assert {"set_gain", "step_every", "state"} == set(told)
    parts.said.clear()
    made.do(commands.parse("config", b'{"temp": 0.5}'))
    assert [name for name, _ in parts.said] == ["submit", "state", "state"]
    assert keeper.settings.temp == 0.5


def test_a_setting_that_needs_a_restart_waits_and_the_rest_is_taken(tmp_path: Path) -> None:
    made, keeper, parts = control(tmp_path)
    (tmp_path / "edged.env").write_text("EDGED_DEVICE=other\nEDGED_TEMP=0.5\n")
    before = keeper.settings.device
    assert made.reload() == {"changed": ["temp"], "at_next_start": ["device"]}
    assert keeper.settings.device == before
    assert keeper.settings.temp == 0.5
    assert made.reload() == {"changed": [], "at_next_start": ["device"]}
    del parts


def test_a_model_that_does_not_load_refuses_the_whole_reload(tmp_path: Path) -> None:
    made, keeper, parts = control(tmp_path)
    before = keeper.loaded
    (tmp_path / "edged.env").write_text(f"EDGED_MODELS_DIR={tmp_path}\nEDGED_TEMP=0.5\n")
    made.reload_quietly()
    assert keeper.loaded is before
    assert not [said for said in parts.said if said[0] == "submit"]
    (config,) = [args for name, args in parts.said if name == "state"]
    assert config[0] == "config"
    assert config[1]["ok"] is False
    assert "not applied" in made.problem


def test_a_named_file_must_be_readable() -> None:
    check_files(Settings())
    with pytest.raises(ConfigError, match="EDGED_MQTT_CA_FILE: /nowhere"):
        check_files(Settings(mqtt_url="mqtts://x", mqtt_ca_file=Path("/nowhere")))


# -- the main thread


def test_what_fails_while_it_looks_after_the_daemon_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    """An error of the file system stepped through the main loop, and the box was gone."""
    _, keeper, _ = control(tmp_path)
    daemon = Daemon(keeper)
    outcomes = iter([OSError("one"), OSError("two"), None, OSError("three"), None])

    def look(now: float) -> None:
        problem = next(outcomes, daemon)
        if problem is daemon:
            daemon._stop_by = now
        elif problem is not None:
            raise problem  # type: ignore[misc]

    monkeypatch.setattr("edged.daemon.service._TICK_S", 0.001)
    for name in ("_start", "_say_state"):
        monkeypatch.setattr(daemon, name, lambda *_: None)
    monkeypatch.setattr(daemon, "_stop", lambda by: 0)
    monkeypatch.setattr(daemon, "_look_after", look)
    assert daemon.run() == 0
    said = [r for r in caplog.records if "supervision failed" in r.getMessage()]
    assert [str(r.exc_info[1]) for r in said if r.exc_info] == ["one", "three"]


# -- a file as the microphone


def test_a_file_is_heard_in_real_time_muted_and_swapped_for_another() -> None:
    told: list[MicrophoneState] = []
    hearing = MicrophoneManager(
        f"file:{SAMPLES}/mister-hale.flac", 0.0, False, lambda s: told.append(s.state)
    )
    started = time.monotonic()
    hearing.start()
    until(lambda: hearing.ring.depth >= 5, "five steps")
    assert time.monotonic() - started > 5 * 0.08 - 0.02
    hearing.mute(True)
    until(lambda: hearing.state.state is MicrophoneState.MUTED, "muted")
    assert hearing.ring.depth == 0
    time.sleep(0.2)
    assert hearing.ring.depth == 0
    hearing.mute(False)
    until(lambda: hearing.ring.depth >= 2, "it hears again")
    hearing.use("file:/nowhere.wav")
    until(lambda: hearing.state.state is MicrophoneState.LOST, "not there")
    assert hearing.state.message == "/nowhere.wav is not there"
    hearing.use("hw:CARD=Nowhere")
    until(lambda: hearing.state.device == "hw:CARD=Nowhere", "the other kind of microphone")
    hearing.stop()
    assert told[:3] == [MicrophoneState.RUNNING, MicrophoneState.MUTED, MicrophoneState.RUNNING]


def test_loading_the_models_is_not_the_microphones_silence() -> None:
    """On a slow board the models took longer than 10 s: "no sign of life from: capture" stood in
    the log of every start, and the watchdog was not fed, though nothing had been asked of it."""
    hearing = MicrophoneManager("hw:CARD=Nowhere", 0.0, False, lambda s: time.sleep(0.3))
    hearing._capture.heartbeat -= 60
    hearing.start()
    age = hearing.heartbeat_age_s()
    hearing.stop()
    assert age < 10


def test_gain_is_applied_to_a_played_file() -> None:
    levels = []
    for gain in (0.0, 6.0):
        hearing = MicrophoneManager(f"file:{SAMPLES}/mister-hale.flac", gain, False, lambda s: None)
        hearing.start()
        until(lambda h=hearing: h.ring.depth >= 20, "audio")
        hearing.stop()
        frames = hearing.ring.take(20)
        levels.append(max(abs(int(f.min())) for f in frames))
    assert levels[1] == pytest.approx(2 * levels[0], rel=0.01)
