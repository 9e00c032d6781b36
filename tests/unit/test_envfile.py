"""The env-file parser agrees with dotenv itself and with systemd's state machine."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.config import envfile
from edged.errors import ConfigError


def systemd_values(text: str) -> dict[str, str]:
    """The state machine of systemd 252 `src/basic/env-file.c`, parse_env_file_internal()."""
    state, key, value, found = "pre_key", "", "", {}
    blanks = " \t\r\n"
    last_key_blank = last_value_blank = None

    def push() -> None:
        if key and (key[0].isalpha() or key[0] == "_"):
            found[key] = value

    for char in text:
        newline = char in "\r\n"
        if state == "pre_key":
            if char in "#;":
                state = "comment"
            elif char not in blanks:
                state, last_key_blank, key = "key", None, char
        elif state == "key":
            if newline:
                state, key = "pre_key", ""
            elif char == "=":
                state, last_value_blank, value = "pre_value", None, ""
                key = key[:last_key_blank] if last_key_blank is not None else key
            else:
                last_key_blank = (
                    None
                    if char not in blanks
                    else (last_key_blank if last_key_blank is not None else len(key))
                )
                key += char
        elif state == "pre_value":
            if newline:
                push()
                state, key, value = "pre_key", "", ""
            elif char == "'":
                state = "single"
            elif char == '"':
                state = "double"
            elif char == "\\":
                state = "value_escape"
            elif char not in blanks:
                state = "value"
                value += char
        elif state == "value":
            if newline:
                value = value[:last_value_blank] if last_value_blank is not None else value
                push()
                state, key, value = "pre_key", "", ""
            elif char == "\\":
                state, last_value_blank = "value_escape", None
            else:
                last_value_blank = (
                    None
                    if char not in blanks
                    else (last_value_blank if last_value_blank is not None else len(value))
                )
                value += char
        elif state == "value_escape":
            state = "value"
            value += "" if newline else char
        elif state == "single":
            state = "pre_value" if char == "'" else "single"
            value += "" if char == "'" else char
        elif state == "double":
            if char == '"':
                state = "pre_value"
            elif char == "\\":
                state = "double_escape"
            else:
                value += char
        elif state == "double_escape":
            state = "double"
            value += char if char in '"\\`$' else ("" if char == "\n" else "\\" + char)
        elif state == "comment":
            state = {"\\": "comment_escape"}.get(char, "pre_key" if newline else "comment")
        else:
            state = "comment"
    if state in ("pre_value", "value", "value_escape", "single", "double", "double_escape"):
        if state == "value" and last_value_blank is not None:
            value = value[:last_value_blank]
        push()
    return found


def values(text: str) -> dict[str, str]:
    return {a.key: a.value for a in envfile.parse(text).assignments}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=", ""),
        ("A = 1", "1"),
        ("  A=1  ", "1"),
        ("A=p#ss", "p#ss"),
        ("A=#ss", "#ss"),
        ('A="p#$s"', "p#$s"),
        ('A={"temp":0.0}', '{"temp":0.0}'),
        ("A=O'Brien", "O'Brien"),
        ("A='p #ss'", "p #ss"),
        (r"A='pass\word'", r"pass\word"),
        (r'A="say \"hi\" \\ there"', r'say "hi" \ there'),
        ("A='one\ntwo'", "one\ntwo"),
        ("A='  kept  '", "  kept  "),
        ("A=größe €", "größe €"),
        ("A=1\r\n", "1"),
    ],
)
def test_a_line_that_both_read_alike_is_accepted_with_their_value(line: str, value: str) -> None:
    parsed = envfile.parse(line)
    assert not parsed.problems
    assert values(line) == {"A": value}
    assert systemd_values(line) == {"A": value}
    assert dict(dotenv_values(stream=io.StringIO(line))) == {"A": value}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A=a b  # note", "' #'"),
        ("A= # note", "' #'"),
        ('A="x" # note', "after the closing quote"),
        ("A=p #ss", "' #'"),
        (r"A=pass\word", "backslash"),
        (r'A="a\nb"', "backslash"),
        ("A=${HOME}/x", "expands"),
        (r"A='it\'s'", "backslash"),
        ("A=a\\\nb", "backslash"),
        ('A="a" "b"', "after the closing quote"),
        ("export A=1", "export"),
        ("; A=1", "';'"),
        ("A", "not KEY=value"),
        ("A-B=1", "not KEY=value"),
        ("1A=1", "not KEY=value"),
        ("A='open", "never closed"),
        ("# note \\\nA=1", "comment ends with a backslash"),
        ("A=\x07", "control character"),
        ("A='a\r\nb'", "Windows line end"),
        ("A=a\u00a0", "unusual blank"),
        ("A=#a #b", "' #'"),
    ],
)
def test_a_line_that_they_read_differently_is_reported_with_its_reason(
    line: str, reason: str
) -> None:
    first = envfile.parse("\n" + line).problems[0]
    assert first.line == 2
    assert reason in first.message


def test_a_problem_never_quotes_a_value() -> None:
    """A password with a bad character must not be in the log line that explains it."""
    text = 'EDGED_MQTT_PASSWORD=hunter2\\x\nEDGED_API_KEY="hunter2" x\n'
    parsed = envfile.parse(text)
    assert len(parsed.problems) == 2
    assert "hunter2" not in repr(parsed)
    assert "hunter2" not in repr(envfile.parse("A=hunter2"))


def test_every_bad_line_is_reported_and_the_good_ones_are_kept() -> None:
    parsed = envfile.parse("A=1\nnonsense\nB=2\nexport C=3\nD=4\n")
    assert [p.line for p in parsed.problems] == [2, 4]
    assert [(a.key, a.line) for a in parsed.assignments] == [("A", 1), ("B", 3), ("D", 5)]


def test_lines_are_counted_through_a_quoted_value_and_windows_line_ends() -> None:
    parsed = envfile.parse("A='1\n2\n3'\nB=1\r\n\r\nC=2\rD=3\n")
    assert [(a.key, a.line) for a in parsed.assignments] == [("A", 1), ("B", 4), ("C", 6), ("D", 7)]


def test_a_file_that_is_not_a_settings_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "edged.env"
    with pytest.raises(ConfigError, match="No such file"):
        envfile.read(path)
    path.write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(ConfigError, match="line 2 is not UTF-8"):
        envfile.read(path)
    path.write_bytes(b"#" * (envfile.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="not a settings file"):
        envfile.read(path)
    assert envfile.parse("\ufeffA=1").problems[0].line == 1


MARKS = "AB= \t\n\r#;'\"\\${}`né\u00a0"
PIECES = st.sampled_from([*MARKS, "export ", "a b", "${A}", "A=", "B='", '"\n'])


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=24).map("".join))
def test_whatever_is_accepted_whole_means_the_same_to_systemd_and_dotenv(text: str) -> None:
    parsed = envfile.parse(text)
    if parsed.problems:
        return
    assert values(text) == systemd_values(text)
    assert values(text) == dict(dotenv_values(stream=io.StringIO(text, newline="")))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_at_all_is_parsed_without_an_exception(text: str) -> None:
    for problem in envfile.parse(text).problems:
        assert 1 <= problem.line <= text.count("\n") + text.count("\r") + 1
