"""An outbox under test, messages for it, and a disk and clocks that the test controls."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from edged.mqtt.clock import SYSTEM_CLOCK, Clock
from edged.mqtt.disk_health import DiskRetry
from edged.mqtt.message_store import Salvaged, StoreError
from edged.mqtt.outbound import OutboundMessage, answer_message
from edged.mqtt.outbox import Outbox, open_store
from edged.mqtt.spool import Spool
from edged.mqtt.spool_settings import SpoolSettings

AT_ONCE = DiskRetry(retry_s=0)


def message(n: int, session: str = "s", size: int = 2) -> OutboundMessage:
    return OutboundMessage(f"{session}:{n:012d}", "text", b"{" + b" " * (size - 2) + b"}")


def answer(n: int) -> OutboundMessage:
    return answer_message(n, "me", b"{}", None)


def numbers(messages: Iterable[OutboundMessage]) -> list[int]:
    return [int(m.key.split(":")[1]) for m in messages]


def opened(
    folder: Path,
    *,
    max_mb: float = 16,
    store: FaultyStore | None = None,
    retry: DiskRetry = DiskRetry(),  # noqa: B008  (frozen)
    clock: Clock = SYSTEM_CLOCK,
    memory_limit: int = 5120,
) -> Outbox:
    """An open outbox in `folder`; with `store`, that in place of its spool."""
    settings = SpoolSettings(folder / "spool", max_mb=max_mb, journal_dir=folder / "journal")
    outbox = Outbox(settings, store=store, retry=retry, clock=clock, memory_limit=memory_limit)
    outbox.open()
    return outbox


def drain(outbox: Outbox) -> list[OutboundMessage]:
    found = []
    while (m := outbox.next()) is not None:
        found.append(m)
        outbox.acknowledged(m)
    return found


class Clocks:
    """Both clocks of a system. Only the wall clock ever jumps."""

    def __init__(self, behind_s: float = 0) -> None:
        self._wall, self._monotonic = time.time() - behind_s, time.monotonic()
        self.clock = Clock(lambda: self._monotonic, lambda: self._wall)

    @property
    def monotonic(self) -> float:
        return self._monotonic

    def go(self, days: float = 0, seconds: float = 0) -> None:
        self._wall += days * 86400 + seconds
        self._monotonic += days * 86400 + seconds

    def jump(self, days: float) -> None:
        self._wall += days * 86400


class FaultyStore(Spool):
    """A spool whose disk fails when the test says so: set an error, or None for a good disk."""

    def __init__(self, folder: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(
            open_store(SpoolSettings(folder / "spool")).path, durable=True, clock=clock
        )
        self.write_error: StoreError | None = None
        self.read_error: StoreError | None = None
        self.salvage_error: StoreError | None = None
        self.attempts = 0
        """How often something was to be written."""
        self.ruins_the_file = False
        """A write that fails leaves a file that is no database."""

    def append(self, messages: Sequence[OutboundMessage]) -> list[int]:
        self._write()
        return super().append(messages)

    def probe(self) -> None:
        self._write()
        super().probe()

    def read(self, after: int, limit: int) -> list[OutboundMessage]:
        if self.read_error is not None:
            raise self.read_error
        return super().read(after, limit)

    def salvage(self, after: int) -> Salvaged:
        if self.salvage_error is not None:
            raise self.salvage_error
        return super().salvage(after)

    def _write(self) -> None:
        self.attempts += 1
        if self.write_error is not None:
            if self.ruins_the_file:
                self.path.write_bytes(b"no database")
            raise self.write_error


FULL = StoreError("database or disk is full")
SLOW = StoreError("disk I/O error")
MALFORMED = StoreError("database disk image is malformed", damaged=True)
