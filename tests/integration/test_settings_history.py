"""Settings that worked are kept by name; a box comes back with them, and root can restore them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edged.cli.config_history import history, rollback
from edged.config.files_watch import FilesWatch
from edged.config.settings_history import (
    MAX_SNAPSHOTS,
    SettingsHistory,
    find_state_dir,
    matches_files,
    restore,
    unpack,
)
from edged.config.sources import SettingsError, load
from edged.config.startup import StartupSettings, load_startup_settings
from edged.errors import ConfigError


def startup_settings(env_file: Path) -> StartupSettings:
    """As the daemon loads them, on a device that has all models."""
    return load_startup_settings(env_file, {}, lambda _: None)


class Etc:
    """An env file, its folder, and the daemon's state directory."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.env = root / "edged.env"
        self.folder = root / "edged.env.d"
        self.folder.mkdir()
        self.write(delay_in_frames=10)

    def write(self, **settings: Any) -> None:
        lines = [f"EDGED_{k.upper()}={v}" for k, v in settings.items()]
        self.env.write_text("\n".join([f"EDGED_STATE_DIR={self.state}", *lines]) + "\n")

    def drop_in(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def take(self) -> SettingsHistory:
        kept = SettingsHistory(self.state)
        kept.record(self.env, load(self.env, use_environment=False).files)
        return kept


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


def said(work: Any, *args: Any) -> str:
    out = StringIO()
    work(*args, Console(file=out, width=200))
    return out.getvalue()


def test_every_set_of_files_that_worked_is_kept_once_and_the_oldest_go(etc: Etc) -> None:
    for number in range(MAX_SNAPSHOTS + 3):
        etc.write(turn_silence_ms=100 + number)
        etc.take()
        etc.take()
    names = [kept.name for kept in SettingsHistory(etc.state).snapshots()]
    assert len(names) == MAX_SNAPSHOTS
    assert names[0].startswith(f"{MAX_SNAPSHOTS + 3}-")
    assert names[-1].startswith("4-")


def test_kept_files_are_readable_by_the_service_alone_for_they_may_hold_a_password(
    etc: Etc,
) -> None:
    folder = etc.take().folder
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_rollback_restores_the_env_file_and_its_folder_with_their_modes(etc: Etc) -> None:
    etc.drop_in("10-fleet.env", "EDGED_TEMP=0.1\n")
    os.chmod(etc.env, 0o640)
    name = etc.take().snapshots()[0].name
    etc.write(delay_in_frames=12)
    etc.drop_in("10-fleet.env", "EDGED_TEMP=0.2\n")
    etc.drop_in("20-more.env", "EDGED_GAIN_DB=3\n")
    etc.take()
    text = said(rollback, name, etc.env)
    settings = load(etc.env, use_environment=False).settings
    assert (settings.delay_in_frames, settings.temp, settings.gain_db) == (10, 0.1, 0)
    assert stat.S_IMODE(etc.env.stat().st_mode) == 0o640
    assert (etc.folder / "20-more.env.rolled-back").exists()
    assert text.count(name) == 3


def test_a_rollback_without_a_name_goes_to_the_last_files_that_worked(etc: Etc) -> None:
    good = etc.env.read_text()
    etc.take()
    etc.env.write_text("EDGED_TEMP=hot\n" + good)
    said(rollback, None, etc.env)
    assert etc.env.read_text() == good
    with pytest.raises(ConfigError, match="no other settings"):
        rollback(None, etc.env, Console(file=StringIO()))


def test_a_name_may_be_shortened_and_an_unknown_one_is_told_what_there_is(etc: Etc) -> None:
    kept = etc.take()
    assert kept.get("1").name == kept.snapshots()[0].name
    with pytest.raises(ConfigError, match=r"'7-x'; the names are: 1-[0-9a-f]{8}"):
        kept.get("7-x")


def test_the_list_names_what_changed_but_no_value(etc: Etc) -> None:
    etc.take()
    etc.write(mqtt_username="kitchen", mqtt_password="secret", delay_in_frames=10)
    etc.take()
    text = said(history, etc.env)
    assert "EDGED_MQTT_PASSWORD, EDGED_MQTT_USERNAME" in text
    assert "secret" not in text
    assert text.count("as it is now") == 1


def test_a_list_of_nothing_is_an_answer_too(etc: Etc) -> None:
    """`edged config history` before the daemon first took settings was "a bug in edged", and the
    playbook, which waits until a set is there, met a standard output that is no JSON."""
    assert said(history, etc.env) == "edged has not accepted any settings yet\n"
    out = StringIO()
    history(etc.env, Console(file=out), as_json=True)
    assert json.loads(out.getvalue()) == []


def test_root_is_not_led_out_of_the_history_by_what_the_service_may_write(etc: Etc) -> None:
    """The service owns the history, root restores from it: a symbolic link there would let a
    broken-in service read any file of root's through the env file."""
    kept = etc.take()
    name = kept.snapshots()[0].name
    path = kept.folder / f"{name}.json"
    secret = etc.state / "shadow"
    path.rename(secret)
    path.symlink_to(secret)
    with pytest.raises(ConfigError, match="damaged"):
        kept.get(name)
    path.unlink()
    kept.folder.rename(etc.state / "elsewhere")
    kept.folder.symlink_to(etc.state / "elsewhere")
    secret.rename(path)
    with pytest.raises(ConfigError, match="damaged"):
        kept.get(name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError):
        kept.get(name)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4))
