"""Where the files of `deploy/` are: in a checkout there, else in the installed package."""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """Units, installer, fleet recipes, broker and Home Assistant files, the kiosk page."""
    checkout = Path(__file__).parents[1] / "deploy"
    if (checkout / "edged.service").is_file():
        return checkout
    return Path(__file__).parent / "deploy"


def kiosk() -> Path:
    """The kiosk page's own files, to be served as they are."""
    return folder() / "kiosk"
