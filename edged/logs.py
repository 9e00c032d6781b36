"""Log lines: journal entries with fields under systemd, plain lines on stderr elsewhere.

The daemon logs changes of state, once per episode. Every line has a stable code that scripts can
search for, whatever its text: `journalctl -u edged EDGED_CODE=microphone-lost`. The codes are
listed in `edged/log_codes.py`.
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
    """Sends the records of all loggers to the journal or stderr.

    May be called again to change the level. `level` (debug, info, warning, error) applies to
    edged's own loggers; libraries log warnings and errors only.
    """
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("edged").setLevel(level.upper())
    if any(getattr(handler, "of_edged", False) for handler in root.handlers):
        return
    handler = make_handler()
    handler.of_edged = True  # type: ignore[attr-defined]
    root.addHandler(handler)


def make_handler() -> logging.Handler:
    """The handler for the place where stderr goes to."""
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
    """Whether stderr is a stream of the journal (systemd.exec(5), `$JOURNAL_STREAM`)."""
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


def log_event(
    logger: logging.Logger, level: int, code: str, message: str, **fields: object
) -> None:
    """Logs one change of state.

    Args:
        logger: the logger of the calling module.
        level: of `logging`, the one that `edged/log_codes.py` gives for `code`.
        code: a key of `edged.log_codes.CODES`, as a literal. Becomes the field EDGED_CODE.
        message: what happened, where, and what to do. Not a format string.
        fields: more journal fields; `samples=5` becomes EDGED_SAMPLES=5.
    """
    logger.log(level, "%s", message, extra=_extra(code, fields))


def log_exception(
    logger: logging.Logger,
    code: str,
    message: str,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """Logs an unexpected exception as an error with its traceback.

    Args:
        error: the exception; without it, the one that is being handled.
        logger, code, message, fields: as for `log_event`.
    """
    logger.error("%s", message, exc_info=error or True, extra=_extra(code, fields))


def _extra(code: str, fields: dict[str, object]) -> dict[str, object]:
    return {"EDGED_CODE": code} | {f"EDGED_{name.upper()}": fields[name] for name in fields}
