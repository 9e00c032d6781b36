"""What runs as root while edged is installed trusts neither folder: the service's, the caller's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.models.wheels import pip_transport
from tests.support.mock_system import DEPLOY, SERVICE_UID, MockSystem, mock_system

HOSTILE = ("compileall", "edged", "ensurepip", "multiprocessing", "pip", "venv", "zipfile")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root and a second user")


@pytest.fixture
def system() -> Iterator[MockSystem]:
    with mock_system() as made:
        yield made


def plant_link(system: MockSystem) -> tuple[Path, Path]:
    """The service user replaces its folder of models with a link to a folder of root's."""
    treasure = system.root / "treasure"
    treasure.mkdir(mode=0o700)
    (treasure / "file").write_text("root's")
    data = system.path("/var/lib/edged")
    data.mkdir(mode=0o750)
    os.chown(data, SERVICE_UID, SERVICE_UID)
    (data / "models").symlink_to(treasure)
    return treasure, data


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(
    ("script", "call"),
    [
        ("install.sh", ". {script}; create_user_and_folders"),
        ("deb/postinst", "{script} configure"),
        ("deb/postinst", "{script} configure 0.1.0"),
    ],
)
def test_no_link_in_the_services_folder_is_followed_by_root(
    system: MockSystem, script: str, call: str
) -> None:
    """`install -d -o edged /var/lib/edged/models` gave whatever that name led to to the service
    user: at the next upgrade that user owned /etc, or root's home."""
    treasure, data = plant_link(system)
    moved = system.script(script)
    system.run("bash", "-c", call.format(script=moved))
    assert (treasure.stat().st_uid, treasure.stat().st_mode & 0o7777) == (0, 0o700)
    assert (data.stat().st_uid, data.stat().st_mode & 0o7777) == (SERVICE_UID, 0o750)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize(("script", "verb"), [("install.sh", "purge"), ("deb/postrm", "purge")])
def test_a_purge_removes_the_link_and_not_what_it_leads_to(
    system: MockSystem, script: str, verb: str
) -> None:
    treasure, data = plant_link(system)
    system.run("bash", system.script(script), verb)
    assert not data.exists()
    assert (treasure / "file").read_text() == "root's"


@needs_root
@pytest.mark.root
def test_the_services_folders_are_made_for_its_user(system: MockSystem) -> None:
    assert (
        system.run("bash", "-c", f". {system.script('install.sh')}; create_user_and_folders")[0]
        == 0
    )
    for folder, mode in (("/var/lib/edged", 0o750), ("/var/lib/edged/models", 0o755)):
        status = system.path(folder).stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (SERVICE_UID, mode)
    assert system.path("/etc/edged/credentials").stat().st_uid == 0


@pytest.mark.parametrize("script", ["install.sh", "deb/postinst", "deb/postrm", "deb/prerm"])
def test_every_command_below_the_services_folder_runs_as_its_user(script: str) -> None:
    """For lines that are written tomorrow."""
    code = [line for line in (DEPLOY / script).read_text().splitlines() if line.strip()[:1] != "#"]
    below = [line.strip() for line in code if "$DATA/" in line or "/var/lib/edged/" in line]
    assert all(line.startswith(("as_service ", "fetch_models ")) for line in below), below


@pytest.mark.slow
def test_python_imports_nothing_from_the_folder_of_the_caller(system: MockSystem) -> None:
    """`sudo ./install.sh` in a folder of somebody else ran that folder's venv.py as root."""
    folder, mark = system.hostile_folder(*HOSTILE)
    code, said = system.install(system.wheel("1.0"), cwd=folder)
    assert code == 0, said
    assert not mark.exists(), mark.read_text()


