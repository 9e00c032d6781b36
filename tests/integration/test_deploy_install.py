"""The checks of install.sh: what they say about a machine on which edged cannot run.

The script is the real one; the programs that it asks about the machine are stand-ins. A whole
installation is tested on a booted Debian: `make test-installer`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "install.sh"
FIT = {
    "id": "echo 0",
    "getconf": 'case $1 in LONG_BIT) echo 64 ;; *) echo "glibc 2.36" ;; esac',
    "uname": "echo aarch64",
    "systemctl": "exit 0",
    "apt-get": "exit 0",
    "dpkg-query": "exit 1",
    "df": "printf 'Filesystem 1M-blocks Used Available\\n/ 30000 1000 29000\\n'",
    "python3": 'case $2 in -V) echo "Python 3.11.2" ;; esac',
}
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
DEFAULT_ROUTE = "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\n"
OWN_NETWORK = "wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\n"
IPV6_ROUTE = f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 28} 00000400 1 0 00000003 eth0\n"


class Machine:
    """A machine on which edged can be installed: tests change what it says about itself."""

    def __init__(self, root: Path) -> None:
        self.programs = dict(FIT)
        self.root = root
        (root / "proc/net").mkdir(parents=True)
        self.memory_mb(906)
        self.routes(DEFAULT_ROUTE + OWN_NETWORK)

    def memory_mb(self, total: int) -> None:
        (self.root / "proc/meminfo").write_text(f"MemTotal: {total * 1024} kB\nMemFree: 1 kB\n")

    def routes(self, routes: str, ipv6: str = "") -> None:
        (self.root / "proc/net/route").write_text(ROUTES + routes)
        (self.root / "proc/net/ipv6_route").write_text(ipv6)

    def check(self, *more: str, installer: Path = SCRIPT, **environment: str) -> tuple[int, str]:
        """The exit status and all that was said."""
        tools = self.root / "bin"
        tools.mkdir(exist_ok=True)
        for name, script in self.programs.items():
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
        wanted = "dirname sort head tail printf awk cut realpath sed cat find"
        for name in wanted.split():
            (tools / name).unlink(missing_ok=True)
            (tools / name).symlink_to(f"/usr/bin/{name}")
        done = subprocess.run(
            ["/bin/bash", installer, "check", *more],
            env={"PATH": str(tools), "SYSROOT": str(self.root)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_checks_pass_on_a_suitable_machine(machine: Machine) -> None:
    assert machine.check() == (0, "edged: edged can be installed on this machine")


@pytest.mark.parametrize(
    ("program", "says", "message"),
    [
        ("id", "echo 1000", "this must run as root: sudo "),
        ("getconf", "echo 32", "this system is 32-bit, edged needs a 64-bit one"),
        ("uname", "echo riscv64", "not on riscv64"),
        (
            "getconf",
            'case $1 in LONG_BIT) echo 64 ;; *) echo "glibc 2.24" ;; esac',
            "the C library is glibc 2.24, edged needs 2.28 or newer",
        ),
        (
            "getconf",
            "case $1 in LONG_BIT) echo 64 ;; *) exit 1 ;; esac",
            "the C library is glibc unknown",
        ),
        ("dpkg-query", "echo installed", "edged is installed from its .deb"),
        (
            "python3",
            'case $2 in -V) echo "Python 3.9.2" ;; *) exit 1 ;; esac',
            "the Python here is 3.9.2, edged needs 3.11 to 3.13",
        ),
        ("df", "printf 'F\\n/ 3000 2500 500 83%% /\\n'", "only 500 MB are free below /opt"),
    ],
)
def test_an_unsuitable_machine_gets_one_message(
    machine: Machine, program: str, says: str, message: str
) -> None:
    machine.programs[program] = says
    code, said = machine.check()
    assert code == 1
    assert message in said
    assert said.count("\n") == 0


@pytest.mark.parametrize("status", ["config-files", "not-installed"])
def test_a_removed_package_does_not_prevent_installation(machine: Machine, status: str) -> None:
    """`dpkg -s` succeeds for those too: users who had removed the .deb were told to remove it."""
    machine.programs["dpkg-query"] = f"echo {status}"
    assert machine.check() == (0, "edged: edged can be installed on this machine")


@pytest.mark.parametrize("program", ["systemctl", "apt-get"])
def test_a_system_without_systemd_or_apt_gets_a_message(machine: Machine, program: str) -> None:
    del machine.programs[program]
    code, said = machine.check()
    assert code == 1
    assert f"there is no {program.replace('ctl', 'd').replace('-get', '')} here" in said


@pytest.mark.parametrize(("total", "code"), [(425, 1), (439, 1), (440, 0)])
def test_a_board_of_512_mb_is_enough_and_one_of_less_is_not(
    machine: Machine, total: int, code: int
) -> None:
    machine.memory_mb(total)
    found, said = machine.check()
    assert found == code
    assert code == 0 or f"this machine has {total} MB of memory" in said


def test_without_a_network_the_message_names_the_options_for_it(machine: Machine) -> None:
    machine.routes(OWN_NETWORK)
    code, said = machine.check()
    assert code == 1
    assert "there is no network (no default route)" in said
    assert "--wheels and --models" in said
    assert machine.check("--wheels", str(machine.root))[0] == 0
    assert machine.check(https_proxy="http://proxy:3128")[0] == 0
    machine.routes(OWN_NETWORK, IPV6_ROUTE)
    assert machine.check()[0] == 0
    machine.routes("", IPV6_ROUTE.replace("eth0", "lo"))
    assert machine.check()[0] == 1


def test_edged_itself_is_never_taken_from_a_package_index(machine: Machine, tmp_path: Path) -> None:
    """Without a checkout and a wheel the script had pip fetch whatever is called edged on the
    index, and started it as root."""
    alone = tmp_path / "alone" / "install.sh"
    alone.parent.mkdir()
    alone.write_bytes(SCRIPT.read_bytes())
    code, said = machine.check(installer=alone)
    assert code == 1
    assert f"there is no edged-*.whl in {alone.parent}" in said
    (alone.parent / "edged-0.1.0-py3-none-any.whl").touch()
    assert machine.check(installer=alone)[0] == 0
