"""Changes while edged runs outlast a restart, or it is reported that they do not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edged.config.settings import Settings
from edged.config.settings_manager import RETRY_SAVE_S, RETRY_SLOW_SAVE_S, SettingsManager
from edged.config.sources import RuntimeOverride, load
from edged.config.startup import StartupSettings, load_startup_settings
from edged.config.state_file import StateFile
from edged.errors import ModelError
from edged.mqtt.commands import Command
from tests.support.control_parts import control


def startup_settings(env_file: Path) -> StartupSettings:
    """As the daemon loads them, on a device that has all models."""
    return load_startup_settings(env_file, {}, lambda _: None)


def test_a_mute_that_cannot_be_saved_is_reported_and_saved_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the answer was "ok", and after a power failure the device listened again."""
    made, manager, parts = control(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        made.execute(Command("mute", True))
        assert manager.settings.mute
        assert parts.replies[-1]["ok"] is True
        assert parts.replies[-1]["remembered"] is False
        assert "No space left" in parts.replies[-1]["reason"]
        made.execute(Command("mute", True))  # asked for again: no change, and still not stored
        assert parts.replies[-1]["remembered"] is False
        manager.retry_save(time.monotonic() + RETRY_SAVE_S)
        assert manager.save_error
    manager.retry_save(time.monotonic() + RETRY_SAVE_S - 1)
    assert manager.save_error
    manager.retry_save(time.monotonic() + RETRY_SAVE_S)
    assert not manager.save_error
    assert StateFile(tmp_path).read()["mute"].value is True
    made.execute(Command("mute", True))
    assert "remembered" not in parts.replies[-1]


@pytest.mark.parametrize("attempt", ["the change", "a later one"])
def test_a_disk_that_takes_long_to_refuse_is_tried_again_after_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: str
) -> None:
    """Every ten seconds the main thread, which feeds the watchdog, waited for the error recovery of
    an SD card. The restart undid the mute that was to be saved."""
    made, manager, _ = control(tmp_path)
    clock = 1000.0
    attempts: list[float] = []
    takes_s = 0.0

    def bad(*_: Any) -> None:
        nonlocal clock
        attempts.append(clock)
        clock += takes_s
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", bad)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    if attempt == "the change":
        takes_s = 12.0
    made.execute(Command("mute", True))
    if attempt == "a later one":
        clock, takes_s = clock + RETRY_SAVE_S, 12.0
        manager.retry_save(clock)
        assert len(attempts) == 2
    attempts.clear()
    rest = clock + RETRY_SLOW_SAVE_S
    while clock < rest - 1:
        manager.retry_save(clock)
        clock += 1
    assert not attempts
    clock, takes_s = rest, 0.1
    manager.retry_save(clock)
    manager.retry_save(clock + RETRY_SAVE_S)  # it is quick to refuse again
    assert len(attempts) == 2


def test_a_reload_with_a_useless_certificate_changes_nothing(tmp_path: Path) -> None:
    """Only whether the file could be read was checked, and the device lost its broker."""
    text = "EDGED_MQTT_URL=mqtts://hub\n"
    made, manager, parts = control(tmp_path, text)
    (tmp_path / "ca.crt").write_text("garbage")
    (tmp_path / "edged.env").write_text(f"{text}EDGED_MQTT_CA_FILE={tmp_path}/ca.crt\n")
    made.execute(Command("reload"))
    assert parts.replies[-1]["ok"] is False
    assert f"{tmp_path}/ca.crt cannot be used" in parts.replies[-1]["error"]
    assert manager.settings.mqtt_ca_file is None
    assert "reconfigure" not in [name for name, _ in parts.calls]


def test_with_a_damaged_state_file_the_device_is_muted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged state file counted as an empty one, and a muted device listened."""
    env_file = tmp_path / "edged.env"
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\n")
    assert not startup_settings(env_file).loaded.settings.mute
    StateFile(tmp_path).path.write_text("\0" * 40)
    startup = startup_settings(env_file)
    assert startup.loaded.settings.mute
    assert "muted until cmd/mute" in caplog.text
    env_file.write_text(env_file.read_text() + "EDGED_MUTE=off\n")
    again = load(env_file, {}, startup.loaded.overrides)
    assert not again.settings.mute  # as the message says


def test_a_mute_in_doubt_can_be_ended_in_the_files_after_a_restart_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was assumed anew at each start, and so counted as newer than the files: the device stayed
    muted whatever they said, and with EDGED_MUTE_LOCK nothing helped."""
    env_file = tmp_path / "edged.env"
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\nEDGED_MUTE_LOCK=on\n")
    StateFile(tmp_path).path.write_text("\0" * 40)
    assert startup_settings(env_file).loaded.settings.mute
    assert (tmp_path / "state.damaged").read_text() == "\0" * 40
    caplog.clear()
    assert startup_settings(env_file).loaded.settings.mute
    assert not caplog.records
    env_file.write_text(env_file.read_text() + "EDGED_MUTE=off\n")
    assert not startup_settings(env_file).loaded.settings.mute


def test_files_that_are_not_accepted_leave_the_damage_to_be_found(tmp_path: Path) -> None:
    """The older files that replace them may say something else about mute, which would count as
    newer than the mute that was assumed for these."""
    env_file = tmp_path / "edged.env"
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\nEDGED_MUTE=off\n")
    startup = startup_settings(env_file)
    SettingsManager(startup, env_file, {}).record_files()
    StateFile(tmp_path).path.write_text("\0" * 40)
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\nEDGED_MQTT_CA_FILE=/nowhere\n")
    startup = startup_settings(env_file)
    assert startup.rejected is not None
    assert startup.loaded.settings.mute


def test_a_language_chosen_over_mqtt_whose_model_is_gone_does_not_stop_the_start(
    tmp_path: Path,
) -> None:
    """Somebody chose German in Home Assistant, and later removed the model to free the card."""
    env_file = tmp_path / "edged.env"
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\nEDGED_TEMP=0.2\n")
    StateFile(tmp_path).write(
        {"language": RuntimeOverride("de", None), "temp": RuntimeOverride(0.5, "0.2")}
    )

    def only_english(settings: Settings) -> None:
        if settings.language != "en":
            raise ModelError("no installed model recognises German (de)")

    loaded = load_startup_settings(env_file, {}, only_english).loaded
    assert (loaded.settings.language, loaded.settings.temp) == ("en", 0.5)
    (note,) = loaded.notes
    assert "EDGED_LANGUAGE as changed over MQTT is no longer valid: no installed" in note
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\nEDGED_LANGUAGE=de\n")
    with pytest.raises(ModelError, match="German"):
        load_startup_settings(env_file, {}, only_english)


def test_a_mute_in_doubt_that_cannot_be_saved_is_saved_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file = tmp_path / "edged.env"
    env_file.write_text(f"EDGED_STATE_DIR={tmp_path}\n")
    StateFile(tmp_path).path.write_text("\0" * 40)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        startup = startup_settings(env_file)
    manager = SettingsManager(startup, env_file, {})
    assert manager.save_error
    assert StateFile(tmp_path).path.read_text() == "\0" * 40
    manager.retry_save(time.monotonic())
    assert not manager.save_error
    assert StateFile(tmp_path).read()["mute"].value is True
