"""A file is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from edged import atomicfile
from edged.atomicfile import flush_folder, replacing, temporary, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_new_content_appears_under_the_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with replacing(path) as new:
        new.write_text("half")
        assert path.read_text() == "old"
        new.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["state.json"]


def test_an_error_in_between_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as new:
            new.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["state.json"]


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_an_error_of_the_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path if step == "replace" else os, step, full)
        with pytest.raises(OSError, match="No space left") as caught:
            write_text(path, "new")
    assert caught.value.filename == str(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert names(tmp_path) == ["state.json"]


def test_the_content_and_the_rename_are_flushed_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that reaches the disk before the content leaves an empty file after a power cut."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        real_fsync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_text(tmp_path / "a", "new")
    assert steps == ["content", "rename", "folder"]


def test_permissions_are_those_asked_for_from_the_first_moment(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret", mode=0o600) as new:
        assert mode(new) == 0o600
    assert mode(tmp_path / "secret") == 0o600
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "plain", "")
    finally:
        os.umask(before)
    assert mode(tmp_path / "plain") == 0o640


def test_a_file_can_get_owner_and_permissions_of_another(tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.write_text("")
    twin.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(twin, 1234, 2345)
    write_text(tmp_path / "a", "x", like=twin)
    found = (tmp_path / "a").stat()
    assert mode(tmp_path / "a") == 0o640
    assert (found.st_uid, found.st_gid) == (twin.stat().st_uid, twin.stat().st_gid)


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_link_planted_at_the_temporary_name_is_replaced_and_not_followed(
    tmp_path: Path, link: str
) -> None:
    """Root writes into folders that a service owns: the service must not choose the target."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "state.json"
    if link == "symbolic":
        temporary(path).symlink_to(victim)
    else:
        os.link(victim, temporary(path))
    write_text(path, "new")
    assert victim.read_text() == "precious"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_what_a_killed_process_left_behind_is_removed_by_the_next_replacement(
    tmp_path: Path,
) -> None:
    temporary(tmp_path / "a").write_text("half")
    write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\r\n\n")
    assert (tmp_path / "a").read_bytes() == "é\r\n\n".encode()


def test_a_file_system_that_cannot_flush_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = errno.EINVAL

    def refuse(_: Path) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(atomicfile, "flush", refuse)
    flush_folder(tmp_path)
    answer = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        flush_folder(tmp_path)
