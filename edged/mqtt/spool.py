"""The store on disk: one SQLite table that survives `kill -9` and power loss.

Two of these serve the outbox. The *spool* is on disk and is written only while the broker is away
or slow. The *journal* is on a memory file system and holds what a healthy broker has not
acknowledged yet, so that a killed daemon loses nothing and the disk sees no write.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from edged.logs import log_event
from edged.mqtt.clock import SYSTEM_CLOCK, Clock
from edged.mqtt.message_store import Salvaged, StoreError
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.spool_salvage import salvage

_log = logging.getLogger(__name__)
_KEPT_DAMAGED = 3  # files
_CLOCK_JUMP_S = 120  # less is drift, which does not matter against an age of days
_GRACE_S = 86400
CHECKED_BYTES = 64_000_000  # 3 s of reading from a slow memory card
_PROGRESS_OPS = 100_000  # SQLite instructions: some 20 ms
_ROW_BYTES = 64  # what SQLite adds to each message, roughly
_SIZE = f"length(payload) + length(CAST(name || key AS BLOB)) + {_ROW_BYTES}"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    stored_at REAL NOT NULL
)
"""
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _store_errors(
    method: Callable[Concatenate[Spool, _P], _R],
) -> Callable[Concatenate[Spool, _P], _R]:
    """Turns the errors of SQLite and of the file system into StoreError."""

    @functools.wraps(method)
    def translated(self: Spool, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            # "malformed" and "not a database" come as the plain class; a subclass may pass.
            raise StoreError(str(error), damaged=type(error) is sqlite3.DatabaseError) from error
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from error

    return translated


class Spool:
    """A `MessageStore` in the file `path`. Opens nothing until it is used.

    Args:
        path: the database file; its folder is made when needed.
        durable: whether a commit is on the disk when it returns. Without it, only the kill of the
            process is survived, which is enough for a memory file system.
        on_progress: called many times during long work on a large file, for a heartbeat.
        checked_bytes: a larger file is not checked when it is opened; its damage is found when its
            messages are read.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool,
        clock: Clock = SYSTEM_CLOCK,
        on_progress: Callable[[], None] = lambda: None,
        checked_bytes: int = CHECKED_BYTES,
    ) -> None:
        self.path = path
        self.location = str(path)
        self.count = 0
        self.bytes = 0
        self.replaced = 0
        self._clock = clock
        self._durable = durable
        self._on_progress = on_progress
        self._checked_bytes = checked_bytes
        self._db: sqlite3.Connection | None = None
        self._made_here = False  # the file was made by this object
        self._opened_at = 0.0  # monotonic
        self._last_earlier_row = 0  # rows up to this one are an earlier run's
        self._clock_offset = 0.0  # what the wall clock shows at monotonic 0

    @_store_errors
    def open_existing(self) -> None:
        """Finds what an earlier run left. Raises StoreError (damaged) for a corrupt file."""
        if self._db is None and self.path.exists():
            self._open()

    @_store_errors
    def append(self, messages: Sequence[OutboundMessage]) -> list[int]:
        """Stores all messages or none. A key that is stored already keeps its row: the journal of
        a killed run may repeat it."""
        if not messages:
            return []
        db = self._open()
        self._follow_clock(db)
        now = self._clock.wall()
        rows: list[int] = []
        added: list[int] = []
        with _transaction(db):
            for message in messages:
                cursor = db.execute(
                    "INSERT OR IGNORE INTO messages (key, name, payload, stored_at) "
                    "VALUES (?, ?, ?, ?)",
                    (message.key, message.name, message.payload, now),
                )
                if cursor.rowcount:
                    assert cursor.lastrowid is not None
                    rows.append(cursor.lastrowid)
                    added.append(_size(message))
                else:
                    found = db.execute("SELECT id FROM messages WHERE key = ?", (message.key,))
                    rows.append(found.fetchone()[0])
        self.count += len(added)
        self.bytes += sum(added)
        return rows

    @_store_errors
    def read(self, after: int, limit: int) -> list[OutboundMessage]:
        if self._db is None:
            return []
        found = self._db.execute(
            "SELECT id, key, name, payload FROM messages WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [
            OutboundMessage(key, name, bytes(payload), row=row, delayed=True)
            for row, key, name, payload in found
        ]

    @_store_errors
    def count_after(self, row: int) -> int:
        if self._db is None:
            return 0
        query = "SELECT count(*) FROM messages WHERE id > ?"
        return int(self._db.execute(query, (row,)).fetchone()[0])

    @_store_errors
    def remove(self, rows: Iterable[int]) -> None:
        self._delete("id = ?", rows)
        if self._db is not None and self.count == 0 and self._durable:
            # Returns the space to the file system.
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @_store_errors
    def remove_keys(self, keys: Iterable[str]) -> None:
        """Removes messages by their keys."""
        self._delete("key = ?", keys)

    @_store_errors
    def clear(self) -> None:
        """Removes all messages."""
        if self.count:
            self._delete("id > ?", [0])

    @_store_errors
    def probe(self) -> None:
        with _transaction(self._open()) as db:
            db.execute("INSERT INTO messages (key, name, payload, stored_at) VALUES ('','','',0)")
            db.execute("DELETE FROM messages WHERE key = ''")

    @_store_errors
    def drop_older_than(self, age_s: float) -> int:
        """Removes messages stored longer ago than `age_s`; returns how many.

        What an earlier run left stays for a day: it may have been stored while the clock was wrong.
        """
        if self._db is None:
            return 0
        self._follow_clock(self._db)
        in_grace = self._clock.monotonic() - self._opened_at < _GRACE_S
        which = f"stored_at < ? AND id > {self._last_earlier_row if in_grace else 0}"
        return self._delete(which, [self._clock.wall() - age_s])

    @_store_errors
    def shrink_to(self, max_bytes: int) -> int:
        if self._db is None or self.bytes <= max_bytes:
            return 0
        left, last = self.bytes, 0
        sizes = self._db.execute(f"SELECT id, {_SIZE} FROM messages ORDER BY id")
        for last, size in sizes:  # noqa: B007  (`last` is the newest row that must go)
            left -= size
            if left <= max_bytes * 0.95:
                break
        sizes.close()
        return self._delete("id <= ?", [last])

    @_store_errors
    def salvage(self, after: int) -> Salvaged:
        """Reads every page that is still whole, whatever became of the others."""
        with contextlib.suppress(sqlite3.Error):
            self.close()  # which writes the log back into the file, if that is possible
        return salvage(self.path, after)

    @_store_errors
    def replace_damaged(self, reason: str) -> None:
        """Puts the file aside; one that never held anything is deleted instead, so that a disk
        which damages each new file does not push out the one with messages in it."""
        with contextlib.suppress(sqlite3.Error):
            self.close()
        keep = self.path.exists() and (self.count > 0 or not self._made_here)
        self.count, self.bytes, self._made_here = 0, 0, True
        if keep:
            self._keep_damaged(reason)
        else:
            self.path.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def pragma(self, name: str) -> int | str:
        """Returns one of SQLite's settings of the open file, for tests."""
        value: int | str = self._open().execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def limit_pages(self, count: int) -> None:
        """Lets the file grow to at most `count` pages: a full disk, for tests."""
        self._open().execute(f"PRAGMA max_page_count={count:d}")

    def _follow_clock(self, db: sqlite3.Connection) -> None:
        """Moves the times of this run's messages along when the wall clock jumps.

        A board without a battery-backed clock starts weeks behind; what it stored before it learnt
        the time would otherwise look weeks old.
        """
        offset = self._clock.wall() - self._clock.monotonic()
        jump = offset - self._clock_offset
        if abs(jump) > _CLOCK_JUMP_S:
            query = "UPDATE messages SET stored_at = stored_at + ? WHERE id > ?"
            with _transaction(db):
                db.execute(query, (jump, self._last_earlier_row))
            self._clock_offset = offset

    def _delete(self, which: str, values: Iterable[object]) -> int:
        if self._db is None:
            return 0
        gone: list[int] = []
        with _transaction(self._db) as db:
            for value in values:
                query = f"DELETE FROM messages WHERE {which} RETURNING {_SIZE}"
                gone += [size for (size,) in db.execute(query, (value,))]
        self.count -= len(gone)
        self.bytes -= sum(gone)
        return len(gone)

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            _make_folder(self.path.parent)
            self._made_here = self._made_here or not self.path.exists()
            self._db = self._connect()
            self._opened_at = self._clock.monotonic()
            self._clock_offset = self._clock.wall() - self._opened_at
        return self._db

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: each transaction is begun and ended by name.
        db = sqlite3.connect(self.path, timeout=1, isolation_level=None)
        try:
            db.set_progress_handler(self._progress, _PROGRESS_OPS)
            os.chmod(self.path, 0o600)  # it holds what people said
            db.execute("PRAGMA journal_mode=WAL").fetchall()
            db.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
            db.execute(_SCHEMA)
            if self.path.stat().st_size <= self._checked_bytes:
                _check(db)
            query = f"SELECT count(*), coalesce(sum({_SIZE}), 0), coalesce(max(id), 0)"
            (found,) = db.execute(f"{query} FROM messages").fetchall()
            self.count, self.bytes, self._last_earlier_row = found
        except BaseException:
            db.close()
            raise
        return db

    def _progress(self) -> int:
        self._on_progress()
        return 0  # go on

    def _keep_damaged(self, reason: str) -> None:
        names = (".damaged", *(f".damaged.{n}" for n in range(1, _KEPT_DAMAGED)))
        newest, *older = [self.path.with_suffix(name) for name in names]
        for old, new in reversed(list(pairwise([newest, *older]))):
            if old.exists():
                os.replace(old, new)
        os.replace(self.path, newest)
        self.replaced += 1
        message = f"the spool {self.path} is damaged ({reason}); it was moved to {newest}"
        log_event(_log, logging.WARNING, "spool-damaged", message)


def _check(db: sqlite3.Connection) -> None:
    """Raises DatabaseError for a damaged file. SQLite before 3.41 reports no progress here."""
    for (answer,) in db.execute("PRAGMA quick_check(1)").fetchall():
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)


def _size(message: OutboundMessage) -> int:
    """The same as _SIZE, in Python."""
    return len(message.payload) + len((message.name + message.key).encode()) + _ROW_BYTES


def _make_folder(folder: Path) -> None:
    """Makes `folder` and its parents, and syncs them; SQLite syncs only its own file's entry."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
