"""Locates the data files that come with edged.

In a source checkout they are read from `models/` and `deploy/` beside the package; an installed
edged has copies inside the package (pyproject.toml, force-include). No other module computes such
a path.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def checkout() -> Path | None:
    """The root of the source checkout that edged runs from; None for an installed edged."""
    root = _PACKAGE.parent
    is_checkout = (root / "models" / "catalogue.toml").is_file() and (
        root / "pyproject.toml"
    ).is_file()
    return root if is_checkout else None


def models_data() -> Path:
    """The folder with the model catalogue, the small weights, the licences and the samples."""
    root = checkout()
    return root / "models" if root else _PACKAGE / "models" / "data"


def sample_speech() -> Path:
    """The folder with the sample recordings and their `samples.toml`."""
    return models_data() / "samples"


def played_samples(language: str) -> Path:
    """The folder with the recordings that the microphone `sample` plays for a language: its own,
    or the English ones if it has none."""
    folder = sample_speech() / language
    return folder if folder.is_dir() else sample_speech()


def deploy_files() -> Path:
    """The folder with units, installer, fleet, broker and Home Assistant files."""
    root = checkout()
    return root / "deploy" if root else _PACKAGE / "deploy"


def captions_page() -> Path:
    """The folder with the files of the captions page, which the API server serves as they are."""
    return deploy_files() / "kiosk"
