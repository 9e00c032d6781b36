"""A broker as deploy/mosquitto sets it up: its config, ACL and scripts, on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.support.mosquitto import free_port, until

KIT = Path(__file__).parents[2] / "deploy" / "mosquitto"


class DeployedBroker:
    """`with DeployedBroker(folder) as broker`. `ws_tls` False serves the page's listener plain,
    because a headless browser does not trust the authority. `user_is_client_id` switches on what
    edged.conf suggests in a comment."""

    def __init__(self, folder: Path, ws_tls: bool = True, user_is_client_id: bool = False) -> None:
        self.folder = folder
        self.certs = folder / "certs"
        self.local_port, self.port, self.ws_port = free_port(), free_port(), free_port()
        self.passwords: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "conf.d").mkdir(parents=True)
        (folder / "db").mkdir()
        self.certificates("ca")
        self.certificates("server", "localhost", "127.0.0.1")
        text = (KIT / "edged.conf").read_text().replace("/etc/mosquitto/", f"{folder}/")
        if user_is_client_id:
            assert text.count("\n#use_username_as_clientid true\n") == 3
            text = text.replace("\n#use_username_as_clientid", "\nuse_username_as_clientid")
        for before, after in (
            ("listener 1883 127.0.0.1", f"listener {self.local_port} 127.0.0.1"),
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("listener 9001", f"listener {self.ws_port} 127.0.0.1"),
        ):
            assert before in text
            text = text.replace(before, after)
        if not ws_tls:
            head, page, rest = text.partition("protocol websockets\n")
            kept = [line for line in rest.splitlines() if "file " not in line and "tls" not in line]
            text = head + page + "\n".join(kept) + "\n"
        (folder / "conf.d" / "edged.conf").write_text(text)
        shutil.copy(KIT / "edged.acl", folder / "edged.acl")
        user = "root" if os.getuid() == 0 else os.environ.get("USER", "mosquitto")
        (folder / "mosquitto.conf").write_text(  # as Debian's own
            f"user {user}\npersistence true\npersistence_location {folder}/db/\n"
            f"log_dest file {folder}/log\ninclude_dir {folder}/conf.d\n"
        )

    def certificates(self, *args: str) -> str:
        return self._script("make-certificates.sh", *args)

    def add_user(self, device: str, *, kiosk: bool = False) -> str:
        """Adds a device, or a captions page of it; returns the password."""
        lines = self._script("add-user.sh", *(["--kiosk"] if kiosk else []), device)
        name = lines.partition("EDGED_MQTT_USERNAME=")[2].split()[0]
        self.passwords[name] = lines.partition("EDGED_MQTT_PASSWORD=")[2].strip()
        return self.passwords[name]

    def add_password(self, name: str) -> None:
        """Adds a user without any rules."""
        self.passwords[name] = f"secret-{name}"
        file = self.folder / "edged.passwd"
        command: list[str | Path] = ["mosquitto_passwd", "-b", file, name, self.passwords[name]]
        subprocess.run(command, check=True, capture_output=True)

    def add_rules(self, device: str) -> None:
        """Adds the rules of a device that has a password already."""
        self._script("add-user.sh", "--rules", device)

    def allow(self, rules: str) -> None:
        """Appends lines to the access rules."""
        with (self.folder / "edged.acl").open("a") as acl:
            acl.write(rules)

    def _script(self, name: str, *args: str) -> str:
        known = os.environ | {
            "CERTS": str(self.certs),
            "PASSWD": str(self.folder / "edged.passwd"),
            "ACL": str(self.folder / "edged.acl"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        done = subprocess.run([KIT / name, *args], env=known, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def start(self) -> None:
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._process = subprocess.Popen([binary, "-c", self.folder / "mosquitto.conf"])
        log = self.folder / "log"
        until(lambda: log.exists() and "running" in log.read_text(), f"{log} says running", 60)

    def reload(self) -> None:
        """Lets the running broker read its passwords and rules again."""
        assert self._process is not None
        lines = len((self.folder / "log").read_text().splitlines())
        self._process.send_signal(signal.SIGHUP)
        log = self.folder / "log"
        until(lambda: "Reloading" in "".join(log.read_text().splitlines()[lines:]), "reloaded")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            (self.folder / "log").unlink()
            self._process = None

    def __enter__(self) -> DeployedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
