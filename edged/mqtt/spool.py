"""Messages on disk, in order, through `kill -9` and power loss: one SQLite table.

Two of these serve the outbox. The *spool* is on the card and is written only while the broker is
away or slow. The *journal* is on a memory file system: it holds what a healthy broker has not
acknowledged yet, so that a killed daemon loses nothing and the card sees no write.

WAL with synchronous=FULL syncs at every commit (sqlite.org/pragma.html#pragma_synchronous);
OFF is enough where only a killed process must be survived.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

_log = logging.getLogger(__name__)
_KEPT = 3  # damaged files
_JUMP_S = 120  # less is drift, which does not matter against an age of days
_GRACE_S = 86400
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


@dataclass(slots=True, eq=False)
class Message:
    """One event on its way. `key` is session and seq; `name` is the topic below the device.

    `durable` messages are never lost; others go with the link. `row` is where it is on disk.
    `waited`: it did not go straight to a broker that was there, so it is no longer live.
    """

    key: str
    name: str
    payload: bytes
    durable: bool = True
    row: int | None = None
    waited: bool = False
    answer: tuple[str, bytes | None] | None = field(default=None)  # response topic, correlation

    @property
    def size(self) -> int:
        return len(self.payload) + len((self.name + self.key).encode()) + _ROW_BYTES


class Spool:
    """A first-in first-out table in `path`. Opens nothing until it is used; one thread only.

    Every method but the constructor may raise sqlite3.Error or OSError: a full or read-only disk.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self.count = 0
        self.bytes = 0
        self.damaged = 0
        self._opened_at = 0.0  # monotonic
        self._earlier_to = 0  # rows up to here are an earlier run's
        self._clock_offset = 0.0  # what the wall clock shows at monotonic 0
        self._durable = durable
        self._db: sqlite3.Connection | None = None

    def open_if_exists(self) -> None:
        """Finds what an earlier run has left. A file that is no database is put aside."""
        if self._db is None and self.path.exists():
            self._open()

    def append(self, messages: Sequence[Message]) -> None:
        """All or none, on disk when this returns; each message then knows its row.

        A key that is already there keeps its place: the journal of a killed run may repeat it.
        """
        if not messages:
            return
        db = self._open()
        self._follow_clock(db)
        now = time.time()
        rows, added = [], []
        with _transaction(db):
            for message in messages:
                cursor = db.execute(
                    "INSERT OR IGNORE INTO messages (key, name, payload, stored_at) "
                    "VALUES (?, ?, ?, ?)",
                    (message.key, message.name, message.payload, now),
                )
                if cursor.rowcount:
                    rows.append(cursor.lastrowid)
                    added.append(message.size)
                else:
                    found = db.execute("SELECT id FROM messages WHERE key = ?", (message.key,))
                    rows.append(found.fetchone()[0])
        for message, row in zip(messages, rows, strict=True):
            message.row = row
        self.count += len(added)
        self.bytes += sum(added)

    def read(self, after: int, limit: int) -> list[Message]:
        """The oldest `limit` messages with a row above `after`."""
        if self._db is None:
            return []
        found = self._db.execute(
            "SELECT id, key, name, payload FROM messages WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [
            Message(key, name, bytes(payload), row=row, waited=True)
            for row, key, name, payload in found
        ]

    def waiting(self, after: int) -> int:
        """How many messages have a row above `after`."""
        if self._db is None:
            return 0
        query = "SELECT count(*) FROM messages WHERE id > ?"
        return int(self._db.execute(query, (after,)).fetchone()[0])

    def remove(self, rows: Iterable[int]) -> None:
        self._delete("id = ?", rows)
        if self._db is not None and self.count == 0 and self._durable:
            # Gives the space back, so that a bad week does not keep its megabytes for ever.
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def remove_keys(self, keys: Iterable[str]) -> None:
        self._delete("key = ?", keys)

    def clear(self) -> None:
        if self.count:
            self._delete("id > ?", [0])

    def probe(self) -> None:
        """Raises if nothing can be written."""
        with _transaction(self._open()) as db:
            db.execute("INSERT INTO messages (key, name, payload, stored_at) VALUES ('','','',0)")
            db.execute("DELETE FROM messages WHERE key = ''")

    def drop_older_than(self, age_s: float) -> int:
        """Removes what was stored longer ago than that; returns how many.

        An earlier run may have stored with a wrong clock, so what it left gets a day to be sent.
        """
        if self._db is None:
            return 0
        self._follow_clock(self._db)
        graced = time.monotonic() - self._opened_at < _GRACE_S
        which = f"stored_at < ? AND id > {self._earlier_to if graced else 0}"
        return self._delete(which, [time.time() - age_s])

    def _follow_clock(self, db: sqlite3.Connection) -> None:
        """A board without a battery clock wakes up weeks behind, and jumps when it has heard the
        time: what this run stored before then jumps along, or it would count as weeks old."""
        offset = time.time() - time.monotonic()
        jump = offset - self._clock_offset
        if abs(jump) > _JUMP_S:
            query = "UPDATE messages SET stored_at = stored_at + ? WHERE id > ?"
            with _transaction(db):
                db.execute(query, (jump, self._earlier_to))
            self._clock_offset = offset

    def drop_to(self, most_bytes: int) -> int:
        """Removes the oldest until at most 95 % of `most_bytes` are left; returns how many."""
        if self._db is None or self.bytes <= most_bytes:
            return 0
        left, last = self.bytes, 0
        sizes = self._db.execute(f"SELECT id, {_SIZE} FROM messages ORDER BY id")
        for last, size in sizes:  # noqa: B007  (`last` is the newest row that must go)
            left -= size
            if left <= most_bytes * 0.95:
                break
        sizes.close()
        return self._delete("id <= ?", [last])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def put_aside(self, problem: Exception) -> None:
        """Gives the file up, but keeps it under another name if it held anything.

        The next use makes a new one.
        """
        self.close()
        held, self.count, self.bytes = self.count > 0, 0, 0
        self._put_aside(problem, keep=held)

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
            existed = self.path.exists()
            try:
                self._db = self._connect()
            except sqlite3.DatabaseError as problem:
                if isinstance(problem, sqlite3.OperationalError):
                    raise  # full, read-only or locked: the file itself may be good
                self._put_aside(problem, keep=existed)
                self._db = self._connect()
            self._opened_at = time.monotonic()
            self._clock_offset = time.time() - self._opened_at
        return self._db

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: each transaction is begun and ended by name.
        db = sqlite3.connect(self.path, timeout=1, isolation_level=None)
        try:
            os.chmod(self.path, 0o600)  # what people said
            db.execute("PRAGMA journal_mode=WAL").fetchall()
            db.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
            db.execute(_SCHEMA)
            for (answer,) in db.execute("PRAGMA quick_check(1)").fetchall():
                if answer != "ok":
                    raise sqlite3.DatabaseError(answer)
            query = f"SELECT count(*), coalesce(sum({_SIZE}), 0), coalesce(max(id), 0)"
            (found,) = db.execute(f"{query} FROM messages").fetchall()
            self.count, self.bytes, self._earlier_to = found
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self, problem: Exception, *, keep: bool) -> None:
        if keep:
            self._keep(problem)
        else:  # or a card that ruins each new one would push the one with the words out
            self.path.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _keep(self, problem: Exception) -> None:
        names = (".damaged", *(f".damaged.{n}" for n in range(1, _KEPT)))
        newest, *older = [self.path.with_suffix(name) for name in names]
        for old, new in reversed(list(pairwise([newest, *older]))):
            if old.exists():
                os.replace(old, new)
        os.replace(self.path, newest)
        self.damaged += 1
        _log.warning("the spool %s is damaged (%s): put aside as %s", self.path, problem, newest)


def _make_folder(folder: Path) -> None:
    """SQLite syncs the entry of its own file; that of a folder made for it is ours to sync."""
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
