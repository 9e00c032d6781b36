"""A microphone for the tests: real libasound, paced in real time, without sound hardware.

A private PulseAudio with a source that we fill through a pipe, 20 ms at a time, by the clock;
ALSA's own pulse plugin records it. It can be unplugged and plugged in again.
Needs the packages pulseaudio, pulseaudio-utils and libasound2-plugins.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

DEVICE = "mic"
_NEEDS = ("pulseaudio", "pactl")
_PIECE_S = 0.02


def require() -> None:
    """Without PulseAudio these tests cannot run; in CI that is a failure."""
    missing = [name for name in _NEEDS if shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)} missing: apt install pulseaudio libasound2-plugins"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(text)


class PacedMicrophone:
    """`with PacedMicrophone() as mic:` the ALSA device "mic" exists for this process."""

    def __init__(self, rate: int = 48_000, channels: int = 2) -> None:
        """What the source itself runs at; the server converts to what a client asks for."""
        self._rate, self._channels = rate, channels
        self._module = ""
        self._saved: str | None = None
        self._left = np.zeros(0, np.int16)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._speaker = threading.Thread(target=self._speak, name="test speaker", daemon=True)

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
            f'pcm.{DEVICE} {{ type pulse server "unix:{socket}" device "{DEVICE}"\n'
            f'  hint {{ show on description "the paced test microphone" }} }}\n'
            f"pcm.!default {{ type plug slave.pcm {DEVICE} }}\n"
        )
        self._saved = os.environ.get("ALSA_CONFIG_PATH")
        os.environ["ALSA_CONFIG_PATH"] = str(config)
        self.start_server()
        self._speaker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._speaker.join(2)
        _end(self._server)
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
        for left in (socket, self._dir / "pipe"):  # by a crash
            left.unlink(missing_ok=True)
        native = f"module-native-protocol-unix auth-anonymous=1 socket={socket}"
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=120"]
        command += ["--use-pid-file=no", "--log-target=stderr", "-L", native]
        self._server = subprocess.Popen(
            command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
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
        shape = f"source_name={DEVICE} rate={self._rate} channels={self._channels} format=s16le"
        pipe = f"file={self._dir / 'pipe'}"
        loaded = self._run("pactl", "load-module", "module-pipe-source", pipe, *shape.split())
        self._module = loaded.stdout.decode().strip()

    def unplug(self) -> None:
        self._run("pactl", "unload-module", self._module)

    def recorders(self) -> list[str]:
        """What the sound server says of who records: one line each."""
        listed = self._run("pactl", "list", "short", "source-outputs")
        return listed.stdout.decode().splitlines()

    def hang_server(self, hung: bool) -> None:
        """The sound server stops answering (or goes on)."""
        self._server.send_signal(signal.SIGSTOP if hung else signal.SIGCONT)

    def play(self, samples: NDArray[np.int16], rate: int = 24_000) -> None:
        """int16[n] mono, heard from now on in real time, after what still plays."""
        if rate != self._rate:
            samples = np.asarray(soxr.resample(samples, rate, self._rate), np.int16)
        with self._lock:
            self._left = np.concatenate([self._left, samples])

    def _speak(self) -> None:
        """Writes what is played, else silence, as fast as time passes; to nobody, if so."""
        started, written, pipe = time.monotonic(), 0, -1
        while not self._stop.wait(_PIECE_S):
            count = round((time.monotonic() - started) * self._rate) - written
            written += count
            with self._lock:
                piece, self._left = self._left[:count], self._left[count:]
            piece = np.pad(piece, (0, count - len(piece)))
            data = np.repeat(piece.astype("<i2"), self._channels).tobytes()
            try:
                if pipe < 0:
                    pipe = os.open(self._dir / "pipe", os.O_WRONLY | os.O_NONBLOCK)
                os.write(pipe, data)
            except BlockingIOError:
                continue
            except OSError:  # unplugged
                if pipe >= 0:
                    os.close(pipe)
                pipe = -1
        if pipe >= 0:
            os.close(pipe)

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