def test_python_of_the_package_imports_nothing_from_the_current_folder(system: MockSystem) -> None:
    folder, mark = system.hostile_folder(*HOSTILE)
    bin_folder = system.path("/opt/edged/bin")
    bin_folder.mkdir(parents=True)
    (system.path("/opt/edged/lib")).mkdir()
    (bin_folder / "python3").symlink_to(system.tools / "python3")
    system.run(system.script("deb/postinst"), "abort-upgrade", cwd=folder)
    assert not mark.exists(), mark.read_text()


def test_python_programs_that_the_command_starts_import_nothing_from_the_current_folder(
    system: MockSystem,
) -> None:
    """`sudo edged models fetch` asks pip, with `-m`: pip was looked for in the current folder."""
    system.run_service_as_root()
    folder, mark = system.hostile_folder(*HOSTILE)
    program = system.path("/opt/edged/bin/edged")
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec {system.tools}/python3 -m pip --version\n")
    program.chmod(0o755)
    code, said = system.run(system.script("edged"), "models", "fetch", cwd=folder)
    assert (code, said[:4]) == (0, "pip ")
    assert not mark.exists(), mark.read_text()


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("command", ["models fetch", "models verify", "run", "serve"])
def test_what_writes_below_the_services_folder_runs_as_its_user(
    system: MockSystem, command: str
) -> None:
    """`sudo edged run` wrote the state file as root, through a link that the service user may
    have put in its place."""
    program = system.path("/opt/edged/bin/edged")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n/usr/bin/id -u\n")
    program.chmod(0o755)
    assert system.run(system.script("edged"), *command.split()) == (0, f"{SERVICE_UID}\n")
    assert system.run(system.script("edged"), "config", "rollback") == (0, "0\n")


@pytest.mark.slow
def test_a_rollback_installs_the_unit_and_the_command_of_the_previous_version(
    system: MockSystem,
) -> None:
    """Run in the checkout of the new version, the question where the old version's files are was
    answered by the checkout: the old version got the new unit."""
    code, said = system.install(system.wheel("1.0"))
    assert code == 0, said
    checkout = system.checkout
    (checkout / "edged").mkdir()
    (checkout / "edged/__init__.py").touch()
    (checkout / "edged/resources.py").write_text(
        f"def folder(): return {str(checkout / 'deploy')!r}\ndeploy_files = folder\n"
    )
    for name in ("edged", "edged.service", "edged.env.example"):
        (checkout / "deploy" / name).write_text("# of the checkout\n")
    code, said = system.install(system.wheel("2.0", broken=True), cwd=checkout)
    assert (code, "rolled back; 1.0" in said) == (1, True), said
    assert system.path("/etc/systemd/system/edged.service").read_text() == "# unit of 1.0\n"
    assert "command of 1.0" in system.path("/usr/local/bin/edged").read_text()
    assert system.path("/etc/edged/edged.env.example").read_text() == "# settings of 1.0\n"
    assert [p.name[:3] for p in system.path("/opt/edged/releases").iterdir()] == ["1.0"]
    assert system.run(system.path("/opt/edged/bin/edged"))[1] == "edged 1.0\n"


@pytest.mark.slow
def test_a_release_is_installed_with_the_versions_that_its_constraints_name(
    system: MockSystem,
) -> None:
    """Two devices of one release, installed in different weeks, did not run the same code."""
    for version in ("1.5", "2.5"):
        system.python_package("helper", version, {"helper.py": f"version = {version!r}\n"})
    pinned = system.wheel(
        "1.0", requires="helper>=1", edged__deploy__constraints_txt="helper==1.5\n"
    )
    code, said = system.install(pinned)
    assert code == 0, said
    (found,) = (
        system.path("/opt/edged/current").resolve().glob("lib/python3.*/site-packages/helper.py")
    )
    assert found.read_text() == "version = '1.5'\n"


def test_edged_asks_pip_and_not_a_module_of_the_current_folder(
    system: MockSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`edged models fetch` in a folder with a `pip` of its own ran that."""
    folder, mark = system.hostile_folder("pip")
    monkeypatch.chdir(folder)
    pip_transport()
    assert not mark.exists()
