"""A Debian in a folder, to run deploy/install.sh, the package's scripts and the command in.

The scripts are the real ones with their system paths moved below one folder. Python, pip and the
virtual environments are real too; what would change this machine (users, systemd, apt) is a
stand-in. The service user is `nobody`, so that a test run by root has two real users.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICE_UID = 65_534
_PATHS = (
    "/opt/edged",
    "/etc/edged",
    "/etc/systemd/system",
    "/var/lib/edged",
    "/usr/local/bin/edged",
    "/usr/share/edged",
)
# Each names the real program behind it, so that a stand-in does not find itself.
_STAND_INS = {
    "apt-get": "exit 0",
    "deb-systemd-helper": "exit 0",
    "deb-systemd-invoke": "exit 0",
    "df": "printf 'Filesystem 1M-blocks Used Available\\n/ 30000 1000 29000\\n'",
    "dpkg-query": 'for last; do :; done; [ "$last" = edged ] || echo installed',
    "getent": "exit 0",
    "id": 'if [ "$*" = -u ]; then echo 0; else exec /usr/bin/id "$@"; fi',
    "install": """
words=
while [ $# -gt 0 ]; do
    case $1 in
    -o | -g) [ "$(/usr/bin/id -u)" -ne 0 ] || words="$words $1 65534"; shift ;;
    *) words="$words $1" ;;
    esac
    shift
done
exec /usr/bin/install $words""",
    "journalctl": "exit 0",
    "setpriv": """
shift 5 # --reuid edged --regid edged --init-groups
[ "$(/usr/bin/id -u)" -eq 0 ] || exec "$@"
exec /usr/bin/setpriv --reuid 65534 --regid 65534 --clear-groups "$@" """,
    "sleep": "exit 0",
    "usermod": "exit 0",
}
_SYSTEMCTL = """
started={root}/started
case "$*" in
restart*)
    rm -f "$started"
    ! grep -q BROKEN {root}/etc/systemd/system/edged.service || exit 1
    touch "$started" ;;
*is-active*) [ -e "$started" ] && echo active ;;
*MainPID*) echo 42 ;;
esac"""


class MockSystem:
    """`checkout` is where the installer lies, `root` is the folder that stands for `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkout = root / "checkout"
        self.wheels = root / "wheels"
        self.tools = root / "tools"
        for folder in (self.checkout / "deploy", self.wheels, self.tools, root / "proc/net"):
            folder.mkdir(parents=True)
        for name in ("opt", "etc/systemd/system", "var/lib", "usr/local/bin", "usr/share/edged"):
            (root / name).mkdir(parents=True)
        (root / "proc/meminfo").write_text("MemTotal: 928000 kB\n")
        for program, script in (_STAND_INS | {"systemctl": _SYSTEMCTL}).items():
            self._program(self.tools / program, script.replace("{root}", str(root)))
        (self.tools / "python3").symlink_to(sys.executable)

    def path(self, installed: str) -> Path:
        """Where a path of an installed device is here."""
        return self.root / installed.removeprefix("/")

    def run_service_as_root(self) -> None:
        """For tests that run Python as the service: `nobody` may not read this Python's folders."""
        self._program(self.tools / "setpriv", 'shift 5\nexec "$@"')

    def script(self, name: str) -> Path:
        """A file of deploy/, moved into this system."""
        text = (DEPLOY / name).read_text()
        for path in _PATHS:
            text = text.replace(path, f"{self.root}{path}")
        moved = self.checkout / "deploy" / Path(name).name
        moved.write_text(text)
        moved.chmod(0o755)
        return moved

    def run(
        self, *command: str | Path, cwd: Path | None = None, **environment: str
    ) -> tuple[int, str]:
        """The exit status and both outputs of a command, as root sees them."""
        done = subprocess.run(
            command,
            cwd=cwd or self.root,
            env={
                "PATH": f"{self.tools}:/usr/sbin:/usr/bin:/sbin:/bin",
                "SYSROOT": str(self.root),
                "PIP_CONFIG_FILE": os.devnull,
            }
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def install(self, wheel: Path, cwd: Path | None = None) -> tuple[int, str]:
        """Runs the installer for this wheel, with no package index."""
        self.run_service_as_root()
        installer = self.script("install.sh")
        return self.run(installer, "--wheels", self.wheels, "--from", wheel, cwd=cwd)

    def wheel(self, version: str, broken: bool = False, requires: str = "", **files: str) -> Path:
        """A small wheel called edged. Its unit and its command say which version they belong to."""
        unit = f"# unit of {version}\n" + ("# BROKEN\n" if broken else "")
        content = {
            "edged/__init__.py": "",
            "edged/main.py": f"def main():\n    print('edged {version}')\n",
            "edged/deploy/edged.env.example": f"# settings of {version}\n",
            "edged/deploy/edged": f"#!/bin/sh\necho command of {version}\n",
            "edged/deploy/edged.service": unit,
        } | {name.replace("__", "/").replace("_txt", ".txt"): text for name, text in files.items()}
        return self.python_package("edged", version, content, requires, "edged = edged.main:main")

    def python_package(
        self,
        name: str,
        version: str,
        files: Mapping[str, str],
        requires: str = "",
        script: str = "",
    ) -> Path:
        """Puts a wheel with these files into the folder for `--wheels`."""
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "Provides-Extra: daemon\nProvides-Extra: api\n" if name == "edged" else ""
        metadata += f"Requires-Dist: {requires}\n" if requires else ""
        content = dict(files) | {
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        }
        if script:
            content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
        content[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*content, f"{info}/RECORD"))
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in content.items():
                wheel.writestr(file, text)
        return path

    def hostile_folder(self, *modules: str) -> tuple[Path, Path]:
        """A folder with Python modules of these names, and the file that exists once any of them
        was imported."""
        folder, mark = self.root / "hostile", self.root / "imported"
        for module in modules:
            (folder / module).mkdir(parents=True)
            text = f"open({str(mark)!r}, 'a').write({module!r} + ' ')\n"
            (folder / module / "__init__.py").write_text(text)
            (folder / module / "__main__.py").write_text("")
        return folder, mark

    @staticmethod
    def _program(path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@contextmanager
def mock_system() -> Iterator[MockSystem]:
    """In a folder that every user may enter, unlike pytest's own."""
    root = Path(tempfile.mkdtemp(prefix="edged-system-"))
    root.chmod(0o755)
    try:
        yield MockSystem(root)
    finally:
        shutil.rmtree(root)
