"""Standard output that tells why it could not be written, whoever writes to it.

What a command prints leaves through `print`, Rich, Typer or the interpreter's last flush, and each
of them has its own way with a full disk and with a reader that has gone. So the error is made where
the bytes leave, of kinds that none of them takes for its own.
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
    """The reader of a pipe has what it wanted: nothing is said."""

    exit_code = 141  # 128 + SIGPIPE, as shells have it


def not_written(what: str, problem: OSError) -> ConfigError:
    """The one sentence about a result that found no place."""
    return ConfigError(f"{what} cannot be written: {problem.strerror or problem}")


class _Descriptor(io.FileIO):
    """Raises ConfigError when there is no room, ReaderGoneError when nobody reads."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as problem:
            raise ReaderGoneError("nobody reads the result") from problem
        except OSError as problem:
            raise not_written("the result", problem) from problem


def install() -> None:
    """From now on. Results are UTF-8 whatever the locale says: JSON must be."""
    if sys.stdout is None:  # closed by the caller (`>&-`): its place is taken by what takes nothing
        descriptor = os.open(os.devnull, os.O_RDONLY)
    else:
        sys.stdout.flush()
        descriptor = sys.stdout.fileno()
    raw = _Descriptor(descriptor, "wb", closefd=False)
    terminal = raw.isatty()
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", line_buffering=terminal)


def let_go() -> None:
    """What standard output cannot take is given up: Python would complain again at exit."""
    try:
        flush()
    except (OSError, EdgedError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def flush() -> None:
    """Raises what writing raises, while somebody can still be told."""
    if sys.stdout is not None:
        sys.stdout.flush()
