"""The outbox on a card that fails: what is told, what is saved, and that it goes on."""

from __future__ import annotations

import sqlite3
import time
from itertools import pairwise
from pathlib import Path

import pytest

from edged.mqtt import outbox as outbox_module
from edged.mqtt.spool import Message
from tests.support.outbox import drain, message, numbers, opened


def test_what_is_on_disk_comes_first_also_while_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words 6, 7, 8 of memory overtook 1 to 5, which a slow card did not give just then. And
    each try to read put off the next try to write, so that nothing new was safe from a kill."""
    monkeypatch.setattr(outbox_module, "_RETRY_DISK_S", 0)
    box = opened(tmp_path)
    box.add([message(n) for n in range(1, 6)], proven=False)
    with monkeypatch.context() as slow:
        slow.setattr(box._spool, "read", failing(sqlite3.OperationalError("disk I/O error")))
        box.add([message(n) for n in range(6, 9)], proven=True)
        slow.setattr(outbox_module, "_RETRY_DISK_S", 60)
        assert drain(box) == []
        assert "cannot be read" in (box.disk_error or "")
        assert box.spill(), "what is new is put on disk all the same"
    box._read_retry_at = 0.0
    assert numbers(drain(box)) == list(range(1, 9))
    assert box.disk_error is None
    assert not +box.dropped


def test_a_spool_that_stays_unreadable_is_put_aside_and_what_is_new_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or everything said from then on would wait for it for ever."""
    monkeypatch.setattr(outbox_module, "_RETRY_DISK_S", 0)
    box = opened(tmp_path)
    box.add([message(n) for n in range(100)], proven=False)
    sent = box.next()  # which reads 64 of them into memory
    assert sent is not None
    with monkeypatch.context() as dead:
        dead.setattr(box._spool, "read", failing(sqlite3.OperationalError("disk I/O error")))
        found = numbers(drain(box))
        box.add([message(n) for n in range(100, 103)], proven=True)
        for _ in range(outbox_module._READ_TRIES - 1):  # that drain was one
            assert box.damaged == 0
            assert box.next() is None
    assert box.damaged == 1
    assert box.dropped == {"damaged": 36}
    box.add([message(103)], proven=False)
    found += numbers(drain(box))
    assert found == [*range(1, 64), *range(100, 104)]
    box.acked(sent)
    box.maintain(time.monotonic())
    assert box.depth == 0
    assert box.spooled == 0


def failing(problem: Exception):
    def fail(*_: object) -> None:
        raise problem

    return fail


def test_a_spool_that_is_damaged_under_way_gives_back_what_can_be_read(tmp_path: Path) -> None:
    """It stayed in use, and took and gave nothing any more until somebody restarted the daemon."""
    box = opened(tmp_path)
    box.add([message(n, size=4000) for n in range(200)], proven=False)
    assert box._spool._db is not None
    box._spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    box.close()
    whole = (tmp_path / "spool" / "spool.db").read_bytes()
    box = opened(tmp_path)
    assert box._spool._db is not None
    box._spool._db.execute("PRAGMA shrink_memory")  # what the check at the start has read
    half = len(whole) // 2
    with (tmp_path / "spool" / "spool.db").open("r+b") as file:
        file.seek(half)
        file.write(b"\x17" * (len(whole) - half))
    box.add([message(n) for n in range(200, 210)], proven=False)
    box.add([message(210)], proven=False)
    found = numbers(drain(box))
    assert box.damaged == 1
    assert found == sorted(found)
    assert found[-11:] == list(range(200, 211))
    assert len(found) + box.dropped["damaged"] == 211
    assert box.disk_error is None


