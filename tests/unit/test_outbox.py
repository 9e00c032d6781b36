"""The outbox: order, safety and bounds, whatever happens to the link, the disk and the process."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edged.mqtt.message_store import StoreError
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.outbox import Outbox
from edged.mqtt.spool import Spool
from edged.mqtt.spool_settings import SpoolSettings
from tests.support.outbox import (
    AT_ONCE,
    FULL,
    Clocks,
    FaultyStore,
    answer,
    drain,
    message,
    numbers,
    opened,
)


class OutboxMachine(RuleBasedStateMachine):
    """Against a plain list: what was added and not acknowledged comes out, in order, for ever.

    A crash is a second outbox opened on the same files, without a word to the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edged-outbox-"))
        self.clocks = Clocks()
        self.outbox = self.open()
        self.waiting: list[int] = []
        self.out: list[OutboundMessage] = []
        self.added = 0

    def open(self) -> Outbox:
        return opened(self.folder, clock=self.clocks.clock)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 40), link_healthy=st.booleans())
    def add(self, count: int, link_healthy: bool) -> None:
        new = [message(self.added + n) for n in range(count)]
        self.added += count
        self.waiting += numbers(new)
        self.outbox.add(new, link_healthy=link_healthy)

    @rule(count=st.integers(1, 16))
    def send(self, count: int) -> None:
        for _ in range(count):
            m = self.outbox.next()
            if m is None:
                assert len(self.out) == len(self.waiting)
                return
            assert numbers([m]) == [self.waiting[len(self.out)]], "the oldest not sent yet"
            self.out.append(m)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """Mostly in order, as brokers do; they need not."""
        at = data.draw(st.integers(0, min(2, len(self.out) - 1)))
        m = self.out.pop(at)
        del self.waiting[at]
        self.outbox.acknowledged(m)

    @rule()
    def slow(self) -> None:
        self.outbox.flush_to_disk()

    @rule()
    def link_lost(self) -> None:
        self.outbox.link_lost()
        self.out.clear()

    @rule(later=st.sampled_from([0.0, 10.0]))
    def housekeeping(self, later: float) -> None:
        self.clocks.go(seconds=later)
        self.outbox.maintain()

    @rule()
    def crash(self) -> None:
        self.clocks.go(seconds=10)
        self.outbox.maintain()  # what is acknowledged is gone from the files
        self.outbox = self.open()
        self.out.clear()

    @rule()
    def restart(self) -> None:
        self.outbox.close()
        self.outbox = self.open()
        self.out.clear()

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.outbox.depth == len(self.waiting)
        assert not +self.outbox.dropped


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_crash_before_acknowledged_rows_are_removed_sends_them_again_but_loses_none(
    tmp_path: Path,
) -> None:
    outbox = opened(tmp_path)
    outbox.add([message(n) for n in range(100)], link_healthy=False)
    for _ in range(50):
        sent = outbox.next()
        assert sent is not None
        outbox.acknowledged(sent)
    again = opened(tmp_path)
    assert numbers(drain(again)) == list(range(100))


def test_what_the_journal_and_the_spool_both_hold_is_sent_once_and_in_order(
    tmp_path: Path,
) -> None:
    """A kill between writing the spool and clearing the journal leaves both."""
    spool = Spool(tmp_path / "spool" / "spool.db", durable=True)
    spool.append([message(n) for n in range(5)])
    spool.close()
    shutil.move(tmp_path / "spool", tmp_path / "aside")
    opened(tmp_path).add([message(n) for n in range(3, 8)], link_healthy=True)  # and then a kill
    shutil.move(tmp_path / "aside", tmp_path / "spool")
    outbox = opened(tmp_path)
    assert outbox.depth == 8
    assert numbers(drain(outbox)) == list(range(8))
    assert outbox.depth == 0


