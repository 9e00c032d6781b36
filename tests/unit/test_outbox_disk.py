"""The outbox on a disk that fails: what is reported, what is saved, and that it goes on."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest

from edged.mqtt.disk_health import DiskRetry
from edged.mqtt.message_store import StoreError
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.spool import Spool
from edged.mqtt.spool_salvage import salvage
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.outbox import (
    AT_ONCE,
    FULL,
    MALFORMED,
    SLOW,
    Clocks,
    FaultyStore,
    drain,
    message,
    numbers,
    opened,
)


def test_what_is_on_disk_comes_first_also_while_it_cannot_be_read(tmp_path: Path) -> None:
    """The words 6, 7, 8 of memory overtook 1 to 5, which a slow disk did not give just then. And
    each attempt to read put off the next attempt to write, so that nothing new was safe."""
    clocks, store = Clocks(), FaultyStore(tmp_path)
    outbox = opened(tmp_path, store=store, retry=DiskRetry(retry_s=60), clock=clocks.clock)
    outbox.add([message(n) for n in range(1, 6)], link_healthy=False)
    store.read_error = SLOW
    outbox.add([message(n) for n in range(6, 9)], link_healthy=True)
    assert drain(outbox) == []
    assert "cannot be read" in (outbox.disk_error or "")
    assert outbox.flush_to_disk(), "what is new is put on disk all the same"
    store.read_error = None
    assert drain(outbox) == [], "not tried again at once"
    clocks.go(seconds=60)
    assert numbers(drain(outbox)) == list(range(1, 9))
    assert outbox.disk_error is None
    assert not +outbox.dropped


@pytest.mark.parametrize("rescued", [True, False])
def test_a_spool_that_stays_unreadable_is_put_aside_and_what_is_new_goes_on(
    tmp_path: Path, rescued: bool
) -> None:
    """Or everything said from then on would wait for it forever."""
    store = FaultyStore(tmp_path)
    store.salvage_error = None if rescued else SLOW
    outbox = opened(tmp_path, store=store, retry=AT_ONCE)
    outbox.add([message(n) for n in range(100)], link_healthy=False)
    sent = outbox.next()  # which reads 64 of them into memory
    assert sent is not None
    store.read_error = SLOW
    found = numbers(drain(outbox))
    outbox.add([message(n) for n in range(100, 103)], link_healthy=True)
    for _ in range(DiskRetry().read_attempts - 1):  # that drain was one
        assert outbox.damaged == 0
        assert outbox.next() is None
    store.read_error = None
    assert outbox.damaged == 1
    assert outbox.dropped == ({} if rescued else {"damaged": 36})
    outbox.add([message(103)], link_healthy=False)
    found += numbers(drain(outbox))
    assert found == [*range(1, 100 if rescued else 64), *range(100, 104)]
    outbox.acknowledged(sent)
    outbox.maintain()
    assert outbox.depth == 0
    assert outbox.spooled == 0


def test_a_spool_that_is_damaged_while_open_gives_back_what_can_be_read(tmp_path: Path) -> None:
    """It stayed in use, and took and gave nothing any more until the daemon was restarted."""
    filled(tmp_path, 200, size=4000)
    store = DamagedOnce(tmp_path)
    outbox = opened(tmp_path, store=store)
    file = tmp_path / "spool" / "spool.db"
    half = file.stat().st_size // 2
    with file.open("r+b") as spool:
        spool.seek(half)
        spool.write(b"\x17" * (file.stat().st_size - half))
    store.damaged = True
    outbox.add([message(n) for n in range(200, 210)], link_healthy=False)
    outbox.add([message(210)], link_healthy=False)
    found = numbers(drain(outbox))
    assert outbox.damaged == 1
    assert found == sorted(found)
    assert found[-11:] == list(range(200, 211))
    assert len(found) > 90
    assert len(found) + outbox.dropped["damaged"] == 211
    assert outbox.disk_error is None


PAGE = 4096


@pytest.fixture(scope="module")
def spool_of_400(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a spool with 400 messages, some of them larger than a page."""
    folder = tmp_path_factory.mktemp("whole")
    filled(folder, 400)
    return folder / "spool" / "spool.db"