def test_no_set_however_forged_writes_outside_the_folder(files: dict[str, str]) -> None:
    import tempfile

    from edged.config.settings_history import _hash

    with tempfile.TemporaryDirectory() as root:
        kept = SettingsHistory(Path(root) / "state")
        kept.folder.mkdir(parents=True)
        name = f"1-{_hash(files)}"
        content = json.dumps({"taken": "now", "files": files})
        (kept.folder / f"{name}.json").write_text(content, encoding="utf-8")
        env = Path(root) / "etc" / "edged.env"
        env.parent.mkdir()
        try:
            restore(kept.get(name), env)
        except ConfigError:
            return
        found = {str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file()}
        outside = {p for p in found if not p.startswith(("etc/edged.env", "state/history/"))}
        assert not outside


def test_a_damaged_or_foreign_file_in_the_history_is_left_out(etc: Etc) -> None:
    kept = etc.take()
    (kept.folder / "2-00000000.json").write_text("{")
    (kept.folder / "3-00000000.json").write_text('{"taken": "", "files": {"": "EDGED_TEMP=1\\n"}}')
    (kept.folder / "notes.txt").write_text("hello")
    assert [k.name for k in kept.snapshots()] == [kept.snapshots()[0].name]


def test_a_disk_that_refuses_costs_the_history_alone(etc: Etc, caplog: Any) -> None:
    etc.state.write_text("a file where the folder should be")
    kept = etc.take()
    kept.record(etc.env, load(etc.env, use_environment=False).files)
    assert kept.snapshots() == []
    assert caplog.text.count("cannot be written") == 1


def test_a_box_that_loses_its_power_after_a_bad_push_comes_back_with_the_last_good_files(
    etc: Etc,
) -> None:
    etc.write(delay_in_frames=16)
    etc.take()
    etc.write(delay_in_frames=17)
    begin = startup_settings(etc.env)
    assert begin.loaded.settings.delay_in_frames == 16
    assert "EDGED_DELAY_IN_FRAMES" in str(begin.rejected)


