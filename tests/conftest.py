"""What several tests share: real speech, in this checkout."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime

import pytest

SAMPLES = Path(__file__).parents[1] / "models" / "samples"


@pytest.fixture(scope="session")
def speech() -> Path:
    """A sentence read aloud, FLAC, 16 kHz mono."""
    return SAMPLES / "good-influence.flac"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own EDGED_ variables must not change what the tests see."""
    for name in [name for name in os.environ if name.startswith("EDGED_")]:
        if name != "EDGED_MODELS_DIR":
            monkeypatch.delenv(name)
