"""Changes made over MQTT are stored whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config.sources import RuntimeOverride
from edged.config.state_file import StateFile


def test_what_was_written_is_read_back_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "deep" / "state")
    assert state.read() == {}
    overrides = {"mute": RuntimeOverride(True, None), "temp": RuntimeOverride(0.5, "0.3")}
    assert state.write(overrides)
    assert StateFile(tmp_path / "deep" / "state").read() == overrides
    assert [p.name for p in state.path.parent.iterdir()] == ["state.json"]
    assert state.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"settings": 1}', '{"settings": {"mute": true}}', "\xff"]
)
def test_a_damaged_file_is_reported_and_read_as_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    state = StateFile(tmp_path)
    state.path.write_bytes(text.encode("latin-1"))
    assert state.read() == {}
    assert state.damaged
    assert "are lost" in caplog.text


def test_a_disk_that_refuses_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    state = StateFile(tmp_path / "file" / "below")
    assert not state.write({})
    assert not state.write({})
    assert caplog.text.count("cannot be written") == 1
