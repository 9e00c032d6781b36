"""Parses env files, and accepts only lines that systemd and dotenv read alike.

The same line can mean two things: `A=a b # note` is `a b # note` to systemd's EnvironmentFile=
and `a b` to dotenv. Whoever pushes one file to many devices should not have to know which of them
reads it, so every line that they read differently is reported with the reason.

Sources: systemd 252 `src/basic/env-file.c`, python-dotenv 1.2 `parser.py`. Common to both are
comments from `#` at the start of a line; `KEY=value` with blanks around both; a bare value up to
the end of the line; a whole value in single or double quotes, over several lines if need be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from edged.errors import ConfigError

MAX_BYTES = 256 * 1024  # a settings file is 2 KiB; more is a wrong path

_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*=")
_LINE = re.compile(r"[^\r\n]*")
# systemd refuses a value with one of these, dotenv keeps it.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufdd0-\ufdef\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Assignment:
    """`key=value`, found on `line` (from 1)."""

    key: str
    value: str
    line: int

    def __repr__(self) -> str:  # a value may be a password
        return f"Assignment(key={self.key!r}, value=..., line={self.line})"


@dataclass(frozen=True, slots=True)
class LineProblem:
    """Why a line is not accepted: one sentence, which never quotes a value."""

    line: int
    message: str


@dataclass(slots=True)
class ParsedFile:
    """Assignments and problems in the order of the lines. The last assignment to a key counts."""

    assignments: list[Assignment] = field(default_factory=list)
    problems: list[LineProblem] = field(default_factory=list)


class _LineError(Exception):
    """A line is outside the common subset; the message says why."""


def read(path: Path) -> str:
    """Returns the text of an env file. Raises ConfigError if it cannot be read or is none."""
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read: {problem.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path} is not a settings file: it is larger than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise ConfigError(f"{path} line {line} is not UTF-8 text") from None


def parse(text: str) -> ParsedFile:
    """Finds every assignment and every problem of a file. Never raises."""
    parsed = ParsedFile()
    if text.startswith("\ufeff"):
        parsed.problems.append(
            LineProblem(1, "the file begins with a byte order mark: save it without one")
        )
        text = text[1:]
    at = 0
    line = 1
    while at < len(text):
        end = at
        try:
            assignment, end = _statement(text, at, line)
            if assignment:
                parsed.assignments.append(assignment)
        except _LineError as problem:
            parsed.problems.append(LineProblem(line, str(problem)))
        end = _end_of_line(text, end)
        line += len(re.findall(r"\r\n|\r|\n", text[at:end]))
        at = end
    return parsed


def _end_of_line(text: str, at: int) -> int:
    """The position where the next line starts."""
    at = _rest(text, at)[1]
    return at + (2 if text.startswith("\r\n", at) else 1)


def _rest(text: str, at: int) -> tuple[str, int]:
    """The rest of the line from `at`, and the position where the line ends."""
    match = _LINE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.group(), match.end()


def _statement(text: str, at: int, line: int) -> tuple[Assignment | None, int]:
    """Parses one logical line.

    Returns its assignment (None for a blank line or a comment) and the position where it ends.
    Raises _LineError.
    """
    whole, end = _rest(text, at)
    content = whole.lstrip(" \t")
    if not content or content.startswith("#"):
        if content.endswith("\\"):
            raise _LineError(
                "the comment ends with a backslash: systemd before 254 skips the next line"
            )
        return None, end
    if content.startswith(";"):
        raise _LineError("';' starts a comment only for systemd: use '#'")
    if re.match(r"export\s", content):
        raise _LineError("systemd does not know 'export': write KEY=value without it")
    key = _KEY.match(content)
    if not key:
        raise _LineError("this is not KEY=value (a key consists of A-Z, a-z, 0-9 and _)")
    start = at + len(whole) - len(content) + key.end()
    while text.startswith((" ", "\t"), start):
        start += 1
    value, end = _value(text, start, key[1])
    if _CONTROL.search(value):
        raise _LineError(f"the value of {key[1]} contains a control character")
    if "${" in value:
        raise _LineError(f"the value of {key[1]} contains '${{', which dotenv expands")
    return Assignment(key[1], value, line), end


def _value(text: str, start: int, key: str) -> tuple[str, int]:
    if text.startswith(("'", '"'), start):
        value, end = _quoted(text, start, key)
        rest, stop = _rest(text, end)
        if rest.strip(" \t"):
            what = "a comment" if rest.lstrip().startswith("#") else "more text"
            raise _LineError(
                f"{what} after the closing quote of {key}: systemd makes it part of the value"
            )
        return value, stop
    bare, end = _rest(text, start)
    value = bare.strip(" \t")
    if "\\" in value:
        raise _LineError(
            f"a backslash in {key}, which systemd removes: put the value in single quotes"
        )
    after_blank = value.startswith("#") and text[start - 1] != "="
    if after_blank or re.search(r"\s#", value):
        raise _LineError(
            f"' #' in {key}: dotenv ends the value there, systemd does not; "
            "write comments on separate lines, or put the value in quotes"
        )
    if value != value.strip():
        raise _LineError(
            f"{key} begins or ends with an unusual blank character: put the value in quotes"
        )
    return value, end


def _quoted(text: str, start: int, key: str) -> tuple[str, int]:
    """The value in the quotes that open at `start`, and the position after the closing quote."""
    quote = text[start]
    out: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        following = text[at + 1 : at + 2]
        if char == quote:
            return "".join(out), at + 1
        if char == "\r":
            raise _LineError(f"a Windows line end in the quoted value of {key}")
        if char == "\\":
            out.append(_escaped(text, at, quote, key))
            out.append(following if quote == "'" else "")
            at += 2
            continue
        out.append(char)
        at += 1
    raise _LineError(f"the opening quote of {key} is never closed")


def _escaped(text: str, at: int, quote: str, key: str) -> str:
    """What the backslash at `at` inside quotes stands for. Raises _LineError if readers differ."""
    following = text[at + 1 : at + 2]
    if quote == "'":
        if following in ("'", "\\", "\r", ""):
            raise _LineError(
                f"a backslash before ' or \\ in the single-quoted value of {key}: "
                "only dotenv reads it as an escape"
            )
        return "\\"
    if following == '"' or (following == "\\" and text[at + 2 : at + 3] != '"'):
        return following
    raise _LineError(
        f'a backslash in the double-quoted value of {key} that is not before " or \\, or is at '
        "the end: use single quotes"
    )
