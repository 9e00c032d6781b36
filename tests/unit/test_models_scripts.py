"""The recipes in models/, some of which need packages that edged does not (torch, matplotlib)."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
SCRIPTS = sorted([*MODELS.glob("*.py"), *MODELS.glob("[!_]*/[!_]*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_name_that_a_recipe_imports_from_this_repository_exists(script: Path) -> None:
    """A name was moved, and adapt_encoder.py failed at its first line: no other test imports it,
    because it needs torch."""
    imports = [
        node
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("edged", "models"))
    ]
    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")
