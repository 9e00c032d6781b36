"""The spool: a large one is opened with heartbeats, and damage in it is found when it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.mqtt.message_store import StoreError
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.spool import Spool

PAGE = 4096


def filled(path: Path, count: int, size: int) -> Path:
    """A spool of `count` messages of `size` bytes."""
    spool = Spool(path, durable=False)
    spool.append([OutboundMessage(f"s:{n}", "text", b"x" * size) for n in range(count)])
    spool.close()
    return path


def test_opening_a_large_spool_reports_progress(tmp_path: Path) -> None:
    """One of 400 MB takes seconds to open, on a memory card minutes. The MQTT thread sent no
    heartbeat meanwhile, and the watchdog ended the daemon, again at each start."""
    path = filled(tmp_path / "spool.db", 20_000, 20)
    beats: list[None] = []
    spool = Spool(path, durable=False, on_progress=lambda: beats.append(None))
    spool.open_existing()
    assert spool.count == 20_000
    assert len(beats) >= 2
    spool.close()


def test_damage_in_a_spool_that_is_too_large_to_check_is_found_when_it_is_read(
    tmp_path: Path,
) -> None:
    path = filled(tmp_path / "spool.db", 400, 3000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // PAGE * PAGE
    content[middle : middle + PAGE] = b"\xff" * PAGE
    path.write_bytes(content)
    checked = Spool(path, durable=False)
    with pytest.raises(StoreError) as caught:
        checked.open_existing()
    assert caught.value.damaged
    unchecked = Spool(path, durable=False, checked_bytes=PAGE)

    def open_and_read() -> None:
        unchecked.open_existing()
        unchecked.read(0, 400)

    with pytest.raises(StoreError) as caught:
        open_and_read()
    assert caught.value.damaged
