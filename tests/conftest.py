"""What several tests share: real speech, in this checkout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime

import hypothesis
import pytest

hypothesis.settings.register_profile("edged", deadline=None)  # no test depends on speed
hypothesis.settings.load_profile("edged")

SAMPLES = Path(__file__).parent / "support" / "speech"

# What a test module imports says what its tests need. `serial` tests are run alone (Makefile): they
# record in real time, look at single frames, or keep every core busy.
_MARKERS = {
    ("tests.support.alsa_paced", "PacedMicrophone"): ("audio", "serial"),
    ("tests.support.chromium", "Chromium"): ("browser", "serial"),
    ("tests.support.deployed_broker", "DeployedBroker"): ("broker",),
    ("tests.support.mosquitto", "Mosquitto"): ("broker",),
    ("edged.models.loader", "load"): ("models",),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with what its module imports."""
    for module, name in _MARKERS:
        if module in sys.modules and not hasattr(sys.modules[module], name):
            raise pytest.UsageError(f"{module} has no {name}: correct _MARKERS in {__file__}")
    for item in items:
        imported = vars(item.module) if isinstance(item, pytest.Function) else {}
        for value in imported.values():
            where = (str(getattr(value, "__module__", "")), str(getattr(value, "__name__", "")))
            for marker in _MARKERS.get(where, ()):
                item.add_marker(marker)


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
