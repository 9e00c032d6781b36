"""How every command ends: its errors as one line on stderr, and a documented exit code."""

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

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BUG = EdgedError.exit_code


class Guarded(TyperGroup):
    """Every command's errors become one line on stderr and a documented exit code."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Around the rest too: `--help`, and what waited until the end to be written."""
        try:
            with _errors_told():
                try:
                    return super().main(*args, **more)
                finally:
                    stdout.flush()
        except typer.Exit as end:
            sys.exit(end.exit_code)

    def invoke(self, ctx: Any) -> Any:
        with _errors_told():
            return super().invoke(ctx)


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
        return
    except (BrokenPipeError, stdout.ReaderGoneError):
        stdout.let_go()
        code = stdout.ReaderGoneError.exit_code
    except EdgedError as error:
        stdout.let_go()
        _complain(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (typer.TyperException, typer.Exit, typer.Abort):  # typer's own, with its own codes
        raise
    except Exception as bug:
        if _debug():
            traceback.print_exc()
        _complain(
            f"a bug in edged, please report it: {type(bug).__name__}: {bug}"
            + ("" if _debug() else " (EDGED_DEBUG=1 shows where)")
        )
        code = BUG
    raise typer.Exit(code)


def _debug() -> bool:
    return os.environ.get("EDGED_DEBUG", "") not in ("", "0")


def _complain(message: str) -> None:
    print(f"edged: error: {message}", file=sys.stderr, flush=True)
