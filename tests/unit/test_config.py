"""Settings: sources and their precedence, every mistake at once, what is shown and what is not."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from rich.console import Console

from edged.config.settings import (
    ReloadScope,
    Settings,
    changed_fields,
    env_name,
    mqtt_may_change,
    reload_scope,
)
from edged.config.settings_report import check, example, show
from edged.config.sources import RuntimeOverride, SettingsError, load, with_overrides
from edged.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / "edged.env"
    path.write_text("EDGED_TEMP=0.3\nEDGED_DELAY_IN_FRAMES=12\n")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path)
    return [str(p).replace(f"{path.parent}/", "") for p in caught.value.problems]


def printed(work: object, *args: object, **more: object) -> str:
    file = io.StringIO()
    work(*args, Console(file=file, width=200), **more)  # type: ignore[operator]
    return file.getvalue()


# -- names, defaults, what changes live


def test_the_names_and_defaults_that_people_rely_on_stay() -> None:
    expected = {
        "alsa_device": "default",
        "gain_db": 0,
        "mqtt_url": "mqtt://localhost",
        "mqtt_username": None,
        "mqtt_password": None,
        "mqtt_ca_file": None,
        "mqtt_cert_file": None,
        "mqtt_key_file": None,
        "mqtt_base": "edged",
        "model": "auto",  # which is tiny-en, the former default, for English
        "language": "en",
        "models_dir": None,
        "threads": 1,
        "delay_in_frames": 10,
        "temp": 0,
        "padding_bonus": 0,
        "vad_threshold": 0.5,
        "turn_silence_ms": 700,
        "step_every": 1,
        "mute": False,
        "mute_lock": False,
        "homeassistant": True,
        "homeassistant_prefix": "homeassistant",
        "spool_max_mb": 16,
        "listen": "",
        "api_key": None,
        "max_streams": 2,
        "log_level": "info",
    }
    found = Settings()
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.device
    assert found.spool_path.name == "spool"


def test_every_setting_is_documented_and_says_what_a_change_costs() -> None:
    for name, info in Settings.model_fields.items():
        assert info.description, name
        assert info.description.endswith("."), name
        assert isinstance(reload_scope(name), ReloadScope)


@pytest.mark.parametrize(
    ("name", "live"),
    [
        ("delay_in_frames", ReloadScope.LIVE),
        ("mute", ReloadScope.LIVE),
        ("alsa_device", ReloadScope.MICROPHONE),
        ("mqtt_url", ReloadScope.BROKER),
        ("mqtt_password", ReloadScope.BROKER),
        ("threads", ReloadScope.RECOGNISER),
        ("device", ReloadScope.RESTART),
        ("spool_max_mb", ReloadScope.RESTART),
    ],
)
def test_a_change_reloads_the_part_that_it_concerns(name: str, live: ReloadScope) -> None:
    assert reload_scope(name) is live


def test_mqtt_may_change_live_settings_but_never_the_lock() -> None:
    assert mqtt_may_change("temp")
    assert mqtt_may_change("mute")
    assert not mqtt_may_change("mute_lock")
    assert not mqtt_may_change("mqtt_url")
    assert not mqtt_may_change("alsa_device")


def test_the_device_name_is_made_from_the_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, device in [("Pi.Kitchen.lan", "pi"), ("my_pi--", "my-pi"), ("!!!", "edged")]:
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert Settings().device == device


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().temp = 1


# -- sources


def test_the_environment_counts_before_the_folder_the_file_and_the_default(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = env_file.with_name("edged.env.d")
    folder.mkdir()
    (folder / "20-b.env").write_text("EDGED_TEMP=0.5\nEDGED_THREADS=3\n")
    (folder / "10-a.env").write_text("EDGED_TEMP=0.4\nEDGED_VAD_THRESHOLD=0.6\n")
    monkeypatch.setenv("EDGED_THREADS", "2")
    loaded = load(env_file)
    found = loaded.settings
    assert (found.threads, found.temp, found.vad_threshold) == (2, 0.5, 0.6)
    assert (found.delay_in_frames, found.gain_db) == (12, 0)
    assert loaded.origins["threads"].kind == "environment"
    assert loaded.pinned("threads")
    assert str(loaded.origins["temp"]).endswith("20-b.env line 1")
    assert not loaded.pinned("temp")
    assert loaded.origins["gain_db"].kind == "default"


def test_a_flag_beats_the_environment_and_a_missing_flag_does_not(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_TEMP", "0.1")
    assert load(env_file, {"temp": None}).settings.temp == 0.1
    assert load(env_file, {"temp": 0.9}).settings.temp == 0.9


def test_an_empty_value_means_the_default_even_if_an_earlier_file_has_one(env_file: Path) -> None:
    folder = env_file.with_name("edged.env.d")
    folder.mkdir()
    (folder / "1.env").write_text("EDGED_TEMP=\nEDGED_MQTT_PASSWORD=\n")
    loaded = load(env_file)
    assert loaded.settings.temp == 0
    assert loaded.origins["temp"].kind == "default"
    assert loaded.settings.mqtt_password is None


def test_a_half_written_copy_is_not_read_and_a_wrong_ending_is_reported(env_file: Path) -> None:
    """rsync writes `.10-a.env.Xy12`, then renames it: a half-written file must not count."""
    folder = env_file.with_name("edged.env.d")
    folder.mkdir()
    (folder / ".10-a.env.Xy12").write_text("nonsense")
    (folder / "10-a.conf").write_text("EDGED_TEMP=1")
    loaded = load(env_file)
    assert loaded.settings.temp == 0.3
    assert len(loaded.notes) == 1
    assert "10-a.conf is not read" in loaded.notes[0]


def test_a_credential_is_read_and_beats_the_file_with_a_note(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "edged_mqtt_password").write_text("from-credential\n")
    (credentials / "edged_mqtt_username").write_text("kitchen\n")
    (credentials / "edged_temp").write_text("1")  # not a secret: not read from there
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    env_file.write_text("EDGED_MQTT_PASSWORD=from-file\n")
    loaded = load(env_file)
    assert loaded.settings.mqtt_password == SecretStr("from-credential")
    assert loaded.settings.mqtt_username == "kitchen"
    assert loaded.settings.temp == 0
    assert any("the credential counts" in note for note in loaded.notes)
    monkeypatch.setenv("EDGED_MQTT_PASSWORD", "from-environment")
    loaded = load(env_file)
    assert loaded.settings.mqtt_password == SecretStr("from-environment")
    assert any("the environment counts" in note for note in loaded.notes)


def test_the_hash_of_a_file_is_that_of_sha256sum(env_file: Path) -> None:
    (only,) = load(env_file).files
    assert only.path == env_file
    assert only.sha256 == hashlib.sha256(env_file.read_bytes()).hexdigest()


def test_keys_of_other_programs_may_be_in_the_file(env_file: Path) -> None:
    env_file.write_text("TZ=Europe/Berlin\nEDGED_TEMP=0.2\n")
    assert load(env_file).settings.temp == 0.2


def test_an_unknown_variable_with_the_prefix_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGED_DELAY_IN_FRAME", "12")
    monkeypatch.setenv("EDGED_DEBUG", "1")
    (note,) = load().notes
    assert "did you mean EDGED_DELAY_IN_FRAMES?" in note


# -- every problem at once


def test_every_mistake_is_reported_at_once_with_its_key_line_and_what_is_allowed(
    env_file: Path,
) -> None:
    env_file.write_text(
        "EDGED_TEMP=3\nEDGED_DELAY_IN_FRAMES=9\nEDGED_TMP=1\nexport A=1\nEDGED_MUTE=perhaps\n"
        "EDGED_MQTT_CERT_FILE=/c\nEDGED_THREADS=1.5\nEDGED_DEVICE=a/b\nEDGED_GAIN_DB=nan\n"
    )
    assert problems(env_file) == [
        "EDGED_TEMP (edged.env line 1): must be a number from 0 to 1, not '3'",
        "EDGED_DELAY_IN_FRAMES (edged.env line 2): must be one of 7, 8, 10, 12, 14, 16, 20, 24, "
        "32, 36, 48, not '9'",
        "EDGED_TMP (edged.env line 3): there is no such setting; did you mean EDGED_TEMP?",
        "edged.env line 4: systemd does not know 'export': write KEY=value without it",
        "EDGED_MUTE (edged.env line 5): must be on or off, not 'perhaps'",
        "EDGED_THREADS (edged.env line 7): must be a whole number from 1 to 8, not '1.5'",
        "EDGED_DEVICE (edged.env line 8): must be 1 to 63 of a-z, 0-9 and - (not at an end), "
        "not 'a/b'",
        "EDGED_GAIN_DB (edged.env line 9): must be a number from -20 to 40, not 'nan'",
        "EDGED_MQTT_CERT_FILE and EDGED_MQTT_KEY_FILE must be set together",
        "EDGED_MQTT_CA_FILE and EDGED_MQTT_CERT_FILE need EDGED_MQTT_URL to begin with mqtts://",
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("EDGED_MQTT_URL=http://x", "must begin with mqtt:// or mqtts:// (TLS), not http://"),
        ("EDGED_MQTT_URL=mqtt://", "must be mqtt://host"),
        ("EDGED_MQTT_URL=mqtt://x:99999", "must have a port from 1 to 65535"),
        ("EDGED_MQTT_PASSWORD=a", "needs EDGED_MQTT_USERNAME"),
        ("EDGED_MQTT_BASE=a/+/b", "topic levels"),
        ("EDGED_HOMEASSISTANT_PREFIX=/x", "topic levels"),
        ("EDGED_LISTEN=8080", "host:port"),
        ("EDGED_LISTEN=0.0.0.0:8080", "needs EDGED_API_KEY"),
        ("EDGED_LISTEN=[::]:8080", "needs EDGED_API_KEY"),
        ("EDGED_LISTEN=127.example.org:8080", "needs EDGED_API_KEY"),  # was taken for loopback
        ("EDGED_LANGUAGE=xx", "must be auto or the code of a language, such as en, de or fr"),
        ("EDGED_LOG_LEVEL=chatty", "must be one of debug, info, warning, error"),
        ("EDGED_MODEL=../x", "must be a model's name"),
        ("edged_temp=1", "there is no such setting; did you mean EDGED_TEMP?"),
        ("EDGED_STEP_EVERY=-1", "from 0 to 1000"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    env_file: Path, lines: str, reason: str
) -> None:
    env_file.write_text(lines)
    (only,) = problems(env_file)
    assert reason in only


@pytest.mark.parametrize(
    "lines",
    [
        "EDGED_MQTT_URL=embedded",
        "EDGED_MQTT_URL=mqtts://[::1]:8884",
        "EDGED_LISTEN=127.0.0.1:8080",
        "EDGED_LISTEN=[::1]:8080",
        "EDGED_LISTEN=localhost:8080",
        "EDGED_LISTEN=127.0.0.2:8080",
        "EDGED_LISTEN=0.0.0.0:8080\nEDGED_API_KEY=k",
        "EDGED_LISTEN=0.0.0.0:8080\nEDGED_LISTEN_WITHOUT_KEY=on",
        "EDGED_STEP_EVERY=0",
    ],
)
def test_an_allowed_value_is_accepted(env_file: Path, lines: str) -> None:
    env_file.write_text(lines)
    load(env_file)


def test_secrets_are_in_no_error_and_no_repr(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("EDGED_MQTT_URL=mqtt://u:hunter2@host\nEDGED_API_KEY=hunter2\n")
    assert "hunter2" not in " ".join(problems(env_file))
    monkeypatch.setenv("EDGED_API_KEY", "hunter2")
    env_file.write_text("")
    loaded = load(env_file)
    assert "hunter2" not in repr(loaded)
    for as_json in (False, True):
        assert "hunter2" not in printed(show, loaded, as_json=as_json)


def test_a_missing_file_is_an_error_and_a_missing_folder_is_not(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "none.env")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*Settings.model_fields, "x"]), TEXTS), max_size=6))
def test_any_value_of_any_setting_is_accepted_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("env") / "edged.env"
    quoted = [f"{env_name(k)}='{v}'" for k, v in pairs if not set(v) & set("'\\\r\n\0")]
    path.write_text("\n".join(quoted), encoding="utf-8")
    messages = [""]
    try:
        load(path)
    except SettingsError as error:
        messages = [str(p) for p in error.problems] or [""]
    assert messages == [""] or all(messages)


# -- live changes


def test_an_override_keeps_the_value_of_the_file(env_file: Path) -> None:
    loaded = with_overrides(load(env_file), {"temp": "0.8", "gain_db": 3})
    assert (loaded.settings.temp, loaded.settings.gain_db) == (0.8, 3)
    assert loaded.overrides == {
        "temp": RuntimeOverride(0.8, "0.3"),
        "gain_db": RuntimeOverride(3.0, None),
    }
    again = load(env_file, overrides=loaded.overrides)
    assert again.settings == loaded.settings
    assert again.origins["temp"].kind == "mqtt"


def test_a_pushed_file_that_changes_the_line_counts_before_an_older_override(
    env_file: Path,
) -> None:
    overrides = with_overrides(load(env_file), {"temp": 0.8, "gain_db": 3}).overrides
    env_file.write_text("EDGED_TEMP=0.4\n")
    loaded = load(env_file, overrides=overrides)
    assert (loaded.settings.temp, loaded.settings.gain_db) == (0.4, 3)
    assert set(loaded.overrides) == {"gain_db"}
    assert any("EDGED_TEMP" in note for note in loaded.notes)


def test_null_removes_an_override(env_file: Path) -> None:
    changed = with_overrides(load(env_file), {"temp": 0.8, "gain_db": 3})
    back = with_overrides(changed, {"temp": None, "gain_db": None})
    assert (back.settings.temp, back.settings.gain_db) == (0.3, 0)
    assert not back.overrides


def test_an_override_that_this_version_does_not_accept_is_dropped_with_a_note(
    env_file: Path,
) -> None:
    overrides = {
        "temp": RuntimeOverride(7, "0.3"),
        "gone": RuntimeOverride(1, None),
        "mute_lock": RuntimeOverride(False, None),
        "mute": RuntimeOverride(True, None),
    }
    loaded = load(env_file, overrides=overrides)
    assert loaded.settings.temp == 0.3
    assert loaded.settings.mute is True
    assert len(loaded.notes) == 3


def test_overrides_are_refused_as_a_whole(env_file: Path) -> None:
    loaded = load(env_file)
    with pytest.raises(SettingsError, match=r"EDGED_TEMP.*"):
        with_overrides(loaded, {"temp": 2, "gain_db": 3})
    assert loaded.settings.gain_db == 0


def test_changed_fields_are_those_that_differ() -> None:
    assert changed_fields(Settings(), Settings(temp=0.5, gain_db=1)) == ("gain_db", "temp")


# -- show, check, example


def test_show_in_a_pipe_gives_one_line_per_setting_with_its_origin(env_file: Path) -> None:
    out = printed(show, load(env_file)).splitlines()
    assert len(out) == len(Settings.model_fields)
    assert f"EDGED_TEMP=0.3  # {env_file} line 1" in out
    assert "EDGED_MUTE=off  # default" in out


def test_show_as_json_masks_secrets_and_says_where_from(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_API_KEY", "hunter2")
    found = json.loads(printed(show, load(env_file), as_json=True))
    assert found["settings"]["EDGED_API_KEY"]["value"] == "********"
    assert found["settings"]["EDGED_API_KEY"]["from"] == "environment"
    assert found["settings"]["EDGED_TEMP"]["value"] == 0.3


def test_check_names_every_problem_and_ignores_this_machines_environment(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_TEMP", "nonsense")
    file = io.StringIO()
    console = Console(file=file, width=60)
    assert check(env_file, console) == 0
    env_file.write_text("EDGED_TEMP=3\nEDGED_X=1\n")
    assert check(env_file, console) == 1
    assert "EDGED_TEMP" in file.getvalue()
    assert "2 problems" in file.getvalue()
    with pytest.raises(ConfigError, match="No such file"):
        check(env_file.with_name("none"), console)


def test_the_example_file_is_what_the_code_says_and_is_valid(tmp_path: Path) -> None:
    """If this fails: `edged config example > deploy/edged.env.example`."""
    written = (ROOT / "deploy" / "edged.env.example").read_text(encoding="utf-8")
    assert written == example()
    assert all(f"#{env_name(name)}=" in written for name in Settings.model_fields)
    path = tmp_path / "edged.env"
    lines = [line[1:] if line.startswith("#EDGED_") else line for line in written.splitlines()]
    path.write_text("\n".join(lines))
    assert load(path).settings == Settings()


def test_the_example_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = example()
    monkeypatch.setenv("STATE_DIRECTORY", "/somewhere")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert example() == before
    assert os.environ["STATE_DIRECTORY"]
