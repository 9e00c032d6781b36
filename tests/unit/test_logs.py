"""Log lines: where they go, and what they carry."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged import logs


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What reaches the one handler of edged."""
    root = logging.getLogger()
    before = list(root.handlers)
    root.handlers[:] = []
    try:
        logs.setup("info")
        logs.setup("info")
        assert len(root.handlers) == 1
        found: list[logging.LogRecord] = []
        monkeypatch.setattr(root.handlers[0], "emit", found.append)
        yield found
    finally:
        root.handlers[:] = before


def test_a_line_carries_its_code_and_fields_and_libraries_stay_quiet(
    records: list[logging.LogRecord],
) -> None:
    logger = logging.getLogger("edged.x")
    logs.log_event(logger, logging.INFO, "mic-lost", "gone: 100 %", device="d")
    logging.getLogger("some.library").info("chatter")
    (record,) = records
    assert record.getMessage() == "gone: 100 %"
    assert (record.__dict__["EDGED_CODE"], record.__dict__["EDGED_DEVICE"]) == ("mic-lost", "d")


def test_an_exception_is_an_error_with_a_code_and_the_traceback(
    records: list[logging.LogRecord],
) -> None:
    logger = logging.getLogger("edged.x")
    try:
        raise OSError("one")
    except OSError as error:
        logs.log_exception(logger, "x-failed", "failed: 100 %")
        kept = error
    logs.log_exception(logger, "x-failed", "later", kept, device="d")
    for record in records:
        assert record.levelno == logging.ERROR
        assert record.__dict__["EDGED_CODE"] == "x-failed"
        assert record.exc_info is not None
        assert record.exc_info[1] is kept
    assert records[0].getMessage() == "failed: 100 %"
    assert records[1].__dict__["EDGED_DEVICE"] == "d"


def test_lines_on_the_journals_stream_have_priorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = (tmp_path / "stream").open("w+")
    monkeypatch.setattr(sys, "stderr", file)
    assert not logs.to_journal()
    stat = os.fstat(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    assert logs.to_journal()
    monkeypatch.setattr(logs, "JournalHandler", None)
    handler = logs.make_handler()
    handler.emit(logging.makeLogRecord({"levelname": "WARNING", "msg": "two\nlines"}))
    file.seek(0)
    assert file.read() == "<4>two\n<4>lines\n"