def test_a_folder_that_may_no_longer_be_read_is_a_bad_push_like_any_other(
    etc: Etc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`chmod 700` on edged.env.d ended the running daemon, and it failed at each start: nobody
    expected the file system to refuse the folder."""
    etc.write(delay_in_frames=16)
    monkeypatch.setenv("EDGED_STATE_DIR", str(etc.state))
    etc.take()
    watch = FilesWatch(etc.env)
    real = Path.iterdir

    def refuse(path: Path) -> Any:  # a mode would not do: nothing is refused to root
        if path == etc.folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert not watch.changed(10.0)
    assert watch.changed(12.0)
    begin = startup_settings(etc.env)
    assert begin.loaded.settings.delay_in_frames == 16
    assert f"{etc.folder} cannot be read: Permission denied" in str(begin.rejected)
    monkeypatch.delenv("EDGED_STATE_DIR")
    assert find_state_dir(etc.env) == etc.state


def test_a_file_that_names_a_missing_certificate_counts_as_bad_too(etc: Etc) -> None:
    etc.take()
    etc.write(mqtt_url="mqtts://hub", mqtt_ca_file="/nowhere/ca.crt")
    begin = startup_settings(etc.env)
    assert begin.loaded.settings.mqtt_ca_file is None
    assert "/nowhere/ca.crt" in str(begin.rejected)


@pytest.mark.parametrize("what", ["ca", "key"])
def test_a_certificate_that_is_none_counts_as_bad_too(etc: Etc, what: str) -> None:
    """A reload with a CA file full of garbage was accepted, and the box was off its broker."""
    etc.take()
    garbage = etc.env.with_name("garbage.pem")
    garbage.write_text("garbage")
    files = {"ca": {"mqtt_ca_file": garbage}}
    files["key"] = {"mqtt_cert_file": garbage, "mqtt_key_file": garbage}
    etc.write(mqtt_url="mqtts://hub", **files[what])
    begin = startup_settings(etc.env)
    assert begin.loaded.settings.mqtt_url == "mqtt://localhost"
    assert f"{garbage}" in str(begin.rejected)
    assert "cannot be used" in str(begin.rejected)


def test_without_a_good_set_the_first_mistake_is_told(etc: Etc) -> None:
    etc.write(temp="hot")
    with pytest.raises(SettingsError, match="EDGED_TEMP"):
        startup_settings(etc.env)


def test_the_state_directory_is_found_though_the_env_file_is_wrong(
    etc: Etc, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc.write(temp="hot")
    assert find_state_dir(etc.env) == etc.state
    assert find_state_dir(Path("/etc/edged/edged.env")) == Path("/var/lib/edged")
    monkeypatch.setenv("STATE_DIRECTORY", "/run/there")
    assert find_state_dir(etc.env) == Path("/run/there")


def test_an_unpacked_set_loads_like_the_original(etc: Etc, tmp_path: Path) -> None:
    etc.drop_in("50-x.env", "EDGED_GAIN_DB=2\n")
    kept = etc.take().snapshots()[0]
    assert matches_files(kept, etc.env)
    there = unpack(kept, tmp_path / "there")
    original, copy = (load(e, use_environment=False).settings for e in (etc.env, there))
    assert original == copy


def test_the_watch_waits_until_a_push_has_come_to_rest(etc: Etc) -> None:
    watch = FilesWatch(etc.env)
    assert not watch.changed(1)
    etc.write(delay_in_frames=12)
    assert not watch.changed(2)
    etc.drop_in("10-second.env", "EDGED_TEMP=0.1\n")
    assert not watch.changed(3)
    assert not watch.changed(3.5)
    assert watch.changed(4)
    watch.mark_read()
    assert not watch.changed(5)
    assert not watch.changed(6)


def test_the_watch_notices_mode_removal_and_return_of_a_file(etc: Etc) -> None:
    watch = FilesWatch(etc.env)
    changes: list[Callable[[], None]] = [
        lambda: os.chmod(etc.env, 0o600),
        lambda: etc.env.unlink(),
        lambda: etc.write(temp=0),
        lambda: etc.drop_in("10-a.env", ""),
        lambda: (etc.folder / "10-a.env").unlink(),
    ]
    for number, change in enumerate(changes):
        change()
        assert not watch.changed(10 * number + 1)
        assert watch.changed(10 * number + 3), number
        watch.mark_read()


def test_the_watch_ignores_what_is_not_read_such_as_a_half_copied_file(etc: Etc) -> None:
    watch = FilesWatch(etc.env)
    etc.drop_in(".10-a.env.X7", "EDGED_TEMP=0")
    etc.drop_in("README", "hello")
    assert not watch.changed(1)
    assert not watch.changed(3)


def test_a_history_that_this_user_may_not_read_is_not_shown_as_empty(etc: Etc, closed: Any) -> None:
    """It is the service's alone: anybody else was told that nothing had been taken yet."""
    etc.take()
    with closed(etc.state), pytest.raises(ConfigError, match="put `sudo` before"):
        said(history, etc.env)
