"""Every log line of edged has a documented code, and the documentation lists no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.log_codes import CODES, document

ROOT = Path(__file__).parents[2]
LEVELS = ["debug", "info", "warning", "error", "critical"]
BARE = {*LEVELS, "exception", "log"}
MECHANISM = {ROOT / "edged" / "logs.py", ROOT / "edged" / "log_codes.py"}


@dataclass(frozen=True)
class Call:
    """A call of `log_event` or `log_exception`; `codes` and `levels` as far as they are literal."""

    where: str
    codes: tuple[str, ...]
    levels: tuple[str, ...]


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "edged").rglob("*.py")):
        if path not in MECHANISM:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def literals(node: ast.expr) -> tuple[str, ...]:
    """The strings or the names of levels that an expression can be: `"a" if x else "b"` is two."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if isinstance(node, ast.Attribute) and node.attr.lower() in LEVELS:
        return (node.attr.lower(),)
    return ()


def coded_calls() -> Iterator[Call]:
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            if node.func.id == "log_event":
                yield Call(where, literals(node.args[2]), literals(node.args[1]))
            elif node.func.id == "log_exception":
                yield Call(where, literals(node.args[1]), ("error",))


def bare_calls() -> Iterator[str]:
    for path, tree in sources():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in BARE
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id.lstrip("_") in {"log", "logger", "logging"}
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_line_is_logged_without_a_code() -> None:
    assert list(bare_calls()) == []


def test_every_code_that_is_logged_is_documented() -> None:
    unknown = [(call.where, c) for call in coded_calls() for c in call.codes if c not in CODES]
    assert unknown == []


def test_every_documented_code_is_logged_somewhere() -> None:
    """A code may be passed on through a function, so any string of the source counts."""
    strings = {
        node.value
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sorted(CODES.keys() - strings) == []


def test_a_code_has_the_level_that_is_documented() -> None:
    wrong = [
        (call.where, code, level)
        for call in coded_calls()
        for code in call.codes
        for level in call.levels
        if code in CODES and level not in CODES[code].level.split()
    ]
    assert wrong == []


def test_the_codes_are_in_alphabetical_order() -> None:
    assert list(CODES) == sorted(CODES)


def test_entries_are_sentences() -> None:
    for code, entry in CODES.items():
        assert set(entry.level.split()) <= set(LEVELS), code
        for text in filter(None, (entry.meaning, entry.action)):
            assert text.endswith("."), code
            assert "|" not in text, code


def test_the_manual_lists_the_codes() -> None:
    """If this fails: `python -m edged.log_codes > deploy/log-codes.md`."""
    assert (ROOT / "deploy" / "log-codes.md").read_text(encoding="utf-8") == document()
