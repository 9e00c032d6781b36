"""Env files: the one parser of them, for the quoting that systemd and dotenv share.

The same line can mean two things: `A=a b # note` is `a b # note` to systemd's EnvironmentFile=
and `a b` to dotenv. A fleet that pushes one file to many boxes must not have to know who reads
it, so only what both read alike is accepted and every other line is named with its reason.

Sources: systemd 252 `src/basic/env-file.c`, python-dotenv 1.2 `parser.py`. What they share:
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
class Problem:
    """Why a line is not accepted: one sentence that never quotes a value."""

    line: int
    message: str


@dataclass(slots=True)
class Parsed:
    """Of two assignments to one key the last counts, as in both readers."""

    assignments: list[Assignment] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _RefusedError(Exception):
    """This line is outside the common subset."""


def read(path: Path) -> str:
    """The text of an env file. Raises ConfigError if it cannot be read as one."""
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read: {problem.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path} is no settings file: it has more than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise ConfigError(f"{path} line {line} is not UTF-8 text") from None


def parse(text: str) -> Parsed:
    """Every assignment and every problem of a file, in order. Never raises."""
    parsed = Parsed()
    if text.startswith("\ufeff"):
        parsed.problems.append(Problem(1, "a byte order mark begins the file: save it without"))
        text = text[1:]
    at = 0
    line = 1
    while at < len(text):
        end = at
        try:
            assignment, end = _statement(text, at, line)
            if assignment:
                parsed.assignments.append(assignment)
        except _RefusedError as problem:
            parsed.problems.append(Problem(line, str(problem)))
        end = _end_of_line(text, end)
        line += len(re.findall(r"\r\n|\r|\n", text[at:end]))
        at = end
    return parsed


def _end_of_line(text: str, at: int) -> int:
    """Where the next line starts."""
    at = _rest(text, at)[1]
    return at + (2 if text.startswith("\r\n", at) else 1)


def _rest(text: str, at: int) -> tuple[str, int]:
    """The rest of the line and where it ends."""
    match = _LINE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.group(), match.end()


def _statement(text: str, at: int, line: int) -> tuple[Assignment | None, int]:
    """One logical line -> its assignment (None: blank or comment) and where it stopped."""
    whole, end = _rest(text, at)
    content = whole.lstrip(" \t")
    if not content or content.startswith("#"):
        if content.endswith("\\"):
            raise _RefusedError(
                "a comment ends with a backslash: systemd before 254 then skips a line"
            )
        return None, end
    if content.startswith(";"):
        raise _RefusedError("';' starts a comment for systemd alone: use '#'")
    if re.match(r"export\s", content):
        raise _RefusedError("systemd does not know 'export': write KEY=value alone")
    key = _KEY.match(content)
    if not key:
        raise _RefusedError("this is not KEY=value (the key may hold A-Z, a-z, 0-9 and _)")
    start = at + len(whole) - len(content) + key.end()
    while text.startswith((" ", "\t"), start):
        start += 1
    value, end = _value(text, start, key[1])
    if _CONTROL.search(value):
        raise _RefusedError(f"the value of {key[1]} holds a control character")
    if "${" in value:
        raise _RefusedError(f"the value of {key[1]} holds '${{', which dotenv expands")
    return Assignment(key[1], value, line), end


def _value(text: str, start: int, key: str) -> tuple[str, int]:
    if text.startswith(("'", '"'), start):
        value, end = _quoted(text, start, key)
        rest, stop = _rest(text, end)
        if rest.strip(" \t"):
            what = "a note" if rest.lstrip().startswith("#") else "more text"
            raise _RefusedError(
                f"{what} after the closing quote of {key}: systemd adds it to the value"
            )
        return value, stop
    bare, end = _rest(text, start)
    value = bare.strip(" \t")
    if "\\" in value:
        raise _RefusedError(f"a backslash in {key}: systemd drops it; use single quotes")
    after_blank = value.startswith("#") and text[start - 1] != "="
    if after_blank or re.search(r"\s#", value):
        raise _RefusedError(
            f"' #' in {key}: dotenv ends the value there, systemd does not; "
            "put notes on a line of their own, or the value in quotes"
        )
    if value != value.strip():
        raise _RefusedError(f"{key} begins or ends with an unusual blank: put the value in quotes")
    return value, end


def _quoted(text: str, start: int, key: str) -> tuple[str, int]:
    """The value inside the quotes that open at `start`, and where the line goes on."""
    quote = text[start]
    out: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        following = text[at + 1 : at + 2]
        if char == quote:
            return "".join(out), at + 1
        if char == "\r":
            raise _RefusedError(f"a Windows line end inside the quotes of {key}")
        if char == "\\":
            out.append(_escaped(text, at, quote, key))
            out.append(following if quote == "'" else "")
            at += 2
            continue
        out.append(char)
        at += 1
    raise _RefusedError(f"the quote that opens the value of {key} is never closed")


def _escaped(text: str, at: int, quote: str, key: str) -> str:
    """What a backslash inside quotes stands for where both readers agree."""
    following = text[at + 1 : at + 2]
    if quote == "'":
        if following in ("'", "\\", "\r", ""):
            raise _RefusedError(
                f"a backslash before ' or \\ in the single quotes of {key}: "
                "only dotenv reads it as an escape"
            )
        return "\\"
    if following == '"' or (following == "\\" and text[at + 2 : at + 3] != '"'):
        return following
    raise _RefusedError(
        f'in the double quotes of {key} a backslash may only stand before " or \\ '
        "(and not at the end): use single quotes"
    )
