"""Settings pushed to 20 devices: real daemons, a real broker, real rsync; SSH is a stand-in."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mosquitto import Mosquitto, Subscriber, until

FLEET = Path(__file__).parents[2] / "deploy" / "fleet"
DEVICES = 20
BROKEN = {
    "device18": ("EDGED_DELAY_IN_FRAME=12\n", "did you mean EDGED_DELAY_IN_FRAMES?"),
    "device19": ("EDGED_DELAY_IN_FRAMES=13\n", "must be one of 7, 8, 10"),
    "device20": ("EDGED_DELAY_IN_FRAMES=12\nEDGED_DEVICE='kitchen", "never closed"),
}
SSH = """#!/bin/sh
# ssh [-o OPTION]... HOST COMMAND...: the host is a folder beside this file
while [ "$1" = -o ]; do shift 2; done
cd "$(dirname "$0")/$1" || exit 255
shift
exec sh -c "$*"
"""
EDGED = f"""#!/bin/sh
exec {sys.executable} -c 'from edged.cli.main import main; main()' "$@"
"""


class Fleet:
    """Folders deviceN, each with etc/edged.env and etc/edged.env.d as its daemon sees them."""

    def __init__(self, root: Path, broker: Mosquitto, first: int, last: int) -> None:
        self.root, self.broker = root, broker
        self.names = [f"device{n}" for n in range(first, last + 1)]
        for name in self.names:
            (root / name / "etc" / "edged.env.d").mkdir(parents=True)
            self.env_file(name).write_text(
                f"EDGED_DEVICE={name}\nEDGED_MQTT_URL=mqtt://127.0.0.1:{broker.port}\n"
                f"EDGED_STATE_DIR={root}/{name}/state\nEDGED_ALSA_DEVICE=hw:CARD=Nowhere\n"
                "EDGED_DELAY_IN_FRAMES=10\n"
            )
        for tool, text in (("ssh", SSH), ("edged", EDGED)):
            (root / tool).write_text(text)
            (root / tool).chmod(0o755)

    def env_file(self, name: str) -> Path:
        return self.root / name / "etc" / "edged.env"

    def environment(self, **more: str) -> dict[str, str]:
        return (
            os.environ
            | {
                "PATH": f"{self.root}:{os.environ['PATH']}",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "SSH": str(self.root / "ssh"),
                "SUDO": "",
                "FOLDER": "etc/edged.env.d",
                "BROKER": f"-h 127.0.0.1 -p {self.broker.port}",
                "TIMEOUT": "60",
            }
            | more
        )

    def push(self, text: str, *devices: str, **more: str) -> subprocess.Popen[str]:
        folder = self.root / f"push-{devices[0]}-{len(list(self.root.glob('push-*')))}"
        folder.mkdir()
        file = folder / "10-fleet.env"
        file.write_text(text)
        return subprocess.Popen(
            [FLEET / "push.sh", file, *devices],
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, Path(__file__).parents[1] / "support" / "fleet.py",
             *map(self.env_file, self.names)],
            env=self.environment() | {"XDG_RUNTIME_DIR": str(self.root / "run")},
            stdin=subprocess.PIPE,
        )  # fmt: skip


@contextlib.contextmanager
def running(first: int, last: int) -> Iterator[Fleet]:
    """Daemons deviceFIRST to deviceLAST and their broker."""
    with tempfile.TemporaryDirectory(prefix="edged-fleet-") as folder, contextlib.ExitStack() as up:
        broker = up.enter_context(Mosquitto(Path(folder) / "broker"))
        fleet = Fleet(Path(folder), broker, first, last)
        ear = up.enter_context(Subscriber(broker.port, ("edged/+/availability",)))
        daemons = up.enter_context(fleet.start())
        assert daemons.stdin is not None
        up.callback(daemons.stdin.close)
        online = {f"edged/{name}/availability" for name in fleet.names}
        until(lambda: {h.topic for h in list(ear.heard)} == online, f"{online} online", 120)
        yield fleet


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three of them: the tests of one device each need no more."""
    with running(1, 3) as few:
        yield few


def retained(fleet: Fleet, name: str) -> dict[str, Any]:
    """The newest `<name>` of every device."""
    with Subscriber(fleet.broker.port, (f"edged/+/{name}",)) as ear:
        until(lambda: len({h.topic for h in list(ear.heard)}) == len(fleet.names), name, 30)
        return {h.topic.split("/")[1]: h.json() for h in list(ear.heard)}


def test_of_20_devices_17_confirm_and_3_say_why_and_keep_their_settings() -> None:
    with running(1, DEVICES) as fleet:
        push_to_all(fleet)


def push_to_all(fleet: Fleet) -> None:
    pushes = [fleet.push(text, device) for device, (text, _) in BROKEN.items()]
    pushes.append(fleet.push("EDGED_DELAY_IN_FRAMES=12\n", *fleet.names[:17]))
    said = [push.communicate(timeout=120)[0] for push in pushes]
    assert [push.returncode for push in pushes] == [1, 1, 1, 0], "".join(said)
    assert said[3].count("took it") == 17
    assert "17 of 17 devices took 10-fleet.env" in said[3]
    for (device, (_, why)), text in zip(BROKEN.items(), said[:3], strict=True):
        assert f"{device}: REFUSED: " in text
        assert why in text
    delays = {
        device: s["delay_in_frames"] for device, s in retained(fleet, "state/settings").items()
    }
    assert delays == {name: 10 if name in BROKEN else 12 for name in fleet.names}
    for device, config in retained(fleet, "state/config").items():
        assert config["ok"] == (device not in BROKEN), config


