"""One daemon at a time uses a state directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edged.config.settings import Settings
from edged.config.state_lock import lock_directories, lock_state_dir
from edged.errors import ConfigError


def test_a_directory_is_locked_until_its_daemon_ends(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    first = lock_state_dir(folder)
    assert first is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(ConfigError, match="EDGED_STATE_DIR"):
        lock_state_dir(folder)
    lock_state_dir(tmp_path / "other")
    first.close()
    again = lock_state_dir(folder)
    assert again is not None
    again.close()


def test_a_directory_that_cannot_be_written_does_not_stop_the_start(tmp_path: Path) -> None:
    """Nothing can be stored there, so there is nothing to protect; the daemon reports the disk."""
    (tmp_path / "file").write_text("")
    assert lock_state_dir(tmp_path / "file" / "below") is None


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "lock").symlink_to(victim)
    assert lock_state_dir(tmp_path) is None
    assert not victim.exists()


def test_two_daemons_with_states_of_their_own_do_not_share_a_spool(tmp_path: Path) -> None:
    """They would send and delete each other's messages."""
    spool = tmp_path / "spool"
    first = Settings(state_dir=tmp_path / "a", spool_dir=spool)
    second = Settings(state_dir=tmp_path / "b", spool_dir=spool)
    with lock_directories(first):
        with pytest.raises(ConfigError, match="EDGED_SPOOL_DIR"), lock_directories(second):
            pass
        with lock_directories(Settings(state_dir=tmp_path / "b")):
            pass
    with lock_directories(second):
        pass


def test_a_spool_in_the_state_directory_itself_is_one_lock(tmp_path: Path) -> None:
    with lock_directories(Settings(state_dir=tmp_path, spool_dir=tmp_path)):
        pass