def filled(folder: Path, count: int, size: int = 0) -> None:
    spool = Spool(folder / "spool" / "spool.db", durable=True)
    spool.append([message(n, size=size or (9000 if n % 50 == 7 else 150)) for n in range(count)])
    spool.close()


def damaged_at_start(whole: Path, folder: Path, first: int, pages: int = 1) -> list[int]:
    """Ruins pages of a copy, opens it as a daemon that starts; returns what is sent."""
    (folder / "spool").mkdir(parents=True)
    copy = folder / "spool" / "spool.db"
    shutil.copy(whole, copy)
    with copy.open("r+b") as file:
        file.seek(first * PAGE)
        file.write(b"\xa5" * PAGE * pages)
    outbox = opened(folder)
    found = numbers(drain(outbox))
    assert found == sorted(set(found))
    assert outbox.dropped["damaged"] == 400 - len(found), "what is lost is counted"
    assert outbox.damaged == 1
    assert outbox.disk_error is None
    outbox.add([message(400)], link_healthy=False)
    assert numbers(drain(outbox)) == [400]
    return found


def test_whichever_page_is_ruined_the_messages_of_all_others_are_found(
    spool_of_400: Path, tmp_path: Path
) -> None:
    whole = spool_of_400.read_bytes()
    copy = tmp_path / "spool.db"
    lost = []
    for at in range(0, len(whole), PAGE):
        copy.write_bytes(whole[:at] + b"\xa5" * PAGE + whole[at + PAGE :])
        found = salvage(copy)
        assert numbers(found.messages) == sorted(set(numbers(found.messages)))
        assert len(found.messages) + found.lost == 400
        lost.append(found.lost)
    assert len(lost) > 30
    assert max(lost) <= PAGE // 150
    assert sum(lost) >= 300, "each message is on some page"
    assert lost[0] == 0, "the first page tells only how the others are used"


def test_a_spool_with_a_ruined_page_is_sent_but_for_that_page(
    spool_of_400: Path, tmp_path: Path
) -> None:
    """Found at the start, one ruined page cost the whole spool: none of 49 messages was sent though
    33 could be read, and none was counted as lost."""
    for page in (0, 1, 2, 9, 20):
        found = damaged_at_start(spool_of_400, tmp_path / str(page), page)
        assert len(found) >= 400 - PAGE // 150


def test_several_ruined_pages_cost_no_more_than_their_messages(
    spool_of_400: Path, tmp_path: Path
) -> None:
    found = damaged_at_start(spool_of_400, tmp_path, 5, pages=6)
    assert 400 - 6 * PAGE // 150 <= len(found) < 400


def test_a_ruined_spool_with_a_write_ahead_log_gives_the_newest(tmp_path: Path) -> None:
    """A killed daemon leaves most of what it stored in the log beside the file."""
    spool = Spool(tmp_path / "a" / "spool" / "spool.db", durable=True)
    for n in range(60):
        spool.append([message(n, size=300)])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "spool" / "spool.db-wal").stat().st_size > 10 * PAGE
    (tmp_path / "b" / "spool" / "spool.db").write_bytes(b"\xa5" * PAGE)
    again = Spool(tmp_path / "b" / "spool" / "spool.db", durable=True)
    found = again.salvage(0)
    assert numbers(found.messages) == list(range(60))
    assert found.lost == 0
    assert numbers(again.salvage(0).messages) == list(range(60))


