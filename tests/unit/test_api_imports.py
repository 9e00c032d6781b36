"""Optional protocols of the API server cost nothing while they are off."""

from __future__ import annotations

import subprocess
import sys


def test_a_daemon_without_api_imports_none_of_its_libraries() -> None:
    libraries = "('aiohttp', 'openai', 'prometheus_client', 'wyoming', 'zeroconf')"
    code = (
        "import sys, edged.daemon.service; "
        f"sys.exit(any(name.split('.')[0] in {libraries} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_wyoming_is_not_imported_unless_it_is_served() -> None:
    code = (
        "import sys, edged.server.api_server, edged.server.factory; "
        "sys.exit(any(name.split('.')[0] in ('wyoming', 'zeroconf') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