def test_what_is_rescued_from_a_damaged_spool_is_safe_at_once_however_much_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken into memory, which holds 4096 when the disk cannot be written: of 10000 readable
    words 5905 were dropped before the new spool was tried."""
    box = opened(tmp_path)
    box.add([message(n) for n in range(5000)], proven=False)
    append = box._spool.append

    def damaged_once(messages: list[Message]) -> None:
        monkeypatch.setattr(box._spool, "append", append)
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(box._spool, "append", damaged_once)
    box.add([message(5000)], proven=False)
    assert box.damaged == 1
    assert box.spooled == 5001
    assert not +box.dropped
    assert box.disk_error is None
    assert numbers(drain(box)) == list(range(5001))


def test_a_card_that_ruins_each_new_spool_is_not_given_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one put aside is told with an error, which is a message, which wants to be on disk."""
    box = opened(tmp_path)
    box.add([message(0)], proven=False)

    def ruin(_: object) -> None:
        box._spool.path.touch()
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(box._spool, "append", ruin)
    for n in range(1, 50):
        box.add([message(n)], proven=False)
    assert box.damaged <= 2
    assert numbers(drain(box)) == list(range(50))


def test_a_card_that_ruins_each_new_spool_rests_longer_and_longer_and_the_words_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It rested for five seconds: three renames and a warning each time, for ever, and in fifteen
    seconds the one damaged file with words in it had made room for three that held nothing."""
    now = 1000.0
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: now)
    box = opened(tmp_path)
    box.add([message(0)], proven=False)
    append, tries = box._spool.append, []

    def ruin(_: object) -> None:
        tries.append(now)
        box._spool.path.write_bytes(b"no database")
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(box._spool, "append", ruin)
    monkeypatch.setattr(box._spool, "probe", lambda: ruin(None))
    for n in range(1, 3000):
        now += 1
        box.add([message(n)], proven=False)
        box.maintain(now)
    rests = [later - earlier for earlier, later in pairwise(tries)]
    assert rests == [0, 60, 120, 240, 480, 960]
    assert box.damaged == 1
    assert [f.name for f in (tmp_path / "spool").iterdir()] == ["spool.damaged"]
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 2
    monkeypatch.undo()
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: now)
    assert box._spool.append == append
    now += outbox_module._LONGEST_REST_S
    box.maintain(now)
    assert box.disk_error is None, "the card was exchanged"
    assert box.spill()
    assert box.spooled == 3000
    assert numbers(drain(box)) == list(range(3000))


def test_a_spool_that_a_probe_finds_damaged_is_put_aside_and_its_words_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ruined file stayed in place, so that trouble was told until something was written."""
    box = opened(tmp_path)
    box.add([message(n) for n in range(3)], proven=False)
    box._disk_failed(OSError("the card is full"))
    with monkeypatch.context() as ruined:
        malformed = sqlite3.DatabaseError("database disk image is malformed")
        ruined.setattr(box._spool, "probe", failing(malformed))
        box.maintain(time.monotonic() + outbox_module._PROBE_EVERY_S)
    assert box.damaged == 1
    assert box.disk_error is None
    assert box.spooled == 3
    assert numbers(drain(box)) == [0, 1, 2]


def test_at_most_three_damaged_files_are_kept(tmp_path: Path) -> None:
    """The second one once overwrote the first; a bad card must not fill itself with them either."""
    for n in range(5):
        (tmp_path / "spool").mkdir(exist_ok=True)
        (tmp_path / "spool" / "spool.db").write_bytes(b"%d no database" % n * 500)
        opened(tmp_path).close()
    kept = sorted((tmp_path / "spool").glob("*damaged*"))
    assert [f.read_bytes()[:1] for f in kept] == [b"4", b"3", b"2"]


def test_trouble_with_the_disk_ends_in_the_report_too_when_nothing_has_to_be_written(
    tmp_path: Path,
) -> None:
    """With a healthy broker nothing goes to disk: a card that was full once was told for ever."""
    (tmp_path / "spool").write_text("")
    box = opened(tmp_path)
    box.add([message(0)], proven=False)
    (tmp_path / "spool").unlink()
    assert box.disk_error is not None
    box.maintain(time.monotonic() + outbox_module._PROBE_EVERY_S)
    assert box.disk_error is None
    assert numbers(drain(box)) == [0]
    assert box.spooled == 0
