"""What several tests share: real speech, in this checkout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture
def closed() -> Callable[[Path], AbstractContextManager[None]]:
    """Closes a folder to whoever runs the tests. Root may look everywhere, so it becomes nobody
    for the while: what is imported then must have been imported before."""

    @contextmanager
    def close(folder: Path) -> Iterator[None]:
        folder.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65_534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o700)

    return close
