"""Where log lines go: to the journal with fields under systemd, to stderr elsewhere.

Only changes of state are logged, each with a stable code that a script can search for:
`journalctl EDGED_CODE=microphone-lost`.
"""

from __future__ import annotations

import logging
import os
import sys

try:
    from systemd.journal import JournalHandler
except ImportError:
    JournalHandler = None

_PLAIN = "%(asctime)s %(levelname)-7s %(message)s"


def setup(level: str = "info") -> None:
    """Sends the records of all loggers to one place. May be called again to change the level."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)  # of libraries, only what went wrong
    logging.getLogger("edged").setLevel(level.upper())
    if any(getattr(handler, "of_edged", False) for handler in root.handlers):
        return
    handler = _handler()
    handler.of_edged = True  # type: ignore[attr-defined]
    root.addHandler(handler)


def _handler() -> logging.Handler:
    if to_journal() and JournalHandler is not None:
        journal: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER="edged")
        return journal
    handler = logging.StreamHandler(sys.stderr)
    if to_journal():
        handler.setFormatter(_PriorityFormatter())
    else:
        handler.setFormatter(logging.Formatter(_PLAIN, datefmt="%H:%M:%S"))
    return handler


def to_journal() -> bool:
    """True if stderr is the journal's own stream (systemd.exec(5), `$JOURNAL_STREAM`)."""
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


class _PriorityFormatter(logging.Formatter):
    """`<4>text`: how the journal learns a line's priority from a plain stream (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        priority = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3}.get(record.levelname, 2)
        return f"<{priority}>" + super().format(record).replace("\n", f"\n<{priority}>")


def log_event(log: logging.Logger, level: int, code: str, message: str, **fields: object) -> None:
    """One change of state. `code` and `fields` become journal fields (`EDGED_CODE=...`)."""
    extra = {f"EDGED_{name.upper()}": value for name, value in fields.items()}
    log.log(level, "%s", message, extra={"EDGED_CODE": code, **extra})
