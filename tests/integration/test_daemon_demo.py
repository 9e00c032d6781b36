"""edged run as somebody tries it: captions on the same screen, and what --demo chooses."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from edged.cli.demo import demo_flags
from edged.config.sources import load
from edged.config.startup import check_files
from tests.conftest import SAMPLES
from tests.support.daemon_process import RUN
from tests.support.mosquitto import Mosquitto, until


def chosen(
    env_file: Path | None = None, microphone: bool = False, broker: bool = False, **flags: str
) -> tuple[dict[str, str], str]:
    """What the demo chooses on a machine with or without a microphone and a broker."""
    file = io.StringIO()
    console = Console(file=file, width=200)
    found = demo_flags(env_file, flags, console, lambda: microphone, lambda port: broker)
    return found, file.getvalue()


@pytest.mark.parametrize("microphone", [True, False])
@pytest.mark.parametrize("broker", [True, False])
def test_the_demo_takes_what_is_here_and_replaces_what_is_missing(
    microphone: bool, broker: bool
) -> None:
    found, said = chosen(microphone=microphone, broker=broker)
    assert found["mqtt_url"] == ("mqtt://localhost" if broker else "embedded")
    assert found.get("alsa_device") == (None if microphone else "sample")
    assert ("no microphone" in said) is not microphone


def test_what_the_demo_chooses_passes_the_checks_of_a_start() -> None:
    """The check of the certificates parsed the address `embedded` like a broker's, so that
    `make run` failed on a machine without a broker."""
    found, _ = chosen()
    check_files(load(None, found).settings)


def test_the_demo_keeps_what_somebody_has_set(tmp_path: Path) -> None:
    env_file = tmp_path / "edged.env"
    env_file.write_text("EDGED_MQTT_URL=mqtt://hub\nEDGED_ALSA_DEVICE=hw:CARD=Mic\n")
    assert chosen(env_file)[0] == {}
    assert chosen(env_file, mqtt_url="mqtt://other")[0] == {"mqtt_url": "mqtt://other"}


def test_captions_show_what_is_heard_and_a_ctrl_c_ends_it(tmp_path: Path) -> None:
    def shown() -> str:
        return (tmp_path / "out").read_text()

    with Mosquitto(tmp_path / "broker") as broker, (tmp_path / "out").open("wb") as out:
        command = [*RUN, "--captions", "--mqtt-url", f"mqtt://127.0.0.1:{broker.port}"]
        command += ["--alsa-device", f"file:{SAMPLES}/good-influence.flac"]
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            env=os.environ | {"EDGED_STATE_DIR": str(tmp_path)},
        )
        try:
            until(lambda: "influence" in shown() or process.poll() is not None, "a turn", 60)
            assert process.poll() is None, shown()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert "INFO" not in shown()
    assert "Traceback" not in shown()
