"""Writes a session's events as text, subtitles or JSON lines, as they happen."""

from __future__ import annotations

from typing import Literal, Protocol, TextIO, TypeAlias, get_args

from edged import subtitles
from edged.cli.stdout import not_written
from edged.events import EndOfStream, EndText, Event, Text, Turn, Word, to_json
from edged.languages import word_separator

Format: TypeAlias = Literal["text", "srt", "vtt", "events"]
TextFrom: TypeAlias = Literal["turns", "words"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "events": ".jsonl"}


class Writer(Protocol):
    """Writes the events of one file, in order, the last one `end_of_stream`. Flushes at each."""

    def event(self, event: Event) -> None: ...


def writer(
    form: Format, out: TextIO, file: str, text_from: TextFrom = "turns", language: str = "en"
) -> Writer:
    """Returns the writer for the result of one file.

    out: where it writes.
    file: the name that events carry.
    text_from: the text of whole turns (`turns`) or the words as they were committed (`words`).
    language: of the session: a code, or `auto`.
    """
    if form == "events":
        return EventsWriter(out, file)
    if form == "text":
        return TurnLines(out) if text_from == "turns" else WordLines(out, language)
    return CueWriter(out, form, text_from, language)


class EventsWriter:
    """Writes each message as one JSON line, with the file's name added."""

    def __init__(self, out: TextIO, file: str) -> None:
        self._out = out
        self._file = file

    def event(self, event: Event) -> None:
        put(self._out, to_json({**event.wire(), "file": self._file}) + "\n")


class TurnLines:
    """Writes one line for each turn."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def event(self, event: Event) -> None:
        if isinstance(event, Turn) and event.text:
            put(self._out, event.text + "\n")


class WordLines:
    """Writes each word as it is committed; a line ends with the turn."""

    def __init__(self, out: TextIO, language: str = "en") -> None:
        self._out = out
        self._separator = word_separator(language)
        self._line_open = False

    def event(self, event: Event) -> None:
        if isinstance(event, Text):
            put(self._out, (self._separator if self._line_open else "") + event.text)
            self._line_open = True
        elif isinstance(event, Turn | EndOfStream) and self._line_open:
            put(self._out, "\n")
            self._line_open = False


class CueWriter:
    """Writes subtitles, turn by turn."""

    def __init__(
        self, out: TextIO, form: Format, text_from: TextFrom, language: str = "en"
    ) -> None:
        self._out = out
        self._form = form
        self._text_from = text_from
        self._language = language
        self._number = 0
        self._until_s = 0.0
        self._words: list[Word] = []
        self._text: Text | None = None
        if form == "vtt":
            put(out, subtitles.VTT_HEADER)

    def event(self, event: Event) -> None:
        match event:
            case Text():
                self._text = event
            case EndText(stop_s=stop_s) if self._text is not None:
                self._words.append(Word(self._text.text, self._text.start_s, stop_s))
                self._text = None
            case Turn():
                self._language = event.language
                words = event.words if self._text_from == "turns" else tuple(self._words)
                self._write_cues(words or _spread(event))
                self._words.clear()
            case EndOfStream() if self._text_from == "words":
                self._write_cues(tuple(self._words))

    def _write_cues(self, words: tuple[Word, ...]) -> None:
        for cue in subtitles.cues(words, self._until_s, self._language):
            self._number += 1
            self._until_s = cue.stop_s
            text = subtitles.srt(cue, self._number) if self._form == "srt" else subtitles.vtt(cue)
            put(self._out, text)


def _spread(turn: Turn) -> tuple[Word, ...]:
    """Returns the words of a turn without word times, spread evenly over it."""
    texts = turn.text.split()
    each = (turn.stop_s - turn.start_s) / max(1, len(texts))
    return tuple(
        Word(text, turn.start_s + at * each, turn.start_s + (at + 1) * each)
        for at, text in enumerate(texts)
    )


def put(out: TextIO, text: str) -> None:
    """Writes and flushes text.

    Raises ConfigError if it cannot be written, BrokenPipeError (on standard output
    ReaderGoneError) if the reader has closed the pipe.
    """
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise not_written("the result", problem) from problem
