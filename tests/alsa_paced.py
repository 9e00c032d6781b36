"""A microphone for the tests: real libasound, paced in real time, without sound hardware.

A private PulseAudio with a null sink; ALSA's own pulse plugin records its monitor. What is
played into the sink is what the microphone hears. It can be unplugged and plugged in again.
Needs the packages pulseaudio, pulseaudio-utils and libasound2-plugins.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

DEVICE = "mic"
_NEEDS = ("pulseaudio", "pactl", "pacat", "parec")


def require() -> None:
    """Without PulseAudio these tests cannot run; in CI that is a failure."""
    missing = [name for name in _NEEDS if shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)} missing: apt install pulseaudio libasound2-plugins"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)


class PacedMicrophone:
    """`with PacedMicrophone() as mic:` the ALSA device "mic" exists for this process."""

    def __init__(self, rate: int = 48_000, channels: int = 2) -> None:
        """Rate and channels of the sink; the server converts to what a client asks for."""
        self._sink = f"rate={rate} channels={channels} format=s16le"
        self._children: list[subprocess.Popen[bytes]] = []
        self._module = ""
        self._saved: str | None = None

    def __enter__(self) -> PacedMicrophone:
        require()
        self._dir = Path(tempfile.mkdtemp(prefix="edmic"))  # short: a socket's path has a limit
        socket = self._dir / "sock"
        self._env = os.environ | {
            "PULSE_SERVER": f"unix:{socket}",
            "HOME": str(self._dir),
            "XDG_RUNTIME_DIR": str(self._dir),
            "PULSE_RUNTIME_PATH": str(self._dir / "rt"),
        }
        config = self._dir / "asoundrc"
        config.write_text(
            "</usr/share/alsa/alsa.conf>\n"
            f'pcm.{DEVICE} {{ type pulse server "unix:{socket}" device "{DEVICE}.monitor"\n'
            f'  hint {{ show on description "the paced test microphone" }} }}\n'
            f"pcm.!default {{ type plug slave.pcm {DEVICE} }}\n"
        )
        self._saved = os.environ.get("ALSA_CONFIG_PATH")
        os.environ["ALSA_CONFIG_PATH"] = str(config)
        self.start_server()
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            _end(child)
        if self._saved is None:
            os.environ.pop("ALSA_CONFIG_PATH", None)
        else:
            os.environ["ALSA_CONFIG_PATH"] = self._saved
        shutil.rmtree(self._dir, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs to use the same microphone."""
        return {"ALSA_CONFIG_PATH": os.environ["ALSA_CONFIG_PATH"]}

    def start_server(self) -> None:
        socket = self._dir / "sock"
        socket.unlink(missing_ok=True)
        native = f"module-native-protocol-unix auth-anonymous=1 socket={socket}"
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        command += ["--use-pid-file=no", "--log-target=stderr", "-L", native]
        self._server = self._spawn(command)
        deadline = time.monotonic() + 10
        while self._run("pactl", "info").returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("PulseAudio did not start")
            time.sleep(0.05)
        self.plug()

    def crash_server(self) -> None:
        """The sound server dies without a word."""
        self._server.kill()
        self._server.wait()

    def plug(self) -> None:
        sink = ["load-module", "module-null-sink", f"sink_name={DEVICE}", *self._sink.split()]
        loaded = self._run("pactl", *sink)
        self._module = loaded.stdout.decode().strip()
        # A reader of our own with little latency: the monitor of an idle null sink would hand
        # over its first 1 to 2 s in one lump.
        self._spawn(["parec", "-d", f"{DEVICE}.monitor", "--latency-msec=20", "--raw"])

    def unplug(self) -> None:
        self._run("pactl", "unload-module", self._module)

    def play(self, samples: NDArray[np.int16], rate: int = 24_000) -> None:
        """int16[n] mono, heard from now on in real time; returns at once."""
        path = self._dir / f"played{len(self._children)}.raw"
        path.write_bytes(np.asarray(samples, "<i2").tobytes())
        shape = [f"--rate={rate}", "--channels=1", "--format=s16le"]
        self._spawn(["pacat", "--playback", "--raw", *shape, "-d", DEVICE, str(path)])

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._children.append(child)
        return child

    def _run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, env=self._env, capture_output=True, timeout=10, check=False)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
