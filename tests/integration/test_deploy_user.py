"""The installed command, used by somebody who may not read the files of the service."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.config.files_watch import FilesWatch
from edged.config.sources import SettingsError, load

WRAPPER = Path(__file__).parents[2] / "deploy" / "edged"


class InstalledCommand:
    """The wrapper script, with its settings file elsewhere and a stand-in for edged itself."""

    def __init__(self, root: Path) -> None:
        self.env_file = root / "edged.env"
        self.env_file.write_text("EDGED_TEMP=0.3\n")
        self.env_file.chmod(0)
        program = root / "program"
        program.write_text('#!/bin/sh\necho "${EDGED_ENV_FILE-none}"\n')
        text = WRAPPER.read_text().replace("/etc/edged/edged.env", str(self.env_file))
        self._wrapper = root / "edged"
        self._wrapper.write_text(text.replace("/opt/edged/bin/edged", str(program)))
        for path in (root, program, self._wrapper):
            path.chmod(0o755)

    def edged(self, *words: str, **environment: str) -> tuple[str, str]:
        """What an ordinary user gets on standard output and standard error."""
        nobody: dict[str, Any] = {"user": 65_534, "group": 65_534, "extra_groups": []}
        done = subprocess.run(
            [self._wrapper, *words],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "/usr/bin:/bin", **environment},
            **(nobody if os.geteuid() == 0 else {}),
        )
        return done.stdout.strip(), done.stderr


@pytest.fixture
def installed() -> Iterator[InstalledCommand]:
    root = Path(
        tempfile.mkdtemp(prefix="edged-installed-")
    )  # nobody may not enter pytest's folders
    yield InstalledCommand(root)
    shutil.rmtree(root)


def test_a_message_says_that_the_defaults_are_not_the_settings_of_the_service(
    installed: InstalledCommand,
) -> None:
    """The file of settings is 0640: `edged config show` left it out silently, and showed the
    defaults as if they counted."""
    for words in (["config", "show"], ["config", "show", "--json"], ["listen"], ["run"]):
        out, said = installed.edged(*words)
        assert out == "none"
        assert f"({installed.env_file}) cannot be read by this user" in said
        assert "`sudo edged ...` reads them" in said
        assert said.count("\n") == 1


def test_commands_that_need_no_settings_of_the_service_say_nothing_about_them(
    installed: InstalledCommand,
) -> None:
    for words in (
        ["transcribe", "a.wav"],
        ["--version"],
        ["config", "check", "x.env"],
        ["config", "show", "--env-file", "x.env"],
        [],
    ):
        assert installed.edged(*words) == ("none", "")
    installed.env_file.chmod(0o644)
    assert installed.edged("config", "show") == (str(installed.env_file), "")
    installed.env_file.unlink()
    assert installed.edged("config", "show") == ("none", "")


def test_a_settings_file_that_the_user_names_is_kept(installed: InstalledCommand) -> None:
    assert installed.edged("config", "show", EDGED_ENV_FILE="/my.env") == ("/my.env", "")
    assert installed.edged("config", "show", EDGED_ENV_FILE="") == ("none", "")


def test_an_env_file_in_a_closed_folder_gives_one_message(tmp_path: Path, closed: Any) -> None:
    """The look for the folder `edged.env.d` beside it was "a bug in edged"."""
    env_file = tmp_path / "etc/edged.env"
    (tmp_path / "etc/edged.env.d").mkdir(parents=True)
    env_file.write_text("EDGED_TEMP=0.3\n")
    with closed(tmp_path / "etc"), pytest.raises(SettingsError) as caught:
        load(env_file)
    assert str(caught.value) == f"{env_file} cannot be read: Permission denied"


def test_a_folder_of_settings_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file = tmp_path / "edged.env"
    env_file.write_text("EDGED_TEMP=0.3\n")
    (tmp_path / "edged.env.d").mkdir()

    def refused(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(SettingsError, match=r"edged.env.d cannot be read: Permission denied"):
        load(env_file)
    assert FilesWatch(env_file).changed(1.0) is False