def test_a_device_that_refused_is_rolled_back_and_confirms_again(fleet: Fleet) -> None:
    push = fleet.push("EDGED_TEMP=hot\n", "device1", ROLLBACK="1")
    text = push.communicate(timeout=120)[0]
    assert "device1: rolled back" in text, text
    folder = fleet.root / "device1" / "etc" / "edged.env.d"
    assert [p.name for p in folder.iterdir()] == ["10-fleet.env.rolled-back"]
    until(lambda: retained(fleet, "state/config")["device1"]["ok"], "device1 is content", 60)


def test_a_device_that_cannot_be_reached_is_named_and_the_others_are_done(fleet: Fleet) -> None:
    push = fleet.push(
        "EDGED_DELAY_IN_FRAMES=12\nEDGED_TEMP=0\n", "device2", "pi@nowhere.local:attic"
    )
    text = push.communicate(timeout=120)[0]
    assert push.returncode == 1
    assert "device2: took it" in text
    assert "attic: NOT REACHED" in text


def test_without_a_broker_the_devices_are_asked_over_ssh(fleet: Fleet) -> None:
    for text, code, expected in (
        ("EDGED_GAIN_DB=1\n", 0, "device3: took it"),
        ("EDGED_GAIN_DB=loud\n", 1, "device3: REFUSED: EDGED_GAIN_DB"),
    ):
        push = fleet.push(text, "device3", BROKER="", ROLLBACK="1")
        said = push.communicate(timeout=120)[0]
        assert (push.returncode, expected in said) == (code, True), said


def test_a_file_that_no_device_would_read_is_not_pushed(fleet: Fleet) -> None:
    file = fleet.root / "fleet.conf"
    file.write_text("EDGED_TEMP=0\n")
    done = subprocess.run([FLEET / "push.sh", file, "device3"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "must end in .env" in done.stderr


def test_the_playbook_pushes_refuses_and_rolls_back_by_name(fleet: Fleet, tmp_path: Path) -> None:
    good, bad = tmp_path / "20-play.env", tmp_path / "bad" / "20-play.env"
    bad.parent.mkdir()
    good.write_text("EDGED_TURN_SILENCE_MS=900\n")
    bad.write_text("EDGED_TURN_SILENCE_MS=soon\n")
    hosts = [
        f"{name} edged_env_file={fleet.env_file(name)} settings={file}"
        for name, file in (("device1", good), ("device2", good), ("device3", bad))
    ]
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    shared = [
        "ansible_connection=local",
        f"ansible_python_interpreter={sys.executable}",
        f"edged_command={fleet.root}/edged",
        "edged_become=false",
        f"edged_file_owner={owner}",
        f"edged_file_group={group}",
    ]
    inventory = tmp_path / "inventory.ini"
    inventory.write_text("\n".join(["[devices]", *hosts, "[devices:vars]", *shared]) + "\n")

    def play(book: str, *more: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("ansible-playbook")
        return subprocess.run(
            [program, "-i", inventory, *more, FLEET / book],
            env=fleet.environment() | {"ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
        )

    done = play("playbook.yml")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "EDGED_TURN_SILENCE_MS" in done.stdout, done.stdout
    settings = retained(fleet, "state/settings")
    found = {
        device: settings[device]["turn_silence_ms"] for device in ("device1", "device2", "device3")
    }
    assert found == {"device1": 900, "device2": 900, "device3": 700}

    kept = subprocess.run(
        [fleet.root / "edged", "config", "history", "--json",
         "--env-file", fleet.env_file("device1")],
        env=fleet.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [row["name"] for row in json.loads(kept.stdout)]
    done = play("rollback.yml", "-e", f"to={names[1]}", "--limit", "device1")
    assert done.returncode == 0, done.stdout + done.stderr
    until(
        lambda: retained(fleet, "state/settings")["device1"]["turn_silence_ms"] == 700,
        "device1 is back",
    )


def test_a_device_answers_for_itself_alone(fleet: Fleet) -> None:
    """A line break or a string in one device's `state/config` answered for its neighbour: the
    messages were searched as text, one line each, with the topic in front."""
    text = "EDGED_TEMP=0.1\n"
    checksum = hashlib.sha256(text.encode()).hexdigest()
    files = [{"path": "/etc/edged/edged.env.d/10-fleet.env", "sha256": checksum}]
    good = json.dumps({"ok": True, "files": files, "problems": []})
    lies = (
        f"x\nedged/attic/state/config {good}",
        json.dumps({"ok": True, "files": files, "note": f"edged/attic/state/config {good}"}),
        f'{{"topic": "edged/attic/state/config", "payload": {json.dumps(good)}}}',
        f'x\n{{"topic": "edged/attic/state/config", "payload": {json.dumps(good)}}}',
        "\xff",
        '{"ok": true, "files": 1}',
    )
    push = fleet.push(text, "device1:attic", TIMEOUT="6")
    with Subscriber(fleet.broker.port, ("edged/attic/x",)) as liar:
        for _ in range(4):
            for lie in lies:
                liar.publish("edged/liar/state/config", lie)
                liar.publish("edged/xedged/attic/state/config", lie)
            time.sleep(1)
    said = push.communicate(timeout=60)[0]
    assert "attic: NO ANSWER within 6 s" in said, said
    push = fleet.push(text, "device1:attic", TIMEOUT="30")
    with Subscriber(fleet.broker.port, ("edged/attic/x",)) as attic:
        while push.poll() is None:
            attic.publish("edged/attic/state/config", good)
            time.sleep(0.1)
    assert "attic: took it" in push.communicate(timeout=60)[0]
