"""An outbox under test, and messages for it."""

from __future__ import annotations

from pathlib import Path

from edged.mqtt.outbox import Outbox
from edged.mqtt.spool import Message
from edged.mqtt.spool_settings import SpoolSettings


def message(n: int, session: str = "s", size: int = 2) -> Message:
    return Message(f"{session}:{n:012d}", "text", b"{" + b" " * (size - 2) + b"}")


def numbers(messages: list[Message]) -> list[int]:
    return [int(m.key.split(":")[1]) for m in messages]


def opened(folder: Path, **more: object) -> Outbox:
    box = Outbox(SpoolSettings(folder / "spool", journal_dir=folder / "journal", **more))  # type: ignore[arg-type]
    box.open()
    return box


def drain(box: Outbox) -> list[Message]:
    found = []
    while (m := box.next()) is not None:
        found.append(m)
        box.acked(m)
    return found
