"""The documentation names things that exist: links, sections, files, modules and settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.config.settings import Settings, env_name

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAME = re.compile(r"`([\w./-]+\.(?:py|md|sh|toml|js|service|acl|conf|tsv|npz|yaml|example))`")
_SETTING = re.compile(r"\bEDGED_[A-Z0-9_]+\b")
# Variables that are no settings, and fields of journal entries.
_VARIABLES = {"EDGED_DEBUG", "EDGED_ENV_FILE", "EDGED_CODE", "EDGED_MQTT_STATUS"}
_ELSEWHERE = {"configuration.yaml"}  # of Home Assistant
# Folders that a README may mean when it names a file without its whole path.
_BASES = ("", "edged", "tests", "models", "deploy")


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a text."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


def broken_links(document: Path) -> Iterator[str]:
    for target in _LINK.findall(prose(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        if not file.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{target}: there is no such section"


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    assert not list(broken_links(document))


@pytest.mark.parametrize(
    "document",
    [d for d in documents() if d.name != "CHANGELOG.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_file_that_is_named_exists(document: Path) -> None:
    """A module that was renamed kept its old name in the README of its folder. CHANGELOG.md may
    name what there once was."""
    bases = [document.parent, *(ROOT / base for base in _BASES)]
    names = set(_NAME.findall(prose(document.read_text(encoding="utf-8")))) - _ELSEWHERE
    relative = {name for name in names if not name.startswith("/")}
    missing = {name for name in relative if not any((base / name).exists() for base in bases)}
    assert not missing


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(document: Path) -> None:
    known = {env_name(field) for field in Settings.model_fields} | _VARIABLES
    named = set(_SETTING.findall(document.read_text(encoding="utf-8")))
    assert not named - known - {"EDGED_X"}


@pytest.mark.parametrize("folder", ["audio", "engine", "mqtt", "server", "stt", "vad"])
def test_the_readme_of_a_folder_names_each_of_its_modules(folder: str) -> None:
    """Nobody finds a module that the table of its folder leaves out."""
    readme = (ROOT / "edged" / folder / "README.md").read_text(encoding="utf-8")
    modules = {path.name for path in (ROOT / "edged" / folder).glob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"(?<![\w/])\w+\.py\b", readme))
    assert not modules - named


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("make run") for line in lines[:30])
    assert any(line.startswith("sudo make install") for line in lines[:30])


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](page.md#a-b) [y](#a-c) [z](no.md) [w](https://example.org/no.md)\n")
    assert [found.split(":")[0] for found in broken_links(page)] == ["#a-c", "no.md"]


def test_the_readme_of_mqtt_explains_every_field_of_the_health_report() -> None:
    readme = (ROOT / "edged" / "mqtt" / "README.md").read_text(encoding="utf-8")
    source = (ROOT / "edged" / "daemon" / "health_report.py").read_text(encoding="utf-8")
    (health,) = re.findall(r"(?s)def health\(.*?return \{(.*?)\n        \}", source)
    fields = re.findall(r'^ {12}"(\w+)": ', health, re.MULTILINE)
    assert "level_dbfs" in fields
    assert not [field for field in fields if f"`{field}`" not in readme]
