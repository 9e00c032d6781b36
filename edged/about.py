"""What is installed here: for `edged --version` and bug reports."""

from __future__ import annotations

import platform
from importlib import metadata

from edged import __version__


def about() -> str:
    """A few lines; needs no model and imports nothing heavy."""
    return "\n".join(
        [
            f"edged {__version__}",
            f"Python {platform.python_version()} on {platform.machine()}",
            f"onnxruntime {_version('onnxruntime')}",
        ]
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
