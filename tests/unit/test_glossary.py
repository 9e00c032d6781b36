"""The repository uses the field's terms: words that the project once coined do not come back.

A reader who knows speech recognition, MQTT and Python should not have to ask what a name means.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SUFFIXES = {".py", ".md", ".sh", ".js", ".css", ".html", ".yaml", ".yml", ".toml", ".service",
             ".conf", ".acl", ".example", ".env", ".tsv", ""}  # fmt: skip
_BINARY = {"LICENSE"}

# Coined word -> what to say. As a whole word, also inside a name: `door_key`, `DoorKey`.
_WORDS = {
    "asker": "SmartTurnScheduler",
    "box": "device",
    "boxes": "devices",
    "courier": "connection",
    "crew": "worker pool",
    "crews": "worker pools",
    "door": "API server",
    "doors": "API servers",
    "glance": "quick check",
    "likeliest": "most probable",
    "makers": "upstream",
    "mend": "repair, fix",
    "mended": "repaired, fixed",
    "mending": "repairing, fixing",
    "mends": "repairs, fixes",
    "murmur": "noise",
    "rivalled": "session taken over",
    "spill": "flush to disk",
    "teller": "reporter",
    "unproven": "not yet healthy",
    "unsaid": "not yet committed",
    "vigil": "watchdog",
    "vitals": "health",
}
# Names that were coined for classes, functions and variables, and are ordinary words elsewhere.
_NAMES = {
    "Acked", "Away", "Belief", "Beside", "Down", "Followers", "HANG_S", "HUSH_AGE_S", "Hearing",
    "Inline", "Judge", "Keeper", "Kept", "Kind", "Realised", "Remembered", "Suspicion", "Up",
    "births", "dead_s", "doubt", "hear_from", "hung_up", "is_unsure", "left_behind", "loose",
    "meanwhile", "omitted", "only_murmur", "proven", "rivals", "say", "settle", "trunk", "trouble",
}  # fmt: skip
_MODULES = {
    "asker", "belief", "beside", "built", "choose", "doubt", "first", "guard", "hung", "judge",
    "likeliest", "meanwhile", "mount", "notify", "pace", "recipe", "settle", "starting", "trunk",
}  # fmt: skip
# Where a word of the list is somebody else's term, as `file: pattern`.
_ALLOWED = (
    r".*\.css: -webkit-box(-orient)?|(border|content)-box|box-(shadow|sizing)",  # CSS
    r"(edged|tests)/.*\.py: box=None",  # a parameter of rich
    r"edged/mqtt/homeassistant\.py: \"mode\": \"box\"",  # a display mode of Home Assistant
    r".*: [a-z]+\.fritz\.box",  # names that a common router gives
    r"deploy/kiosk/key\.js: edged-door-key",  # where 0.1.0 stored the key in the browser
    r"models/turn/sentences\.tsv: box car",  # what a reader said
    r"tests/unit/test_(stt_family|session_executor)\.py: close the door",  # what is said
    r"(tests/bench/rooms|models/room_sounds)\.py: (pyroomacoustics\.)?ShoeBox",  # its class
)
_ALLOWED_NAMES = {
    ("edged/mqtt/spool_salvage.py", "trunk")
}  # SQLite's term for a page of its free list


def tracked() -> Iterator[tuple[str, str]]:
    """Path and text of every text file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    this = Path(__file__).relative_to(ROOT).as_posix()
    for name in listed:
        path = ROOT / name
        wanted = path.suffix in _SUFFIXES and name != this and path.is_file()
        if wanted and path.name not in _BINARY and name != "CHANGELOG.md":
            yield name, path.read_text(errors="replace")


def words(line: str) -> Iterator[str]:
    """The words of a line in lower case, those inside of names included."""
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", line):
        yield word.lower()


def without_allowed(name: str, line: str) -> str:
    for allowed in _ALLOWED:
        file, pattern = allowed.split(": ", 1)
        if re.fullmatch(file, name):
            line = re.sub(pattern, "", line)
    return line


def test_no_coined_word_is_used_anywhere() -> None:
    found = []
    for name, text in tracked():
        for number, line in enumerate(text.splitlines(), 1):
            coined = _WORDS.keys() & set(words(line))
            if coined and (coined := _WORDS.keys() & set(words(without_allowed(name, line)))):
                say = ", ".join(f"{word} -> {_WORDS[word]}" for word in sorted(coined))
                found.append(f"{name}:{number}: {say}")
    assert not found, "\n".join(found)


def names_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What a module defines: classes, functions, arguments, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_no_coined_name_is_defined_in_python() -> None:
    found = []
    for name, text in tracked():
        if not name.endswith(".py"):
            continue
        if Path(name).stem in _MODULES:
            found.append(name)
        for defined, number in names_of(ast.parse(text)):
            coined = defined.strip("_") in _NAMES
            if coined and (name, defined) not in _ALLOWED_NAMES:
                found.append(f"{name}:{number}: {defined}")
    assert not found, "\n".join(found)


# The same name for the same kind of thing.
_SAME_KIND_MODULES = {"__init__"}
_SAME_KIND_CLASSES: set[str] = set()


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "edged").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def repeated(places: dict[str, list[str]]) -> list[str]:
    """Names with more than one place. The folders of model families, which are built alike, are
    one."""
    families = re.compile(r"edged/stt/\w+/")
    found = {n: {families.sub("edged/stt/*/", p) for p in where} for n, where in places.items()}
    return [f"{name}: {', '.join(places[name])}" for name, where in found.items() if len(where) > 1]


def test_no_module_name_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, _ in modules():
        if (stem := Path(path).stem) not in _SAME_KIND_MODULES:
            places[stem].append(path)
    assert not repeated(places)


def test_no_class_name_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name not in _SAME_KIND_CLASSES:
                places[node.name.lstrip("_")].append(path)
    assert not repeated(places)


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports test files by their base names: of two alike it cannot collect both, and the
    whole run ends with an error that runs of single files do not show."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        places[path.name].append(str(path.relative_to(ROOT)))
    assert not repeated(places)


def test_no_test_imports_a_test() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    modules = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in tests
        if path.stem.startswith(("test_", "check_"))
    }
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in tests
        for module in imported_modules(path)
        if module in modules
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("the door is open", {"door"}),
        ("door_key = DoorKey()", {"door"}),
        ("indoor boxer", set()),
        ("EDGED_DOOR_X", {"door"}),
    ],
)
def test_words_are_found_inside_of_names(line: str, expected: set[str]) -> None:
    assert _WORDS.keys() & set(words(line)) == expected
