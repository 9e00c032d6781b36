"""What `fetch` tells while it works: bars in a terminal, lines in a pipe, nothing when quiet."""

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

Told = Callable[[int, int | None], None]


class Reporter:
    """`quiet` says nothing at all; problems are errors and are not told here."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet

    def say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def download(self, label: str) -> Iterator[Told]:
        """Gives the function to call with (bytes so far, bytes in all)."""
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
        """A spinner for what cannot be counted."""
        if self._quiet or not self._console.is_terminal:
            self.say(label)
            yield
            return
        with self._console.status(label):
            yield

    def _line(self, label: str) -> Told:
        """One line when it starts, and one each quarter."""
        quarters = -1

        def told(done: int, total: int | None) -> None:
            nonlocal quarters
            reached = int(4 * done / total) if total else 0
            if reached != quarters:
                quarters = reached
                of = f" of {total / 1e6:.1f}" if total else ""
                self.say(f"{label}: {done / 1e6:.1f}{of} MB")

        return told
