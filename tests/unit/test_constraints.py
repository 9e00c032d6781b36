"""deploy/constraints.txt names one version of every package for each Python that edged supports."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTRAS = ("daemon", "api", "embedded", "dev")


def constraints(python: str) -> dict[str, str]:
    """Package -> the version that is installed with this Python."""
    target = {"python_version": python, "python_full_version": f"{python}.0"}
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    found: dict[str, str] = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        if requirement.marker is None or requirement.marker.evaluate(target):
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            assert requirement.name not in found
            found[requirement.name] = specifier.version
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_has_one_version_that_it_allows(python: str) -> None:
    """Run `make constraints` after a change of the dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    pinned = constraints(python)
    for requirement in map(Requirement, wanted):
        version = pinned.get(requirement.name.lower())
        assert version is not None, f"{requirement.name} has no line: run `make constraints`"
        assert requirement.specifier.contains(version), f"{requirement}: {version} is too old"


def test_pip_of_the_offline_wheels_has_a_version_too() -> None:
    assert "pip" in constraints("3.13")
