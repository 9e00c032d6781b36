"""Copies of what a healthy broker has not acknowledged yet, on a memory file system."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from edged.logs import log_event
from edged.mqtt.message_store import Salvaged, StoreError
from edged.mqtt.outbound import OutboundMessage
from edged.mqtt.spool import Spool

_log = logging.getLogger(__name__)


class Journal:
    """Saves a killed daemon's last messages without writing to the disk.

    It switches itself off at its first error: only the last second of a killed daemon depends
    on it. `store` None is a journal that is off from the beginning.
    """

    def __init__(self, store: Spool | None) -> None:
        self._store = store
        self._acknowledged: list[str] = []

    @property
    def replaced(self) -> int:
        """How many damaged files were put aside."""
        return self._store.replaced if self._store is not None else 0

    def open(self) -> Salvaged:
        """Returns what a killed run left."""
        found = Salvaged()

        def read(store: Spool) -> None:
            try:
                store.open_existing()
                found.messages = store.read(0, store.count)
            except StoreError as error:
                if not error.damaged:
                    raise
                salvaged = store.salvage(0)
                found.messages, found.lost = salvaged.messages, salvaged.lost
                store.replace_damaged(str(error))

        self._do(read)
        for message in found.messages:
            message.row = None  # rows are the spool's
        return found

    def add(self, messages: Iterable[OutboundMessage]) -> None:
        new = [m for m in messages if m.durable]
        if new:
            self._do(lambda store: store.append(new))

    def acknowledged(self, key: str) -> None:
        """The message is removed at the next `flush`."""
        if self._store is not None:
            self._acknowledged.append(key)

    def flush(self) -> None:
        """Removes the messages that were acknowledged."""
        if self._acknowledged:
            self._do(lambda store: store.remove_keys(self._acknowledged))
            self._acknowledged.clear()

    def clear(self) -> None:
        """Removes all messages: they are on disk now."""
        self._acknowledged.clear()
        self._do(lambda store: store.clear())

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _do(self, action: Callable[[Spool], object]) -> None:
        if self._store is None:
            return
        try:
            action(self._store)
        except StoreError as error:
            message = f"the journal {self._store.location} cannot be used: {error}"
            log_event(_log, logging.WARNING, "journal-unusable", message)
            self._store.close()
            self._store = None