def test_what_was_removed_is_not_salvaged(tmp_path: Path) -> None:
    """Deleted rows stay on free pages; sent again, they would be orders of long ago."""
    spool = Spool(tmp_path / "spool" / "spool.db", durable=True)
    rows = spool.append([message(n, size=1000) for n in range(100)])
    spool.remove(rows[:90])
    assert numbers(spool.salvage(0).messages) == list(range(90, 100))
    assert numbers(spool.salvage(rows[94]).messages) == list(range(95, 100))


def test_a_file_of_garbage_is_put_aside_without_a_message(tmp_path: Path) -> None:
    for n, content in enumerate((b"\x17 no database" * 500, b"\x0d" * 9000, b"\0" * 9000)):
        folder = tmp_path / str(n)
        (folder / "spool").mkdir(parents=True)
        (folder / "spool" / "spool.db").write_bytes(content)
        outbox = opened(folder)
        outbox.add([message(1)], link_healthy=False)
        assert numbers(drain(outbox)) == [1]
        assert (folder / "spool" / "spool.damaged").read_bytes() == content


def test_a_damaged_journal_gives_back_what_is_whole(tmp_path: Path) -> None:
    opened(tmp_path).add([message(n, size=400) for n in range(100)], link_healthy=True)
    (journal,) = (tmp_path / "journal").glob("journal-*.db")
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with journal.open("r+b") as file:
        file.seek(5 * PAGE)
        file.write(b"\xa5" * PAGE)
    outbox = opened(tmp_path)
    found = numbers(drain(outbox))
    assert len(found) >= 85
    assert len(found) + outbox.dropped["damaged"] == 100


def test_what_is_rescued_from_a_damaged_spool_is_safe_at_once_however_much_it_is(
    tmp_path: Path,
) -> None:
    """It was taken into memory, which is bounded when the disk cannot be written: of 10000 readable
    words 5905 were dropped before the new spool was tried."""
    store = DamagedOnce(tmp_path)
    outbox = opened(tmp_path, store=store)
    outbox.add([message(n) for n in range(6000)], link_healthy=False)
    store.damaged = True
    outbox.add([message(6000)], link_healthy=False)
    assert outbox.damaged == 1
    assert outbox.spooled == 6001
    assert not +outbox.dropped
    assert outbox.disk_error is None
    assert numbers(drain(outbox)) == list(range(6001))


class DamagedOnce(FaultyStore):
    damaged = False

    def _write(self) -> None:
        if self.damaged:
            self.damaged = False
            raise MALFORMED


def test_a_disk_that_ruins_each_new_spool_is_not_given_one_after_the_other(tmp_path: Path) -> None:
    """Each one put aside is told with an error, which is a message, which wants to be on disk."""
    store = FaultyStore(tmp_path)
    outbox = opened(tmp_path, store=store)
    outbox.add([message(0)], link_healthy=False)
    store.write_error = MALFORMED
    for n in range(1, 50):
        outbox.add([message(n)], link_healthy=False)
    assert outbox.damaged <= 2
    assert numbers(drain(outbox)) == list(range(50))


