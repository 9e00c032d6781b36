"""Reports the progress of `edged models fetch`: bars in a terminal, lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

ReportDownload = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all, if known."""


class Reporter:
    """Writes to stderr, or nothing at all if `quiet`. Problems are raised, not reported here."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet

    def report(self, line: str) -> None:
        """Prints a line."""
        if not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def download(self, label: str) -> Iterator[ReportDownload]:
        """Shows a download. The block gets the function to call with its progress."""
        if self._quiet or not self._console.is_terminal:
            yield self._line(label)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Shows work without a known length."""
        if self._quiet or not self._console.is_terminal:
            self.report(label)
            yield
            return
        with self._console.status(label):
            yield

    def _line(self, label: str) -> ReportDownload:
        """Reports a line at the start and one for each quarter."""
        quarters = -1

        def progress(done: int, total: int | None) -> None:
            nonlocal quarters
            reached = int(4 * done / total) if total else 0
            if reached != quarters:
                quarters = reached
                of = f" of {total / 1e6:.1f}" if total else ""
                self.report(f"{label}: {done / 1e6:.1f}{of} MB")

        return progress
