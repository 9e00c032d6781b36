"""A booted Debian for tests of a whole installation (systemd-boot.sh)."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

BOOT = Path(__file__).with_name("systemd-boot.sh")


class Machine:
    """Runs commands as root inside. The machine has no network except its own loopback."""

    def __init__(self, rootfs: Path) -> None:
        self.rootfs = rootfs

    def run(self, *command: str, check: bool = True, seconds: float = 900) -> str:
        """Runs a command inside and returns both of its outputs."""
        done = subprocess.run(
            [BOOT, "exec", self.rootfs, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        if check:
            assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def sh(self, script: str, check: bool = True) -> str:
        return self.run("sh", "-c", script, check=check)

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "-P", name, "edged")

    def log(self) -> str:
        return self.run("journalctl", "-u", "edged", "-o", "cat", "--no-pager")

    def until(self, true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := true():
                return found
            time.sleep(0.3)
        raise AssertionError(f"not within {seconds:g} s: {what}\n{self.log()[-3000:]}")

    def left_over(self) -> list[str]:
        """Files and users that an uninstalled edged has left, apart from the system's logs."""
        find = "find / -xdev -path /mnt -prune -o -name '*edged*' -print; getent passwd edged"
        found = self.sh(find, check=False).splitlines()
        return [line for line in found if not line.startswith(("/var/log/", "/mnt"))]


@contextlib.contextmanager
def booted(rootfs: Path, mounts: Mapping[str, Path]) -> Iterator[Machine]:
    """Boots the tree with each folder mounted read-only at /mnt/<name>, and stops it at the end.

    Changes are discarded: the tree stays as it was created.
    """
    binds = [f"--bind-ro={path}:/mnt/{name}" for name, path in mounts.items()]
    subprocess.run([BOOT, "stop", rootfs], check=True)
    subprocess.run([BOOT, "start", rootfs, "--volatile=overlay", *binds], check=True)
    try:
        yield Machine(rootfs)
    finally:
        subprocess.run([BOOT, "stop", rootfs], check=True)
