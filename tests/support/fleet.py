"""Runs many real daemons: loads Python and onnxruntime once, then forks a process for each.

python fleet.py ENV_FILE...      until its standard input is closed
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> None:
    from edged.cli.run import run

    children = []
    for name in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
                os.close(0)
                code = run(Path(name))
            finally:
                os._exit(code)
        children.append(child)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
