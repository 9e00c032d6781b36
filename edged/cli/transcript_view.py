"""Shows the progress of `edged transcribe` in a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text as Line

from edged import STEP_S
from edged.cli.writers import TextFrom
from edged.events import EndOfStream, Event, Step, Text, Turn
from edged.languages import word_separator

LONG_S = 20.0  # shorter files finish too soon for a progress bar
REFRESH_S = 0.1
LIVE_ROWS = 6  # rows of an unfinished turn: a terminal can redraw only what is on the screen


class TranscriptView:
    """Shows nothing: the result goes to a pipe or a file, and there is no terminal."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def event(self, event: Event) -> None:
        """Shows one event of the file, in order."""


class LiveTranscript(TranscriptView):
    """Shows the unfinished turn, dimmed, above a progress bar; finished lines scroll up."""

    def __init__(
        self,
        console: Console,
        bar: ProgressBar | None,
        lines: TextFrom | None,
        language: str = "en",
    ) -> None:
        """Arguments:

        bar: None for a short file.
        lines: what a turn's final line consists of; None if the text goes elsewhere and only the
            progress bar is shown.
        language: of the session: a code, or `auto`.
        """
        self._console = console
        self._bar = bar
        self._lines = lines
        self._separator = word_separator(language)
        self._words: list[Text] = []
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        if self._words:  # interrupted: keep the words that were shown
            self._print(self._join(self._words))

    def event(self, event: Event) -> None:
        if isinstance(event, Step) and self._bar is not None:
            self._bar.step(event)
            self._draw(now=False)
        if self._lines is None:
            return
        match event:
            case Text():
                self._words.append(event)
                self._draw(now=True)
            case Turn():
                own = [word for word in self._words if word.start_s < event.stop_s]
                self._words = [word for word in self._words if word.start_s >= event.stop_s]
                self._finish(event.text if self._lines == "turns" else self._join(own))
            case EndOfStream():
                rest, self._words = self._join(self._words), []
                self._finish(rest)

    def _join(self, words: list[Text]) -> str:
        return self._separator.join(word.text for word in words)

    def _draw(self, now: bool) -> None:
        if now or time.monotonic() - self._drawn >= REFRESH_S:
            self._drawn = time.monotonic()
            self._live.update(self._picture(), refresh=True)

    def _finish(self, text: str) -> None:
        self._draw(now=True)
        if text:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(Line(text))

    def _picture(self) -> RenderableType:
        room = self._console.width * LIVE_ROWS
        text = self._join(self._words)
        if len(text) > room:
            text = "… " + text[-room:].partition(" ")[2]
        parts: list[RenderableType] = [Line(text, style="dim")] if text else []
        if self._bar is not None:
            parts.append(self._bar)
        return Group(*parts)


class ProgressBar:
    """Shows how much of the audio has been processed."""

    def __init__(self, name: str, duration_s: float) -> None:
        self._duration_s = duration_s
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[clock]}"),
            TimeRemainingColumn(compact=True),
            auto_refresh=False,
        )
        self._task = self._progress.add_task(
            _shorten(name), total=duration_s, clock=self._clock(0.0)
        )

    def step(self, step: Step) -> None:
        done_s = min((step.step_idx + 1) * STEP_S, self._duration_s)
        self._progress.update(self._task, completed=done_s, clock=self._clock(done_s))

    def __rich__(self) -> RenderableType:
        return self._progress.get_renderable()

    def _clock(self, done_s: float) -> str:
        return f"{clock(done_s)} / {clock(self._duration_s)}"


def clock(seconds: float) -> str:
    """Formats seconds as 1:02:03, or as 2:03 under an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _shorten(name: str, most: int = 28) -> str:
    name = name.rsplit("/", 1)[-1]
    return name if len(name) <= most else "…" + name[-most + 1 :]
