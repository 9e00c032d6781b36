"""Turns every error of a command into one line on stderr and a documented exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from edged.cli import stdout
from edged.errors import EdgedError

INTERRUPTED = 130  # 128 + SIGINT, as in shells
BUG = EdgedError.exit_code


class ErrorReportingGroup(TyperGroup):
    """A Typer group that reports the errors of its commands."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Runs the command line. Covers `--help` and buffered output that is written last, too."""
        try:
            with _reporting_errors():
                try:
                    return super().main(*args, **more)
                finally:
                    stdout.flush()
        except typer.Exit as end:
            sys.exit(end.exit_code)

    def invoke(self, ctx: Any) -> Any:
        with _reporting_errors():
            return super().invoke(ctx)


@contextmanager
def _reporting_errors() -> Iterator[None]:
    try:
        yield
        return
    except (BrokenPipeError, stdout.ReaderGoneError):
        stdout.discard()
        code = stdout.ReaderGoneError.exit_code
    except EdgedError as error:
        stdout.discard()
        _print_error(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (typer.TyperException, typer.Exit, typer.Abort):  # handled by Typer, with its own codes
        raise
    except Exception as bug:
        if _debug():
            traceback.print_exc()
        _print_error(
            f"a bug in edged, please report it: {type(bug).__name__}: {bug}"
            + ("" if _debug() else " (set EDGED_DEBUG=1 to see the traceback)")
        )
        code = BUG
    raise typer.Exit(code)


def _debug() -> bool:
    return os.environ.get("EDGED_DEBUG", "") not in ("", "0")


def _print_error(message: str) -> None:
    print(f"edged: error: {message}", file=sys.stderr, flush=True)