def test_messages_of_an_earlier_run_come_first_as_they_were(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.add([message(7, "old")], link_healthy=False)
    outbox.close()
    outbox = opened(tmp_path)
    outbox.add([message(1, "new")], link_healthy=True)
    assert [m.key[:3] for m in drain(outbox)] == ["old", "new"]


def test_a_message_that_waited_says_so(tmp_path: Path) -> None:
    """Or a house would carry out an order from before the broker went away."""
    outbox = opened(tmp_path)
    outbox.add([message(1)], link_healthy=True)
    outbox.add([message(2)], link_healthy=False)
    outbox.link_lost()
    outbox.link_lost()
    assert all(m.payload.count(b'"delayed": true}') == 1 for m in drain(outbox))


def test_answers_to_commands_go_with_their_link(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.add([message(1), answer(1), message(2)], link_healthy=True)
    assert [m.key for m in (outbox.next(), outbox.next()) if m] == [message(1).key, "answer:1"]
    outbox.link_lost()
    assert outbox.dropped == {"reply": 1}
    assert numbers(drain(outbox)) == [1, 2]


def test_the_oldest_go_when_the_spool_is_full(tmp_path: Path) -> None:
    outbox = opened(tmp_path, max_mb=0.01)
    for n in range(100):
        outbox.add([message(n, size=1000)], link_healthy=False)
    assert outbox.spooled_bytes <= 10_000
    lost = outbox.dropped["spool_full"]
    assert lost > 80
    assert numbers(drain(outbox)) == list(range(lost, 100))


def test_the_oldest_go_while_they_are_being_sent(tmp_path: Path) -> None:
    outbox = opened(tmp_path, max_mb=0.01)
    outbox.add([message(n, size=1000) for n in range(8)], link_healthy=False)
    sent = [outbox.next() for _ in range(4)]
    outbox.add([message(n, size=1000) for n in range(8, 14)], link_healthy=False)
    for m in sent:
        assert m is not None
        outbox.acknowledged(m)
    rest = numbers(drain(outbox))
    assert rest == sorted(rest)
    assert rest[-1] == 13
    assert not set(rest) & {0, 1, 2, 3}
    assert outbox.depth == 0


def test_messages_that_are_too_old_go(tmp_path: Path) -> None:
    clocks = Clocks()
    outbox = opened(tmp_path, clock=clocks.clock)
    outbox.add([message(1)], link_healthy=False)
    clocks.go(20)
    outbox.add([message(2)], link_healthy=False)
    clocks.go(20)
    outbox.maintain()
    assert outbox.dropped == {"too_old": 1}
    assert numbers(drain(outbox)) == [2]


def test_the_words_before_the_clock_was_set_are_not_a_month_old_afterwards(
    tmp_path: Path,
) -> None:
    """A board without a battery clock came out of a cupboard, heard people, then the time: what
    it had heard a minute ago was dropped as too old. Its age counts by the minutes that passed."""
    clocks = Clocks(behind_s=40 * 86400)
    outbox = opened(tmp_path, clock=clocks.clock)
    outbox.add([message(1)], link_healthy=False)
    clocks.jump(40)
    outbox.add([message(2)], link_healthy=False)
    clocks.go(1)
    outbox.maintain()
    assert not +outbox.dropped
    clocks.go(30)
    outbox.maintain()
    assert outbox.dropped == {"too_old": 2}, "neither jumped ahead of the time"


def test_what_an_earlier_run_left_gets_a_day_to_be_sent_whatever_its_age(
    tmp_path: Path,
) -> None:
    """That run may have ended before it heard the time, so its words only look old."""
    clocks = Clocks(behind_s=40 * 86400)
    outbox = opened(tmp_path, clock=clocks.clock)
    outbox.add([message(1)], link_healthy=False)
    outbox.close()
    clocks.jump(40)
    outbox = opened(tmp_path, clock=clocks.clock)
    clocks.go(0.5)
    outbox.maintain()
    assert not +outbox.dropped
    assert outbox.depth == 1
    clocks.go(1)
    outbox.maintain()
    assert outbox.dropped == {"too_old": 1}


def test_memory_is_bounded_when_the_disk_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    outbox = opened(tmp_path, memory_limit=100)
    for n in range(150):
        outbox.add([message(n)], link_healthy=False)
    assert "cannot be used" in (outbox.disk_error or "")
    assert outbox.dropped == {"memory_full": 50}
    assert numbers(drain(outbox)) == list(range(50, 150))


def test_answers_are_dropped_before_any_durable_message(tmp_path: Path) -> None:
    """Answers and texts shared one bound: with a full disk and a healthy broker a burst of 9500
    commands pushed 13 numbered messages out of memory, while thousands of answers stayed."""
    outbox = opened(tmp_path, store=full(tmp_path), memory_limit=3000)
    for n in range(2500):
        outbox.add([message(n), answer(n)], link_healthy=True)
    assert outbox.dropped == {"reply": 2000}
    found = drain(outbox)
    assert numbers(m for m in found if m.durable) == list(range(2500))
    assert [m.key for m in found if not m.durable] == [f"answer:{n}" for n in range(2000, 2500)]


def test_a_durable_message_is_dropped_only_when_no_answer_is_left(tmp_path: Path) -> None:
    outbox = opened(tmp_path, store=full(tmp_path), memory_limit=100)
    outbox.add([answer(n) for n in range(40)], link_healthy=True)
    outbox.add([message(n) for n in range(130)], link_healthy=True)
    assert outbox.dropped == {"reply": 40, "memory_full": 30}
    assert numbers(drain(outbox)) == list(range(30, 130))


def test_a_flood_of_answers_is_no_loss_and_does_not_touch_the_disk(tmp_path: Path) -> None:
    """With a healthy disk it was reported as thousands of lost messages, though none was; and each
    one was a reason to write to the disk."""
    store = FaultyStore(tmp_path)
    outbox = opened(tmp_path, store=store)
    for n in range(5000):
        outbox.add([answer(n)], link_healthy=True)
    outbox.add([message(1)], link_healthy=True)
    assert outbox.dropped == {"reply": 5000 - 1024}
    assert store.attempts == 0
    assert numbers(m for m in drain(outbox) if m.durable) == [1]


def full(folder: Path) -> FaultyStore:
    store = FaultyStore(folder)
    store.write_error = FULL
    return store


def test_a_disk_that_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "spool"
    blocked.write_text("")
    outbox = opened(tmp_path, retry=AT_ONCE)
    for n in range(10):
        outbox.add([message(n)], link_healthy=False)
    assert caplog.text.count("cannot be used") == 1, "said once per episode"
    blocked.unlink()
    outbox.add([message(10)], link_healthy=False)
    assert outbox.disk_error is None
    assert outbox.spooled == 11
    assert numbers(drain(opened(tmp_path))) == list(range(11))


def test_without_a_disk_the_journal_still_outlives_a_kill(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    outbox = opened(tmp_path)
    outbox.add([message(n) for n in range(5)], link_healthy=False)
    (tmp_path / "spool").unlink()
    assert numbers(drain(opened(tmp_path))) == list(range(5))


def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    store = FaultyStore(tmp_path)
    outbox = opened(tmp_path, store=store, retry=AT_ONCE)
    outbox.add([message(0)], link_healthy=False)
    store.write_error = FULL
    outbox.add([message(n, size=4000) for n in range(1, 30)], link_healthy=False)
    assert "full" in (outbox.disk_error or "")
    store.write_error = None
    outbox.add([message(30)], link_healthy=False)
    assert outbox.disk_error is None
    assert numbers(drain(outbox)) == list(range(31))


def test_a_disk_without_room_is_an_error_of_the_store_and_no_damage(tmp_path: Path) -> None:
    """SQLite's own limit of pages stands for the full disk: the same error at the same place."""
    folder = tmp_path / "spool"
    spool = Spool(folder / "spool.db", durable=True)
    spool.append([message(0)])
    with sqlite3.connect(folder / "spool.db") as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    spool.limit_pages(pages + 2)
    with pytest.raises(StoreError, match="full") as error:
        spool.append([message(n, size=4000) for n in range(1, 30)])
    assert not error.value.damaged
    assert spool.count == 1
    spool.append([message(1)])


def test_a_damaged_spool_is_put_aside_and_a_new_one_made(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "spool.db").write_bytes(b"\x17 no database" * 500)
    outbox = opened(tmp_path)
    outbox.add([message(1)], link_healthy=False)
    assert numbers(drain(outbox)) == [1]
    assert (tmp_path / "spool" / "spool.damaged").exists()


def test_a_torn_spool_gives_back_what_is_whole(tmp_path: Path) -> None:
    """The end of the write-ahead log is lost in a power cut: what was committed before stays."""
    outbox = opened(tmp_path)
    for n in range(20):
        outbox.add([message(n)], link_healthy=False)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "spool", copy / "spool")
    log = copy / "spool" / "spool.db-wal"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) - 700])
    found = numbers(drain(opened(copy)))
    assert found == list(range(len(found)))
    assert len(found) >= 18


