"""What a client of the broker receives from a device while the device is upgraded."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import datetime
from typing import Any

from tests.system.target.machine import BOOT, Machine

NUMBERED = ("text", "end_text", "turn", "flushed", "error", "end_of_stream")


class Listener:
    """Everything that the device publishes, received by a mosquitto_sub inside."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.received: list[tuple[str, Any]] = []
        self._process = subprocess.Popen(
            [BOOT, "exec", machine.rootfs, "mosquitto_sub", "-q", "1", "-i", "listener", "-c",
             "-t", "edged/#", "-F", "%t %p"],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, payload = line.rstrip("\n").split(" ", 1)
            try:
                value = json.loads(payload)
            except ValueError:
                value = payload
            self.received.append((topic.split("/", 2)[2], value))

    def of(self, *names: str) -> list[dict[str, Any]]:
        return [value for name, value in list(self.received) if name in names]

    def close(self) -> None:
        self._machine.sh("pkill -x mosquitto_sub", check=False)
        self._process.wait(10)


def gap_in_speech(machine: Machine, upgrade: str) -> float:
    """Runs the upgrade while the device records the sample speech.

    Checks that no message of the old version is lost: they are numbered without a gap up to the
    end of its stream. Returns the seconds from that end to the first word of the new version.
    """
    listener = Listener(machine)
    sessions: list[str] = []

    def two_sessions() -> bool:
        sessions[:] = dict.fromkeys(text["session"] for text in listener.of("text"))
        return len(sessions) > 1

    try:
        machine.until(lambda: len(listener.of("text")) > 3, "words", 60)
        machine.sh(upgrade)
        machine.until(two_sessions, "words of the new version", 60)
    finally:
        listener.close()
    numbered = [m for m in listener.of(*NUMBERED) if m["session"] == sessions[0]]
    seqs = sorted({m["seq"] for m in numbered})
    assert seqs == list(range(seqs[0], seqs[-1] + 1)), "a message of the old version was lost"
    last = max(numbered, key=lambda m: m["seq"])
    assert last["type"] == "end_of_stream", "the old version did not end its last sentence"
    first = next(m for m in listener.of("text") if m["session"] == sessions[1])
    ended, began = (datetime.fromisoformat(m["ts"].replace("Z", "+00:00")) for m in (last, first))
    return (began - ended).total_seconds()
