"""Accepted settings are stored: the daemon can start with them, and root can restore them."""

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
        stored = SettingsHistory(self.state)
        stored.record(self.env, load(self.env, use_environment=False).files)
        return stored


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


def printed(work: Any, *args: Any) -> str:
    out = StringIO()
    work(*args, Console(file=out, width=200))
    return out.getvalue()


def test_accepted_files_are_kept_once_and_the_oldest_are_removed(etc: Etc) -> None:
    for number in range(MAX_SNAPSHOTS + 3):
        etc.write(turn_silence_ms=100 + number)
        etc.take()
        etc.take()
    names = [snapshot.name for snapshot in SettingsHistory(etc.state).snapshots()]
    assert len(names) == MAX_SNAPSHOTS
    assert names[0].startswith(f"{MAX_SNAPSHOTS + 3}-")
    assert names[-1].startswith("4-")


def test_snapshots_which_may_hold_a_password_are_readable_by_the_service_only(
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
    text = printed(rollback, name, etc.env)
    settings = load(etc.env, use_environment=False).settings
    assert (settings.delay_in_frames, settings.temp, settings.gain_db) == (10, 0.1, 0)
    assert stat.S_IMODE(etc.env.stat().st_mode) == 0o640
    assert (etc.folder / "20-more.env.rolled-back").exists()
    assert text.count(name) == 3


def test_a_rollback_without_a_name_restores_the_last_accepted_files(etc: Etc) -> None:
    good = etc.env.read_text()
    etc.take()
    etc.env.write_text("EDGED_TEMP=hot\n" + good)
    printed(rollback, None, etc.env)
    assert etc.env.read_text() == good
    with pytest.raises(ConfigError, match="no other settings"):
        rollback(None, etc.env, Console(file=StringIO()))


def test_a_name_may_be_shortened_and_an_unknown_one_is_answered_with_all_names(etc: Etc) -> None:
    stored = etc.take()
    assert stored.get("1").name == stored.snapshots()[0].name
    with pytest.raises(ConfigError, match=r"'7-x'; the names are: 1-[0-9a-f]{8}"):
        stored.get("7-x")


def test_the_list_names_what_changed_but_no_value(etc: Etc) -> None:
    etc.take()
    etc.write(mqtt_username="kitchen", mqtt_password="secret", delay_in_frames=10)
    etc.take()
    text = printed(history, etc.env)
    assert "EDGED_MQTT_PASSWORD, EDGED_MQTT_USERNAME" in text
    assert "secret" not in text
    assert text.count("as it is now") == 1


def test_an_empty_history_is_printed_as_such(etc: Etc) -> None:
    """Before the daemon had accepted settings, this command ended as "a bug in edged", and the
    playbook, which waits for a snapshot, got output that is not JSON."""
    assert printed(history, etc.env) == "edged has not accepted any settings yet\n"
    out = StringIO()
    history(etc.env, Console(file=out), as_json=True)
    assert json.loads(out.getvalue()) == []


def test_root_does_not_follow_links_that_the_service_can_make(etc: Etc) -> None:
    """The service owns the history and root restores from it: through a symbolic link, a
    compromised service could read any file of root in the env file."""
    stored = etc.take()
    name = stored.snapshots()[0].name
    path = stored.folder / f"{name}.json"
    secret = etc.state / "shadow"
    path.rename(secret)
    path.symlink_to(secret)
    with pytest.raises(ConfigError, match="damaged"):
        stored.get(name)
    path.unlink()
    stored.folder.rename(etc.state / "elsewhere")
    stored.folder.symlink_to(etc.state / "elsewhere")
    secret.rename(path)
    with pytest.raises(ConfigError, match="damaged"):
        stored.get(name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError):
        stored.get(name)


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4))
def test_a_forged_snapshot_cannot_write_outside_the_folder(files: dict[str, str]) -> None:
    import tempfile

    from edged.config.settings_history import _hash

    with tempfile.TemporaryDirectory() as root:
        stored = SettingsHistory(Path(root) / "state")
        stored.folder.mkdir(parents=True)
        name = f"1-{_hash(files)}"
        content = json.dumps({"taken": "now", "files": files})
        (stored.folder / f"{name}.json").write_text(content, encoding="utf-8")
        env = Path(root) / "etc" / "edged.env"
        env.parent.mkdir()
        try:
            restore(stored.get(name), env)
        except ConfigError:
            return
        found = {str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file()}
        outside = {p for p in found if not p.startswith(("etc/edged.env", "state/history/"))}
        assert not outside


def test_a_damaged_or_foreign_file_in_the_history_is_ignored(etc: Etc) -> None:
    stored = etc.take()
    (stored.folder / "2-00000000.json").write_text("{")
    (stored.folder / "3-00000000.json").write_text(
        '{"taken": "", "files": {"": "EDGED_TEMP=1\\n"}}'
    )
    (stored.folder / "notes.txt").write_text("hello")
    assert [k.name for k in stored.snapshots()] == [stored.snapshots()[0].name]


def test_a_disk_that_refuses_affects_the_history_only(etc: Etc, caplog: Any) -> None:
    etc.state.write_text("a file where the folder should be")
    stored = etc.take()
    stored.record(etc.env, load(etc.env, use_environment=False).files)
    assert stored.snapshots() == []
    assert caplog.text.count("cannot be written") == 1


def test_after_a_bad_push_and_a_power_failure_the_last_accepted_files_are_used(
    etc: Etc,
) -> None:
    etc.write(delay_in_frames=16)
    etc.take()
    etc.write(delay_in_frames=17)
    begin = startup_settings(etc.env)
    assert begin.loaded.settings.delay_in_frames == 16
    assert "EDGED_DELAY_IN_FRAMES" in str(begin.rejected)


def test_a_folder_that_can_no_longer_be_read_is_a_bad_push_like_any_other(
    etc: Etc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`chmod 700` on edged.env.d ended the running daemon and every later start, because no code
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


def test_a_file_that_names_a_missing_certificate_is_a_bad_push(etc: Etc) -> None:
    etc.take()
    etc.write(mqtt_url="mqtts://hub", mqtt_ca_file="/nowhere/ca.crt")
    begin = startup_settings(etc.env)
    assert begin.loaded.settings.mqtt_ca_file is None
    assert "/nowhere/ca.crt" in str(begin.rejected)


@pytest.mark.parametrize("what", ["ca", "key"])
def test_a_file_that_names_garbage_as_certificate_is_a_bad_push(etc: Etc, what: str) -> None:
    """A reload with such a CA file was accepted, and the device lost its broker."""
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


def test_without_a_snapshot_the_mistakes_are_reported(etc: Etc) -> None:
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


def test_an_unpacked_snapshot_loads_like_the_original(etc: Etc, tmp_path: Path) -> None:
    etc.drop_in("50-x.env", "EDGED_GAIN_DB=2\n")
    snapshot = etc.take().snapshots()[0]
    assert matches_files(snapshot, etc.env)
    there = unpack(snapshot, tmp_path / "there")
    original, copy = (load(e, use_environment=False).settings for e in (etc.env, there))
    assert original == copy


def test_the_watch_waits_until_a_push_is_complete(etc: Etc) -> None:
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
    """Everybody but the service was told that there were no settings yet."""
    etc.take()
    with closed(etc.state), pytest.raises(ConfigError, match="put `sudo` before"):
        printed(history, etc.env)
