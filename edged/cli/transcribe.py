"""Transcribes files for `edged transcribe`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from rich.console import Console

from edged import STEP_S
from edged.atomicfile import replacing
from edged.audio.files import STDIN, display_name, open_audio
from edged.audio.pcm import RawFormat
from edged.audio.source import Frame, Source
from edged.cli.stdout import not_written
from edged.cli.transcript_view import LONG_S, LiveTranscript, ProgressBar, TranscriptView
from edged.cli.writers import SUFFIXES, EventsWriter, Format, TextFrom, Writer, put, writer
from edged.engine.run_stats import RunStats, summary
from edged.engine.session import Session
from edged.errors import ConfigError, InputError, RequestError
from edged.events import EndOfStream, Error, Event, Ready
from edged.languages import AUTO
from edged.models.choice import OFF, chosen, second_opinion_for
from edged.models.loader import Models, load
from edged.options import Options
from edged.stt.keyterms import keyterms_of

BAD_INPUT = 1008  # code of the `error` message for audio that cannot be read


@dataclass(frozen=True, slots=True)
class TranscribeJob:
    """What to do with each file.

    output_dir: write one result file for each input file instead of standard output.
    raw: format of files without a header.
    realtime: read no faster than a microphone would deliver.
    """

    options: Options = field(default_factory=Options)
    form: Format = "text"
    text_from: TextFrom = "turns"
    output_dir: Path | None = None
    raw: RawFormat | None = None
    realtime: bool = False
    stats: bool = False
    models_dir: Path | None = None
    model: str = AUTO
    threads: int = 1
    second_opinion: str = OFF


def transcribe(files: Sequence[str], job: TranscribeJob) -> int:
    """Transcribes the files one after the other; one that cannot be read does not stop the rest.

    Returns the exit code: that of InputError if a file failed, else 0. Raises RequestError for
    arguments that contradict each other, before any work; ConfigError if a result cannot be
    written; ModelError if models are missing.
    """
    targets = _targets(files, job)
    choice = chosen(job.models_dir, job.model, job.options.language)
    opinion = second_opinion_for(job.models_dir, choice.entry.name, job.second_opinion)
    models = load(job.models_dir, choice.entry.name, job.threads, None, opinion)
    job = replace(job, options=replace(job.options, language=choice.language))
    exit_code = 0
    keyterms = keyterms_of(models.recogniser, job.options)
    for term in keyterms.unspellable if keyterms is not None else ():
        _print_note(f"{term.term}: the model cannot write this term")
    active = len(keyterms.terms) if keyterms is not None else 0
    for number, (file, target) in enumerate(zip(files, targets, strict=True), 1):
        ready = Ready(
            str(number),
            models.name,
            job.options.delay_in_frames,
            keyterms=active,
            language=job.options.language,
        )
        titled = target is None and job.form == "text" and len(files) > 1
        try:
            _transcribe_one(file, target, models, job, ready, titled)
        except InputError as error:
            _print_note(f"error: {error}")
            exit_code = error.exit_code
    return exit_code


def raw_format(
    files: Sequence[str], encoding: str | None, rate: int | None, channels: int | None
) -> RawFormat | None:
    """Returns the format of raw input from the options; None if no option was given.

    Raises RequestError for a rate or a channel count without `encoding`, for files with a header.
    """
    if encoding is None and rate is None and channels is None:
        return None
    if encoding is None and any(file != STDIN for file in files):
        raise RequestError(
            "--rate and --channels are for raw audio: add --input-format, or leave them out for "
            "files with a header"
        )
    usual = RawFormat()
    return RawFormat(
        usual.encoding if encoding is None else encoding,
        usual.rate if rate is None else rate,
        usual.channels if channels is None else channels,
    )


def _transcribe_one(
    file: str, target: Path | None, models: Models, job: TranscribeJob, ready: Ready, titled: bool
) -> None:
    try:
        source = open_audio(file, job.raw)
    except InputError as error:
        if job.form == "events" and target is None:
            EventsWriter(sys.stdout, display_name(file)).event(Error(str(error), BAD_INPUT))
        raise
    if titled:  # as head(1) does
        put(
            sys.stdout,
            ("" if ready.request_id == "1" else "\n") + f"==> {display_name(file)} <==\n",
        )
    stats = RunStats()
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        out = stack.enter_context(_output(target))
        background = stack.enter_context(ThreadPoolExecutor(1)) if job.realtime else None
        session = Session(models, job.options, background)
        if job.stats:
            stack.callback(_print_stats, source, session, stats)
        view = stack.enter_context(_view(source, target, job))
        sinks: list[Writer | TranscriptView] = [view]
        if not _shows_text(job, target):
            language = job.options.language
            sinks.append(writer(job.form, out, display_name(file), job.text_from, language))
        _deliver([ready], sinks)
        _stream(source, session, job.realtime, stats, sinks)
    if not stats.step_ms:
        _print_note(f"{source.name} contains no audio")
    if source.bad_samples:
        _print_note(
            f"{source.name}: {source.bad_samples} samples were not numbers and count as silence"
        )


def _stream(
    source: Source,
    session: Session,
    realtime: bool,
    stats: RunStats,
    sinks: Sequence[Writer | TranscriptView],
) -> None:
    """Pushes the whole source through the session. What precedes damage is still transcribed."""
    damage: InputError | None = None
    try:
        for frame, backlog in _paced(source.frames(), realtime):
            started = time.perf_counter()
            events = session.push(frame, backlog)
            stats.add(time.perf_counter() - started)
            _deliver(events, sinks)
    except InputError as error:
        damage = error
    for event in session.end():
        if damage is not None and isinstance(event, EndOfStream):
            event = Error(str(damage), BAD_INPUT)
        _deliver([event], sinks)
    if damage is not None:
        raise damage


def _paced(frames: Iterator[Frame], realtime: bool) -> Iterator[tuple[Frame, bool]]:
    """Yields each frame, and whether there is a backlog of more than a step.

    In real time a frame comes when its last sample would have been spoken. Otherwise there is
    always a backlog: the recogniser then takes larger pieces, which is faster and more accurate.
    """
    start = time.monotonic()
    for number, frame in enumerate(frames, 1):
        if not realtime:
            yield frame, True
            continue
        early = start + number * STEP_S - time.monotonic()
        if early > 0:
            time.sleep(early)
        yield frame, early < -STEP_S


def _deliver(events: Sequence[Event], sinks: Sequence[Writer | TranscriptView]) -> None:
    for event in events:
        for sink in sinks:
            sink.event(event)


def _shows_text(job: TranscribeJob, target: Path | None) -> bool:
    """Whether the text goes to the terminal itself."""
    return job.form == "text" and target is None and sys.stdout.isatty()


def _view(source: Source, target: Path | None, job: TranscribeJob) -> TranscriptView:
    long = source.duration_s is not None and source.duration_s >= LONG_S
    bar = ProgressBar(source.name, source.duration_s) if long and source.duration_s else None
    if _shows_text(job, target):
        return LiveTranscript(Console(highlight=False), bar, job.text_from, job.options.language)
    to_terminal = target is None and sys.stdout.isatty()
    if bar is None or to_terminal or not sys.stderr.isatty():
        return TranscriptView()
    return LiveTranscript(Console(stderr=True), bar, None)


def _targets(files: Sequence[str], job: TranscribeJob) -> list[Path | None]:
    """Returns where each file's result goes; None is standard output."""
    if files.count(STDIN) > 1:
        raise RequestError("`-` (standard input) can be given only once")
    if job.output_dir is None:
        if job.form in ("srt", "vtt") and len(files) > 1:
            raise RequestError(
                f"--format {job.form} with several files needs --output-dir: "
                "subtitles of two files cannot share one stream"
            )
        return [None] * len(files)
    by_target: dict[Path, str] = {}
    for file in files:
        stem = "stdin" if file == STDIN else Path(file).stem
        target = job.output_dir / (stem + SUFFIXES[job.form])
        if target in by_target:
            raise RequestError(f"{by_target[target]} and {file} would both be written to {target}")
        by_target[target] = file
    return list(by_target)