def test_a_disk_that_ruins_each_new_spool_rests_longer_and_longer_and_the_words_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It rested for five seconds: three renames and a warning each time, forever, and in fifteen
    seconds the one damaged file with words in it had made room for three that held nothing."""
    clocks, store = Clocks(), FaultyStore(tmp_path)
    outbox = opened(tmp_path, store=store, clock=clocks.clock)
    outbox.add([message(0)], link_healthy=False)
    store.write_error, store.ruins_the_file = MALFORMED, True
    attempts = []
    for n in range(1, 3000):
        clocks.go(seconds=1)
        before = store.attempts
        outbox.add([message(n)], link_healthy=False)
        outbox.maintain()
        attempts += [n] * (store.attempts - before)
    assert [later - earlier for earlier, later in pairwise(attempts)] == [0, 60, 120, 240, 480, 960]
    assert outbox.damaged == 1
    assert [f.name for f in (tmp_path / "spool").iterdir()] == ["spool.damaged"]
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 2
    store.write_error = None
    clocks.go(seconds=DiskRetry().longest_rest_s)
    outbox.maintain()
    assert outbox.disk_error is None, "the disk was exchanged"
    assert outbox.flush_to_disk()
    assert outbox.spooled == 3000
    assert numbers(drain(outbox)) == list(range(3000))


def test_a_spool_that_a_probe_finds_damaged_is_put_aside_and_its_words_are_not_lost(
    tmp_path: Path,
) -> None:
    """The ruined file stayed in place, so that the error was told until something was written."""
    clocks, store = Clocks(), FaultyStore(tmp_path)
    outbox = opened(tmp_path, store=store, clock=clocks.clock)
    outbox.add([message(n) for n in range(3)], link_healthy=False)
    store.write_error = FULL
    outbox.add([message(3)], link_healthy=False)
    assert outbox.disk_error is not None
    store.write_error = MALFORMED
    clocks.go(seconds=DiskRetry().probe_every_s)
    outbox.maintain()
    assert outbox.damaged == 1
    store.write_error = None
    clocks.go(seconds=2 * DiskRetry().probe_every_s)
    outbox.maintain()
    assert outbox.flush_to_disk()
    assert outbox.disk_error is None
    assert outbox.spooled == 4
    assert numbers(drain(outbox)) == [0, 1, 2, 3]


def test_at_most_three_damaged_files_are_kept(tmp_path: Path) -> None:
    """The second one once overwrote the first; a bad disk must not fill itself with them either."""
    for n in range(5):
        (tmp_path / "spool").mkdir(exist_ok=True)
        (tmp_path / "spool" / "spool.db").write_bytes(b"%d no database" % n * 500)
        opened(tmp_path).close()
    kept = sorted((tmp_path / "spool").glob("*damaged*"))
    assert [f.read_bytes()[:1] for f in kept] == [b"4", b"3", b"2"]


def test_an_error_of_the_disk_ends_also_when_nothing_has_to_be_written(tmp_path: Path) -> None:
    """With a healthy broker nothing goes to disk: a disk that was full once was told forever."""
    clocks = Clocks()
    (tmp_path / "spool").write_text("")
    outbox = opened(tmp_path, clock=clocks.clock)
    outbox.add([message(0)], link_healthy=False)
    (tmp_path / "spool").unlink()
    assert outbox.disk_error is not None
    clocks.go(seconds=DiskRetry().probe_every_s)
    outbox.maintain()
    assert outbox.disk_error is None
    assert numbers(drain(outbox)) == [0]
    assert outbox.spooled == 0


def test_the_spool_of_version_0_1_0_is_sent(tmp_path: Path) -> None:
    """Written with the statements of that version: an upgrade keeps undelivered messages."""
    (tmp_path / "spool").mkdir()
    with sqlite3.connect(tmp_path / "spool" / "spool.db") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS messages (\n    id INTEGER PRIMARY KEY AUTOINCREMENT,\n"
            "    key TEXT NOT NULL UNIQUE,\n    name TEXT NOT NULL,\n    payload BLOB NOT NULL,\n"
            "    stored_at REAL NOT NULL\n)"
        )
        db.executemany(
            "INSERT INTO messages (key, name, payload, stored_at) VALUES (?, ?, ?, 1.7e9)",
            [(f"s:{n:012d}", "turn", b'{"a": 1, "delayed": true}') for n in range(5)],
        )
    db.close()
    assert [(m.name, m.payload) for m in drain(opened(tmp_path))] == [
        ("turn", b'{"a": 1, "delayed": true}')
    ] * 5


def test_errors_of_the_file_system_are_errors_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    spool = Spool(SpoolSettings(tmp_path / "spool").dir / "spool.db", durable=True)
    with pytest.raises(StoreError) as error:
        spool.append([OutboundMessage("k", "text", b"{}")])
    assert not error.value.damaged
