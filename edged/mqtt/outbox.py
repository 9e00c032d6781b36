"""What is on its way to the broker, in order, and where it is safe meanwhile.

Order is always: disk, then memory. A message is in one of these places:

- link proven (connected, and acknowledgements come): memory, with a copy in the journal on a
  memory file system. The card is not written.
- link not proven: on disk, at once, all of it. It stays there until the broker acknowledges it.

So a kill loses nothing, and a power cut loses at most what a healthy broker had not acknowledged
within the last second. Bounded in memory by count, on disk by size and age: the oldest go first,
and `dropped` says how many and why. One thread only.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

from edged.mqtt.spool import Message, Spool
from edged.mqtt.spool_settings import SpoolSettings

_log = logging.getLogger(__name__)
_MEMORY_BEFORE_DISK = 256  # a broker that is this far behind is not keeping up
_MEMORY_LIMIT = 4096  # messages, when the disk cannot be written either
_PAGE = 64
_REMOVE_EVERY_S = 2.0  # acknowledged rows leave the disk in batches: fewer syncs
_REMOVE_AT = 256
_AGE_EVERY_S = 3600.0
_RETRY_DISK_S = 5.0
_PROBE_EVERY_S = 60.0
_LONGEST_REST_S = 3600.0  # for a card that ruins each new spool
_CALM_S = 600.0  # after such a rest, then damage is news again
_READ_TRIES = 6  # then the spool is put aside: what is said now must not wait for ever
_MARK = b', "delayed": true}'


class Outbox:
    """A first-in first-out queue of messages with acknowledgement; nothing is opened before open().

    `add` takes; `next` hands out the oldest that was not handed out; `acked` forgets it; `spill`
    puts everything on disk; `link_lost` takes back what was handed out. None of them raises:
    trouble with the disk is logged once per episode, and memory holds what it can.
    """

    def __init__(self, settings: SpoolSettings) -> None:
        self.dropped: Counter[str] = Counter()
        self._write_error: str | None = None
        self._read_error: str | None = None
        self._settings = settings
        self._spool = Spool(settings.dir / "spool.db", durable=True)
        self._journal: Spool | None = None
        if settings.journal_dir is not None:
            # Several daemons of one user share that folder; each has a spool folder of its own.
            own = hashlib.sha256(str(settings.dir.absolute()).encode()).hexdigest()[:16]
            self._journal = Spool(settings.journal_dir / f"journal-{own}.db", durable=False)
        self._memory: deque[Message] = deque()
        self._page: deque[Message] = deque()  # read from disk, not handed out yet
        self._out: dict[str, Message] = {}  # handed out, by key, in order
        self._read_to = 0  # the last row that was read from disk
        self._ahead = 0  # rows on disk beyond it
        self._done_rows: list[int] = []
        self._done_keys: list[str] = []
        self._remove_at = 0.0
        self._age_at = 0.0
        self._disk_retry_at = 0.0
        self._probe_at = 0.0
        self._aside_at = float("-inf")
        self._rest_s = 0.0
        self._read_retry_at = 0.0
        self._read_failures = 0

    @property
    def depth(self) -> int:
        """Messages that the broker has not acknowledged."""
        return self._ahead + len(self._page) + len(self._memory) + len(self._out)

    @property
    def waiting(self) -> bool:
        """Whether `next` has something."""
        return bool(self._page or self._ahead or self._memory)

    @property
    def spooled(self) -> int:
        return self._spool.count

    @property
    def spooled_bytes(self) -> int:
        return self._spool.bytes

    @property
    def disk_error(self) -> str | None:
        """What is wrong with the spool at present, as a sentence."""
        return self._read_error or self._write_error

    @property
    def damaged(self) -> int:
        """How many files were put aside."""
        return self._spool.damaged + (self._journal.damaged if self._journal else 0)

    def open(self) -> int:
        """Finds what earlier runs left; returns how many messages."""
        try:
            self._spool.open_if_exists()
            self._ahead = self._spool.count
        except (sqlite3.Error, OSError) as problem:
            self._disk_failed(problem)
        try:
            if self._journal is not None:
                self._journal.open_if_exists()
                left = self._journal.read(0, self._journal.count)
                self._memory.extend(Message(m.key, m.name, m.payload, waited=True) for m in left)
        except (sqlite3.Error, OSError) as problem:
            self._journal_failed(problem)
        self._drop_old()
        self.spill()
        return self.depth

    def add(self, messages: Iterable[Message], *, proven: bool) -> None:
        """Takes messages; `proven` says whether the link is known to work at this moment."""
        new = list(messages)
        self._memory.extend(new)  # first: should the rest fail, they are not lost
        to_disk = not proven or len(self._memory) > _MEMORY_BEFORE_DISK
        if not (to_disk and self.spill()):
            self._write_journal([m for m in new if m.durable])
        while len(self._memory) > _MEMORY_LIMIT:
            self.acked(self._memory.popleft())
            self.dropped["memory_full"] += 1

    def next(self) -> Message | None:
        """The oldest message not handed out yet, which is now handed out."""
        if not self._page and self._ahead:
            self._read_page()
        if not self._page and self._ahead:
            return None  # the disk cannot be read just now, and what is on it comes first
        queue = self._page or self._memory
        if not queue:
            return None
        message = queue.popleft()
        self._out[message.key] = message
        return message

    def acked(self, message: Message) -> None:
        """The broker has it, or has refused it for good."""
        self._out.pop(message.key, None)
        if message.row is not None:
            self._done_rows.append(message.row)
        elif message.durable and self._journal is not None:
            self._done_keys.append(message.key)

    def spill(self) -> bool:
        """Puts all that is only in memory on disk, in order, handed out or not; whether it did."""
        handed = [m for m in self._out.values() if m.row is None and m.durable]
        queued = [m for m in self._memory if m.durable]
        if not handed and not queued:
            return True
        for message in (*handed, *queued):  # whether or not the disk takes them
            message.waited = True
            message.payload = _delayed(message.payload)
        if time.monotonic() < self._disk_retry_at:
            return False
        before = self._spool.count
        try:
            self._spool.append(handed + queued)
        except (sqlite3.Error, OSError) as problem:
            return self._write_failed(problem)
        self._disk_works()
        self._memory = deque(m for m in self._memory if not m.durable)
        if handed:  # then all on disk had been handed out before
            self._read_to = max(m.row for m in handed if m.row is not None)
        self._ahead += max(0, self._spool.count - before - len(handed))
        self._clear_journal()
        self._trim()
        return True

    def link_lost(self) -> None:
        """What was handed out comes back, in its place; all that is durable goes to disk."""
        back = [m for m in self._out.values() if m.row is None]
        self._out.clear()
        gone = sum(not m.durable for m in (*back, *self._memory))
        if gone:
            self.dropped["reply"] += gone
        self._memory = deque(m for m in (*back, *self._memory) if m.durable)
        self._remove_done()
        self._rewind()
        self.spill()

    def maintain(self, now: float) -> None:
        """Housekeeping; cheap when there is nothing to do. `now` is monotonic."""
        if self._done_keys and self._journal is not None:
            try:
                self._journal.remove_keys(self._done_keys)
            except (sqlite3.Error, OSError) as problem:
                self._journal_failed(problem)
            self._done_keys.clear()
        drained = len(self._done_rows) >= self._spool.count
        if self._done_rows and (
            drained or len(self._done_rows) >= _REMOVE_AT or now >= self._remove_at
        ):
            self._remove_done()
            self._remove_at = now + _REMOVE_EVERY_S
        if self._write_error is not None and now >= max(self._probe_at, self._disk_retry_at):
            self._probe_at = now + _PROBE_EVERY_S
            self._probe()
        if now >= self._age_at:
            self._age_at = now + _AGE_EVERY_S
            self._drop_old()

    def close(self) -> None:
        """Puts what is left on disk and closes it."""
        self.maintain(time.monotonic())
        self._disk_retry_at = 0.0
        self.link_lost()
        if self._memory:
            self.dropped["disk"] += len(self._memory)
            _log.error("%d messages are lost: %s", len(self._memory), self.disk_error)
        self._spool.close()
        if self._journal is not None:
            self._journal.close()

    def _probe(self) -> None:
        """With a healthy broker nothing is written: trouble would be told long after its end."""
        before = self._spool.count
        try:
            self._spool.probe()
        except (sqlite3.Error, OSError) as problem:
            self._write_failed(problem)
        else:
            self._ahead += max(0, self._spool.count - before)  # it may have been opened just now
            self._disk_works()

    def _read_page(self) -> None:
        if time.monotonic() < self._read_retry_at:
            return
        try:
            self._page.extend(self._spool.read(self._read_to, _PAGE))
        except (sqlite3.Error, OSError) as problem:
            self._read_failed(problem)
            return
        self._read_error, self._read_failures = None, 0
        if self._page and self._page[-1].row is not None:
            self._read_to = self._page[-1].row
        self._ahead = max(0, self._ahead - len(self._page)) if self._page else 0

    def _read_failed(self, problem: Exception) -> None:
        if self._read_error is None:
            _log.warning("the spool %s cannot be read: %s", self._spool.path, problem)
        self._read_error = f"the spool {self._spool.path} cannot be read: {problem}"
        self._read_retry_at = time.monotonic() + _RETRY_DISK_S
        self._read_failures += 1
        if _surely_damaged(problem) or self._read_failures >= _READ_TRIES:
            self._put_aside(problem)
            self.spill()

    def _put_aside(self, problem: Exception) -> bool:
        """Takes what can still be read into memory, counts the rest, and begins a new spool.

        Returns whether that may be written at once.
        """
        rescued = list(self._page)
        on_disk = len(rescued) + self._ahead
        with contextlib.suppress(sqlite3.Error, OSError):
            while found := self._spool.read(self._read_to, 1):
                rescued += found
                self._read_to = found[0].row or 0
        for message in (*self._out.values(), *rescued):
            message.row = None
        try:
            self._spool.put_aside(problem)
        except OSError as also:
            self._disk_failed(also)
        else:
            now = time.monotonic()
            calm = now - self._aside_at >= self._rest_s + _CALM_S
            longer = min(max(_PROBE_EVERY_S, 2 * self._rest_s), _LONGEST_REST_S)
            self._rest_s = 0.0 if calm else longer
            self._aside_at, self._disk_retry_at = now, now + self._rest_s
        if on_disk > len(rescued):
            self.dropped["damaged"] += on_disk - len(rescued)
        self._memory.extendleft(reversed(rescued))
        self._page.clear()
        self._done_rows.clear()
        self._read_to = self._ahead = self._read_failures = 0
        self._read_error, self._read_retry_at = None, 0.0
        return time.monotonic() >= self._disk_retry_at

    def _rewind(self) -> None:
        self._page.clear()
        self._read_to = 0
        self._ahead = self._spool.count

    def _remove_done(self) -> None:
        try:
            self._spool.remove(self._done_rows)
        except (sqlite3.Error, OSError) as problem:
            self._disk_failed(problem)  # they will be sent once more: at least once is the promise
        self._done_rows.clear()

    def _clear_journal(self) -> None:
        self._done_keys.clear()
        if self._journal is not None:
            try:
                self._journal.clear()
            except (sqlite3.Error, OSError) as problem:
                self._journal_failed(problem)

    def _trim(self) -> None:
        self._drop("spool_full", lambda: self._spool.drop_to(int(self._settings.max_mb * 1e6)))

    def _drop_old(self) -> None:
        self._drop("too_old", lambda: self._spool.drop_older_than(self._settings.max_age_s))

    def _drop(self, reason: str, remove: Callable[[], int]) -> None:
        try:
            gone = remove()
            if gone:
                self.dropped[reason] += gone
                self._remove_done()
                self._page.clear()
                handed = [m.row for m in self._out.values() if m.row is not None]
                self._read_to = max(handed, default=0)
                self._ahead = self._spool.waiting(self._read_to)
        except (sqlite3.Error, OSError) as problem:
            self._disk_failed(problem)

    def _write_journal(self, messages: list[Message]) -> None:
        if self._journal is None:
            return
        try:
            self._journal.append(messages)
        except (sqlite3.Error, OSError) as problem:
            self._journal_failed(problem)
        for message in messages:
            message.row = None  # rows are the spool's

    def _write_failed(self, problem: Exception) -> bool:
        """Whether all is on disk nevertheless: in a new spool, for memory may not hold it."""
        self._disk_failed(problem)
        return _surely_damaged(problem) and self._put_aside(problem) and self.spill()

    def _disk_failed(self, problem: Exception) -> None:
        self._disk_retry_at = max(self._disk_retry_at, time.monotonic() + _RETRY_DISK_S)
        if self._write_error is None:
            _log.warning("the spool %s cannot be used: %s", self._spool.path, problem)
        self._write_error = f"the spool {self._spool.path} cannot be used: {problem}"

    def _disk_works(self) -> None:
        if self._write_error is not None:
            _log.warning("the spool %s can be used again", self._spool.path)
        self._write_error = None

    def _journal_failed(self, problem: Exception) -> None:
        assert self._journal is not None
        _log.warning("the journal %s cannot be used: %s", self._journal.path, problem)
        self._journal.close()
        self._journal = None


def _surely_damaged(problem: Exception) -> bool:
    """SQLite says so by the plain class: "malformed", "not a database". A subclass may pass."""
    return type(problem) is sqlite3.DatabaseError


def _delayed(payload: bytes) -> bytes:
    """Marks a message that waited, so that no order is carried out minutes late unawares."""
    if payload.endswith(_MARK) or not payload.endswith(b"}"):
        return payload
    return payload[:-1] + _MARK
