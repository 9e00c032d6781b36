"""Reads the messages of a damaged SQLite spool page by page, without SQLite.

SQLite stops at the first page that it cannot use. Here every page is looked at by itself: the
table's leaf pages hold the messages, and the index on `key` tells how many there should be.
The formats are those of sqlite.org/fileformat2.html; its sections are named below.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edged.mqtt.message_store import Salvaged
from edged.mqtt.outbound import OutboundMessage

_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_USUAL_PAGE_BYTES = 4096
_COLUMNS = 5  # id, key, name, payload, stored_at
_WAL_MAGIC = (0x377F0682, 0x377F0683)  # checksums in little-endian and in big-endian words

Value: TypeAlias = int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of the file, the newest version of each; a page that cannot be read is empty."""

    pages: dict[int, bytes]  # by number, from 1
    usable: int  # bytes of a page that hold content

    def numbers_in_use(self) -> Iterator[int]:
        free = set(self._free())
        return (number for number in sorted(self.pages) if number not in free)

    def _free(self) -> Iterator[int]:
        """The pages of the freelist (section 1.5), which hold what was deleted."""
        trunk = int.from_bytes(self.pages.get(1, b"")[32:36], "big")
        seen: set[int] = set()
        while trunk and trunk not in seen:
            seen.add(trunk)
            yield trunk
            page = self.pages.get(trunk, b"")
            count = int.from_bytes(page[4:8], "big")
            if count > self.usable // 4 - 2:
                return  # no trunk page: the freelist itself is damaged
            yield from struct.unpack(f">{count}I", page[8 : 8 + 4 * count])
            trunk = int.from_bytes(page[:4], "big")

    def cell_payload(self, page: bytes, at: int, size: int, largest: int) -> bytes:
        """The payload of a cell, with its overflow pages (section 1.6). `largest` fits a page."""
        if size <= largest:
            return page[at : at + size]
        least = (self.usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (self.usable - 4)
        local = local if local <= largest else least
        found = bytearray(page[at : at + local])
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while len(found) < size:
            overflow = self.pages[following]
            found += overflow[4 : 4 + min(self.usable - 4, size - len(found))]
            following = int.from_bytes(overflow[:4], "big")
        return bytes(found)


def salvage(path: Path, after: int = 0) -> Salvaged:
    """Returns all readable messages of the file `path` with a row above `after`, in order.

    `lost` counts the rows that are known from the rest of the file and cannot be read. Raises
    OSError only if the file cannot be opened.
    """
    pages = _read_pages(path)
    messages: dict[int, OutboundMessage] = {}
    rows: set[int] = set()
    for number in pages.numbers_in_use():
        page = pages.pages[number]
        for row, message in _cells(pages, page, 100 if number == 1 else 0):
            if row > after:
                rows.add(row)
                if message is not None:
                    messages[row] = message
    return Salvaged([messages[row] for row in sorted(messages)], len(rows) - len(messages))


def _cells(pages: _Pages, page: bytes, header: int) -> Iterator[tuple[int, OutboundMessage | None]]:
    """The rows that one b-tree page knows of, each with its message if the page holds that."""
    kind = page[header] if len(page) > header else 0
    if kind not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INTERIOR):
        return
    first = header + (12 if kind == _INDEX_INTERIOR else 8)
    count = int.from_bytes(page[header + 3 : header + 5], "big")
    for n in range(min(count, len(page) // 4)):
        at = int.from_bytes(page[first + 2 * n : first + 2 * n + 2], "big")
        with contextlib.suppress(ValueError, IndexError, KeyError, struct.error):
            if kind == _TABLE_LEAF:
                yield from _table_row(pages, page, at)
            else:
                yield _index_row(pages, page, at + (4 if kind == _INDEX_INTERIOR else 0)), None


def _table_row(pages: _Pages, page: bytes, at: int) -> Iterator[tuple[int, OutboundMessage | None]]:
    size, at = _varint(page, at)
    row, at = _varint(page, at)
    local = pages.cell_payload(page, at, min(size, pages.usable - 35), pages.usable - 35)
    if _column_count(local) != _COLUMNS or _serial_types(local)[0] != 0:
        return  # a row of another table
    message = None
    with contextlib.suppress(ValueError, IndexError, KeyError, struct.error):
        _, key, name, payload, _ = _record(pages.cell_payload(page, at, size, pages.usable - 35))
        if isinstance(key, str) and isinstance(name, str) and isinstance(payload, bytes):
            message = OutboundMessage(key, name, payload, delayed=True)
    yield row, message


def _index_row(pages: _Pages, page: bytes, at: int) -> int:
    size, at = _varint(page, at)
    largest = (pages.usable - 12) * 64 // 255 - 23
    key, row = _record(pages.cell_payload(page, at, size, largest))
    if not isinstance(key, str) or not isinstance(row, int):
        raise ValueError("not an entry of the index on key")
    return row


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (section 1.6) and where it ends."""
    value = 0
    for n in range(9):
        byte = data[at + n]
        if n == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    raise ValueError("no integer")


def _serial_types(record: bytes) -> list[int]:
    end, at = _varint(record, 0)
    types = []
    while at < end:
        kind, at = _varint(record, at)
        types.append(kind)
    return types


def _column_count(record: bytes) -> int:
    with contextlib.suppress(ValueError, IndexError):
        return len(_serial_types(record))
    return 0


def _record(record: bytes) -> list[Value]:
    """The columns of a record (section 2.1). Raises ValueError if it is cut or malformed."""
    at, _ = _varint(record, 0)
    values: list[Value] = []
    for kind in _serial_types(record):
        size = (kind - 12) // 2 if kind >= 12 else (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind]
        data = record[at : at + size]
        if len(data) < size:
            raise ValueError("a cut record")
        at += size
        values.append(_value(kind, data))
    return values


def _value(kind: int, data: bytes) -> Value:
    if kind >= 12:
        return data.decode() if kind % 2 else data
    if kind == 0:
        return None
    if kind == 7:
        return float(struct.unpack(">d", data)[0])
    return kind - 8 if kind in (8, 9) else int.from_bytes(data, "big", signed=True)


def _read_pages(path: Path) -> _Pages:
    with path.open("rb") as file:
        header = _read_at(file.fileno(), 0, 100)
        page_bytes = int.from_bytes(header[16:18], "big")
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        whole = header.startswith(b"SQLite format 3\0") and page_bytes.bit_count() == 1
        if not whole or page_bytes < 512:
            page_bytes, header = _USUAL_PAGE_BYTES, bytes(100)
        count = -(-os.fstat(file.fileno()).st_size // page_bytes)
        pages = {
            number: _read_at(file.fileno(), (number - 1) * page_bytes, page_bytes)
            for number in range(1, count + 1)
        }
    with contextlib.suppress(OSError):
        _apply_log(Path(f"{path}-wal").read_bytes(), page_bytes, pages)
    return _Pages(pages, page_bytes - header[20])


def _read_at(descriptor: int, at: int, size: int) -> bytes:
    """The bytes there, with zeros for what the disk does not give."""
    try:
        return os.pread(descriptor, size, at).ljust(size, b"\0")
    except OSError:
        return bytes(size)


def _apply_log(log: bytes, page_bytes: int, pages: dict[int, bytes]) -> None:
    """Puts the committed pages of a write-ahead log (section 4) over those of the file."""
    if len(log) < 32 or int.from_bytes(log[:4], "big") not in _WAL_MAGIC:
        return
    if int.from_bytes(log[8:12], "big") != page_bytes:
        return
    little = log[3] == 0x82
    checksum = _checksum(log[:24], (0, 0), little)
    pending: dict[int, bytes] = {}
    for at in range(32, len(log) - page_bytes - 23, 24 + page_bytes):
        head, page = log[at : at + 24], log[at + 24 : at + 24 + page_bytes]
        checksum = _checksum(page, _checksum(head[:8], checksum, little), little)
        if head[8:16] != log[16:24] or struct.pack(">2I", *checksum) != head[16:24]:
            return  # of an earlier use of the log, or torn
        pending[int.from_bytes(head[:4], "big")] = page
        size = int.from_bytes(head[4:8], "big")
        if size:  # a commit; the file has so many pages now
            pages.update(pending)
            pending.clear()
            for number in [n for n in pages if n > size]:
                del pages[number]


def _checksum(data: bytes, start: tuple[int, int], little: bool) -> tuple[int, int]:
    """The running checksum of a write-ahead log (section 4.2)."""
    words = array("I", data)
    if little != (sys.byteorder == "little"):
        words.byteswap()
    first, second = start
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & 0xFFFFFFFF
        second = (second + words[n + 1] + first) & 0xFFFFFFFF
    return first, second