@contextlib.contextmanager
def _output(target: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name only when it is complete.

    Of an input that turns out to be damaged, the result up to the damage is kept. Raises
    ConfigError if the file cannot be written.
    """
    if target is None:
        yield sys.stdout
        return
    if os.path.isdir(target):
        raise ConfigError(f"{target} cannot be written: it is a directory")
    raised: Exception | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as new, _closing(new.open("w", encoding="utf-8")) as out:
            try:
                yield out
            except InputError as error:
                raised = error
            except OSError as error:
                raised = error
                raise
    except OSError as problem:
        if problem is raised:
            raise
        raise not_written(str(target), problem) from problem
    if raised is not None:
        raise raised


@contextlib.contextmanager
def _closing(out: TextIO) -> Iterator[TextIO]:
    """Closes a file. After an error, closing tries again to write what a full disk refused: that
    second error does not replace the first."""
    try:
        yield out
    except BaseException:
        with contextlib.suppress(OSError):
            out.close()
        raise
    out.close()


def _print_stats(source: Source, session: Session, stats: RunStats) -> None:
    _print_note(f"{source.name}: {summary(stats)}")
    _print_note(f"{source.name}: dropped: {_dropped(session) or 'nothing'}")


def _dropped(session: Session) -> str:
    return ", ".join(
        f"{reason} {count}" for reason, count in sorted(session.dropped.items()) if count
    )


def _print_note(line: str) -> None:
    print(f"edged: {line}", file=sys.stderr, flush=True)