def test_the_spool_is_synced_and_private_and_the_journal_is_not_synced(tmp_path: Path) -> None:
    """2 is FULL: a commit is on the disk when it returns, also in WAL mode (sqlite.org)."""
    for durable, expected in ((True, 2), (False, 0)):
        spool = Spool(tmp_path / f"{durable}" / "x.db", durable=durable)
        spool.append([message(1)])
        assert spool.pragma("synchronous") == expected
        assert spool.pragma("journal_mode") == "wal"
        assert (tmp_path / f"{durable}" / "x.db").stat().st_mode & 0o077 == 0
        assert (tmp_path / f"{durable}").stat().st_mode & 0o077 == 0


def test_a_spool_that_was_emptied_gives_its_space_back(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.add([message(n, size=10_000) for n in range(200)], link_healthy=False)
    drain(outbox)
    outbox.maintain()
    outbox.close()
    assert sum(f.stat().st_size for f in (tmp_path / "spool").iterdir()) < 100_000


def test_a_run_without_trouble_leaves_no_file_behind(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.add([message(n) for n in range(100)], link_healthy=True)
    drain(outbox)
    outbox.close()
    assert not (tmp_path / "spool").exists()


def test_two_daemons_do_not_take_each_others_messages(tmp_path: Path) -> None:
    """Both find the same folder on the memory file system of their user."""
    for name in ("a", "b"):
        spool = SpoolSettings(tmp_path / name, journal_dir=tmp_path / "run")
        outbox = Outbox(spool)
        outbox.open()
        outbox.add([message(1, name)], link_healthy=True)
    again = Outbox(SpoolSettings(tmp_path / "a", journal_dir=tmp_path / "run"))
    again.open()
    assert [m.key[0] for m in drain(again)] == ["a"]


def test_two_spools_on_one_file_do_not_break_each_other(tmp_path: Path) -> None:
    one = Spool(tmp_path / "x.db", durable=True)
    two = Spool(tmp_path / "x.db", durable=True)
    one.append([message(1)])
    two.append([message(2)])
    with sqlite3.connect(tmp_path / "x.db") as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (2,)
