"""Replaces standard output by one that reports why it could not be written.

`print`, Rich, Typer and the interpreter's last flush each handle a full disk and a closed pipe in
their own way. Therefore the errors are raised where the bytes are written, as types that none of
them catches.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from edged.errors import ConfigError, EdgedError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class ReaderGoneError(EdgedError):
    """The reader of a pipe has closed it. The command ends without a message."""

    exit_code = 141  # 128 + SIGPIPE, as in shells


def not_written(what: str, problem: OSError) -> ConfigError:
    """Returns the error for a result that could not be written; `what` is its name."""
    return ConfigError(f"{what} cannot be written: {problem.strerror or problem}")


class _StandardOutput(io.FileIO):
    """Raises ReaderGoneError for a closed pipe, ConfigError for any other error."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as problem:
            raise ReaderGoneError("nobody reads the result") from problem
        except OSError as problem:
            raise not_written("the result", problem) from problem


def install() -> None:
    """Replaces sys.stdout. Its encoding is UTF-8 whatever the locale, because JSON must be."""
    if sys.stdout is None:  # closed by the caller (`>&-`): every write must fail
        descriptor = os.open(os.devnull, os.O_RDONLY)
    else:
        sys.stdout.flush()
        descriptor = sys.stdout.fileno()
    raw = _StandardOutput(descriptor, "wb", closefd=False)
    terminal = raw.isatty()
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", line_buffering=terminal)


def discard() -> None:
    """Drops output that could not be written, so that Python does not report it again at exit."""
    try:
        flush()
    except (OSError, EdgedError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def flush() -> None:
    """Writes what is buffered. Raises what writing raises."""
    if sys.stdout is not None:
        sys.stdout.flush()
