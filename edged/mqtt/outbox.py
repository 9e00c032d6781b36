"""The queue of what has to reach the broker, and where it is safe meanwhile.

Order is always: disk, then memory. A message is in one of these places:

- while the link is healthy (connected, and acknowledgements come): in memory, with a copy in the
  journal on a memory file system. The disk is not written.
- otherwise: on disk, at once, all of it. It stays there until the broker acknowledges it.

So a kill loses nothing, and a power cut loses at most what a healthy broker had not acknowledged
within the last second. Memory is bounded by count, the disk by size and age: the oldest go first,
expendable messages before durable ones, and `dropped` says how many and why.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable

from edged.logs import log_event
from edged.mqtt.clock import SYSTEM_CLOCK, Clock
from edged.mqtt.disk_health import DiskHealth, DiskRetry
from edged.mqtt.journal import Journal
from edged.mqtt.message_buffer import MessageBuffer
from edged.mqtt.message_store import MessageStore, Salvaged, StoreError
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.spool import Spool
from edged.mqtt.spool_settings import SpoolSettings

_log = logging.getLogger(__name__)
_MEMORY_BEFORE_DISK = 256  # durable messages: a broker that is this far behind does not keep up
_MEMORY_LIMIT = 5120  # messages, when the disk cannot be written either
_EXPENDABLE_LIMIT = 1024  # of them
_PAGE = 64  # messages read at once
_REMOVE_EVERY_S = 2.0  # acknowledged rows leave the disk in batches: fewer syncs
_REMOVE_AT = 256
_AGE_EVERY_S = 3600.0


def open_store(
    settings: SpoolSettings,
    clock: Clock = SYSTEM_CLOCK,
    on_progress: Callable[[], None] = lambda: None,
) -> Spool:
    """Returns the spool on disk; it opens nothing yet."""
    path = settings.dir / "spool.db"
    return Spool(path, durable=True, clock=clock, on_progress=on_progress)


def open_journal(settings: SpoolSettings) -> Journal:
    """Returns the journal; it opens nothing yet.

    Several daemons of one user share its folder, so that its name depends on the spool's folder.
    """
    if settings.journal_dir is None:
        return Journal(None)
    own = hashlib.sha256(str(settings.dir.absolute()).encode()).hexdigest()[:16]
    return Journal(Spool(settings.journal_dir / f"journal-{own}.db", durable=False))


class Outbox:
    """A first-in, first-out queue of messages with acknowledgement. One thread only.

    `add` takes messages; `next` hands out the oldest one; `acknowledged` forgets it;
    `flush_to_disk` stores everything; `link_lost` takes back what was handed out. None of them
    raises: an error of the disk is logged once per episode, and memory holds what it can.

    Args:
        settings: sizes, ages and folders.
        store: where messages wait; by default the spool that `settings` describe.
        retry: how often a failing disk is tried.
        memory_limit: most messages in memory when the disk cannot be written.
        on_progress: called many times during long work on the disk, for a heartbeat.
    """

    def __init__(
        self,
        settings: SpoolSettings,
        store: MessageStore | None = None,
        journal: Journal | None = None,
        retry: DiskRetry = DiskRetry(),  # noqa: B008  (frozen)
        clock: Clock = SYSTEM_CLOCK,
        memory_limit: int = _MEMORY_LIMIT,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._settings = settings
        self._now = clock.monotonic
        self._store: MessageStore = (
            store if store is not None else open_store(settings, clock, on_progress)
        )
        self._journal = journal if journal is not None else open_journal(settings)
        self._health = DiskHealth(self._store.location, retry, clock)
        self._memory = MessageBuffer(memory_limit, _EXPENDABLE_LIMIT)
        self._page: deque[OutboundMessage] = deque()  # read from disk, not handed out yet
        self._handed_out: dict[str, OutboundMessage] = {}  # by key, in order
        self._read_to = 0  # the last row that was read from disk
        self._unread = 0  # rows on disk beyond it
        self._done_rows: list[int] = []  # acknowledged, still on disk
        self._remove_at = 0.0
        self._age_at = 0.0

    @property
    def depth(self) -> int:
        """Messages that the broker has not acknowledged."""
        return self.backlog + len(self._handed_out)

    @property
    def backlog(self) -> int:
        """Messages that were not handed out yet."""
        return self._unread + len(self._page) + len(self._memory)

    @property
    def waiting_answers(self) -> int:
        """Expendable messages in memory that were not handed out yet."""
        return self._memory.expendable

    @property
    def spooled(self) -> int:
        """Messages on disk."""
        return self._store.count

    @property
    def spooled_bytes(self) -> int:
        return self._store.bytes

    @property
    def disk_error(self) -> str | None:
        """What is wrong with the disk at present, as one sentence."""
        return self._health.error

    @property
    def damaged(self) -> int:
        """How many damaged files were put aside."""
        return self._store.replaced + self._journal.replaced

    def open(self) -> int:
        """Finds what earlier runs left; returns how many messages."""
        try:
            self._store.open_existing()
            self._unread = self._store.count
        except StoreError as error:
            if error.damaged:
                self._replace_store(error)
            else:
                self._health.write_failed(error)
        left = self._journal.open()
        for message in left.messages:
            message.mark_delayed()
        self._memory.extend(left.messages)
        self._count_lost("damaged", left.lost)
        self._drop_old()
        self.flush_to_disk()
        return self.depth

    def add(self, messages: Iterable[OutboundMessage], *, link_healthy: bool) -> None:
        """Takes messages. While the link is not healthy they go to disk at once."""
        new = list(messages)
        self._memory.extend(new)  # first: should the rest fail, they are not lost
        to_disk = not link_healthy or self._memory.durable > _MEMORY_BEFORE_DISK
        if not (to_disk and self.flush_to_disk()):
            self._journal.add(new)
        for message in self._memory.trim():
            self._journal.acknowledged(message.key)
            self.dropped["memory_full" if message.durable else "reply"] += 1

    def next(self) -> OutboundMessage | None:
        """Hands out the oldest message that was not handed out yet."""
        if not self._page and self._unread:
            self._read_page()
        if self._page:
            message = self._page.popleft()
        elif self._unread or not len(self._memory):
            return None  # what is on disk comes first, even if it cannot be read just now
        else:
            message = self._memory.popleft()
        self._handed_out[message.key] = message
        return message

    def acknowledged(self, message: OutboundMessage) -> None:
        """The broker has it, or has refused it for good."""
        self._handed_out.pop(message.key, None)
        if message.row is not None:
            self._done_rows.append(message.row)
        elif message.durable:
            self._journal.acknowledged(message.key)

    def flush_to_disk(self) -> bool:
        """Stores all durable messages that are only in memory, in order, handed out or not.

        Returns whether they are all on disk now.
        """
        handed_out = [m for m in self._handed_out.values() if m.row is None and m.durable]
        if not handed_out and not self._memory.durable:
            return True
        self._mark_delayed(handed_out)  # whether or not the disk takes them
        if not self._health.may_write:
            return False
        queued = [m for m in self._memory if m.durable]
        before = self._store.count
        try:
            rows = self._store.append(handed_out + queued)
        except StoreError as error:
            return self._write_failed(error)
        self._health.write_succeeded()
        for message, row in zip(handed_out + queued, rows, strict=True):
            message.row = row
        self._memory.keep_expendable()
        if handed_out:  # then all that is on disk had been handed out before
            self._read_to = max(rows[: len(handed_out)])
        self._unread += max(0, self._store.count - before - len(handed_out))
        self._journal.clear()
        self._drop("spool_full", lambda: self._store.shrink_to(int(self._settings.max_mb * 1e6)))
        return True

    def link_lost(self) -> None:
        """Takes back what was handed out; all that is durable goes to disk."""
        back = [m for m in self._handed_out.values() if m.row is None]
        self._mark_delayed(back)
        self._handed_out.clear()
        self._memory.prepend(back)
        self._count_lost("reply", self._memory.keep_durable())
        self._remove_done()
        self._page.clear()
        self._read_to = 0
        self._unread = self._store.count
        self.flush_to_disk()

    def maintain(self) -> None:
        """Does the housekeeping that is due; cheap when there is none."""
        now = self._now()
        self._journal.flush()
        drained = len(self._done_rows) >= self._store.count
        if self._done_rows and (
            drained or len(self._done_rows) >= _REMOVE_AT or now >= self._remove_at
        ):
            self._remove_done()
            self._remove_at = now + _REMOVE_EVERY_S
        if self._health.probe_due():
            self._probe()
        if now >= self._age_at:
            self._age_at = now + _AGE_EVERY_S
            self._drop_old()

    def close(self) -> None:
        """Stores what is left, and closes the files."""
        self.maintain()
        self._health.try_now()
        self.link_lost()
        if len(self._memory):
            self.dropped["disk"] += len(self._memory)
            message = f"{len(self._memory)} messages are lost: {self.disk_error}"
            log_event(_log, logging.ERROR, "spool-lost", message)
        self._store.close()
        self._journal.close()

    def _probe(self) -> None:
        before = self._store.count
        try:
            self._store.probe()
        except StoreError as error:
            self._write_failed(error)
        else:
            self._unread += max(0, self._store.count - before)  # it may have been opened just now
            self._health.write_succeeded()

    def _read_page(self) -> None:
        if not self._health.may_read:
            return
        try:
            self._page.extend(self._store.read(self._read_to, _PAGE))
        except StoreError as error:
            if self._health.read_failed(error):
                self._replace_store(error)
                self.flush_to_disk()
            return
        self._health.read_succeeded()
        if self._page and self._page[-1].row is not None:
            self._read_to = self._page[-1].row
        self._unread = max(0, self._unread - len(self._page)) if self._page else 0

    def _replace_store(self, error: StoreError) -> bool:
        """Takes what can still be read into memory, counts the rest, and begins a new file.

        Returns whether that may be written at once.
        """
        expected = self._unread
        try:
            salvaged = self._store.salvage(self._read_to)
        except StoreError:
            salvaged = Salvaged()
        rescued = [*self._page, *salvaged.messages]
        for message in (*self._handed_out.values(), *rescued):
            message.row = None
        try:
            self._store.replace_damaged(str(error))
        except StoreError as also:
            self._health.write_failed(also)
        else:
            self._health.file_replaced()
        self._count_lost("damaged", max(salvaged.lost, expected - len(salvaged.messages)))
        self._memory.prepend(rescued)
        self._page.clear()
        self._done_rows.clear()
        self._read_to = self._unread = 0
        self._health.read_succeeded()
        return self._health.may_write

    def _remove_done(self) -> None:
        try:
            self._store.remove(self._done_rows)
        except StoreError as error:
            self._health.write_failed(error)  # they will be sent once more: at least once
        self._done_rows.clear()

    def _drop_old(self) -> None:
        self._drop("too_old", lambda: self._store.drop_older_than(self._settings.max_age_s))

    def _drop(self, reason: str, remove: Callable[[], int]) -> None:
        try:
            gone = remove()
            if gone:
                self.dropped[reason] += gone
                self._remove_done()
                self._page.clear()
                rows = [m.row for m in self._handed_out.values() if m.row is not None]
                self._read_to = max(rows, default=0)
                self._unread = self._store.count_after(self._read_to)
        except StoreError as error:
            self._health.write_failed(error)

    def _mark_delayed(self, handed_out: Iterable[OutboundMessage]) -> None:
        for message in handed_out:
            if message.durable:
                message.mark_delayed()
        for message in reversed(self._memory):
            if message.delayed:
                return  # and so are all before it
            if message.durable:
                message.mark_delayed()

    def _write_failed(self, error: StoreError) -> bool:
        """Returns whether all is on disk nevertheless: in a new file, if this one is damaged."""
        self._health.write_failed(error)
        return error.damaged and self._replace_store(error) and self.flush_to_disk()

    def _count_lost(self, reason: str, count: int) -> None:
        if count > 0:
            self.dropped[reason] += count
