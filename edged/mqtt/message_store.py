"""What the outbox needs of the place where messages wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edged.mqtt.outbound import OutboundMessage


class StoreError(Exception):
    """The store cannot be read or written: a full, read-only, slow or damaged disk.

    `damaged` means that the file itself is corrupt, so that another attempt cannot help.
    """

    def __init__(self, message: str, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged


@dataclass(slots=True)
class Salvaged:
    """What could be read from a damaged store, and how many messages could not."""

    messages: list[OutboundMessage] = field(default_factory=list)
    lost: int = 0


class MessageStore(Protocol):
    """Durable messages in order, each in a row whose number only grows. One thread only.

    Every method may raise StoreError. `edged.mqtt.spool.Spool` keeps them in SQLite.

    Attributes:
        location: where the messages are, for log lines and errors.
        count: how many there are.
        bytes: their size.
        replaced: how many damaged files were put aside.
    """

    location: str
    count: int
    bytes: int
    replaced: int

    def open_existing(self) -> None:
        """Finds what an earlier run left; does nothing if it left nothing."""

    def append(self, messages: Sequence[OutboundMessage]) -> list[int]:
        """Stores all messages or none, safely when it returns. Returns their rows.

        A message whose key is stored already keeps its row.
        """

    def read(self, after: int, limit: int) -> list[OutboundMessage]:
        """Returns the oldest `limit` messages with a row above `after`."""

    def count_after(self, row: int) -> int:
        """Returns how many messages have a row above `row`."""

    def remove(self, rows: Iterable[int]) -> None:
        """Removes messages that the broker has acknowledged."""

    def drop_older_than(self, age_s: float) -> int:
        """Removes messages stored longer ago than `age_s`; returns how many."""

    def shrink_to(self, max_bytes: int) -> int:
        """Removes the oldest messages until 95 % of `max_bytes` are left; returns how many.

        Does nothing if the messages take no more than `max_bytes`.
        """

    def probe(self) -> None:
        """Raises StoreError if nothing can be written."""

    def salvage(self, after: int) -> Salvaged:
        """Reads all that is readable with a row above `after` from a damaged store."""

    def replace_damaged(self, reason: str) -> None:
        """Puts the damaged store aside. The next use makes a new, empty one."""

    def close(self) -> None:
        """Closes it; another use opens it again."""
