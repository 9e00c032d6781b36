"""Reports what is installed here, for `edged --version` and bug reports."""

from __future__ import annotations

import platform
from importlib import metadata

from edged import __version__
from edged.cli.model_table import rows
from edged.errors import ModelError
from edged.models.store import default_models_dir


def version_report() -> str:
    """Returns a few lines of text. Opens no model."""
    return "\n".join(
        [
            f"edged {__version__}",
            f"Python {platform.python_version()} on {platform.machine()}",
            f"onnxruntime {_version('onnxruntime')}",
            f"models {_models()}",
        ]
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _models() -> str:
    """Returns the models directory and the state of each default or installed model."""
    try:
        listed = [row for row in rows() if row.default or row.state == "ready"]
    except ModelError as error:
        return f"unknown: {error}"
    states = ", ".join(f"{row.name} {row.state}" for row in listed)
    return f"in {default_models_dir()}: {states}"
