"""Measures the daemon over a long time: `make daemon-soak ARGS="--minutes 60 --speech DIR memory"`.

memory: an hour of speech in real time; resident memory and its slope, CPU per second of audio.
outage: the broker is away for ten minutes of speech, and once more while the daemon is killed. The
    event stream of the API server, which needs no broker, gives what should have been published.

`--speech` is a folder of audio files, played as the microphone in real time with 3 s of silence
after each; the sample speech without it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import SAMPLES
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, free_port, until
from tests.support.mqtt_publisher import assert_gapless

EVERY_S = 10.0
SETTLE_S = 300.0  # before this the memory may still grow: caches, the first long segment


def memory(folder: Path, speech: Path, minutes: float) -> None:
    with Mosquitto(folder / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        with DaemonProcess(folder, broker.port, alsa_device=f"file:{speech}") as daemon:
            assert daemon.process is not None
            process = psutil.Process(daemon.process.pid)
            start, before = time.monotonic(), sum(process.cpu_times()[:2])
            found: list[tuple[float, float]] = []
            while (now := time.monotonic() - start) < minutes * 60:
                time.sleep(EVERY_S)
                found.append((now / 60, process.memory_info().rss / 1e6))
                if len(found) % round(300 / EVERY_S) == 0:
                    words = len(ear.on("text"))
                    print(
                        f"  {now / 60:3.0f} min: {found[-1][1]:.0f} MB, {words} words", flush=True
                    )
                ear.heard = [h for h in ear.heard if not h.topic.endswith("/step")]
            cpu = sum(process.cpu_times()[:2]) - before
            heard_s = ear.on("state/health")[-1].json()["heard_s"]
            assert_gapless(ear.events())
            took = daemon.stop()
    late = [(m, mb) for m, mb in found if m > SETTLE_S / 60] or found
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope * 60
    middle = [mb for m, mb in late if m < minutes / 2] or [late[0][1]]
    last = [mb for m, mb in late if m >= minutes / 2]
    print(f"memory: {minutes:g} min of real time, {heard_s / 60:.1f} min heard, stop {took:.1f} s")
    print(f"  resident: peak {max(mb for _, mb in found):.0f} MB, end {found[-1][1]:.0f} MB")
    print(f"  median of the halves: {statistics.median(middle):.1f}, {statistics.median(last):.1f}")
    print(f"  slope after {SETTLE_S / 60:g} min: {slope:+.1f} MB/h")
    print(f"  CPU: {cpu / heard_s:.3f} s per second of audio")


class Witness:
    """Receives the microphone's events from the API server, without a broker."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[float, dict[str, Any]]] = []
        self._url = f"ws://127.0.0.1:{port}/api/events"
        threading.Thread(target=lambda: asyncio.run(self._follow()), daemon=True).start()

    async def _follow(self) -> None:
        try:
            async with connect(self._url) as socket:
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] in ("text", "end_text", "turn"):
                        self.messages.append((time.monotonic(), message))
        except ConnectionClosed:
            return  # the daemon was killed

    def until(self, moment: float) -> list[dict[str, Any]]:
        return [message for at, message in list(self.messages) if at <= moment]


def outage(folder: Path, speech: Path, minutes: float) -> None:
    port = free_port()
    settings = {"alsa_device": f"file:{speech}", "listen": f"127.0.0.1:{port}"}
    with Mosquitto(folder / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        with DaemonProcess(folder, broker.port, **settings) as daemon:
            witness = Witness(port)
            until(lambda: ear.on("text"), "a first word", 60)
            session = ear.events()[0]["session"]
            _away(broker, daemon, minutes * 60)
            back, before = time.monotonic(), len(ear.events())
            broker.start()
            until(lambda: len(ear.events()) > before, "the first message", 90)
            first = time.monotonic() - back
            until(lambda: "delayed" not in ear.events()[-1], "drained", 120)
            late = [h.at for h in ear.heard if h.at > back and b'"delayed"' in h.payload]
            count, drained = len(late), late[-1] - late[0]
            print(
                f"outage: first message {first:.1f} s after the broker was back, all {count}"
                f" that waited in {drained:.1f} s",
                flush=True,
            )
            _away(broker, daemon, 60)
            daemon.kill()
            killed = time.monotonic()
            broker.start()
            daemon.start()
            until(lambda: any(e["session"] != session for e in ear.events()), "the new run", 90)
            until(lambda: "delayed" not in ear.events()[-1], "drained", 60)
            events = [e for e in ear.events() if e["session"] == session]
            daemon.stop()
    assert_gapless(events)
    once = {e["seq"]: e for e in events}
    kinds = ("type", "text", "start_s", "stop_s")
    published = [{k: once[s].get(k) for k in kinds} for s in sorted(once)]
    said = [{k: m.get(k) for k in kinds} for m in witness.until(killed - 0.1)]
    published = [p for p in published if p["type"] in ("text", "end_text", "turn")]
    missing = [m for m in said if m not in published]
    print(f"  said while watched: {len(said)}; published: {len(published)} of {len(events)} sent")
    print(f"  missing: {len(missing)}; in the same order: {published[: len(said)] == said}")
    print(f"  delayed ones: {sum('delayed' in e for e in once.values())}, seq 1 to {max(once)}")
    assert not missing


def _away(broker: Mosquitto, daemon: DaemonProcess, seconds: float) -> None:
    broker.stop()
    until(lambda: "broker ok" not in daemon.systemd.status, "the daemon notices")
    time.sleep(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["outage", "memory"])
    parser.add_argument("--speech", type=Path, default=SAMPLES)
    parser.add_argument("--minutes", type=float, help="instead of 60 and 10")
    asked = parser.parse_args()
    for what in asked.what:
        with tempfile.TemporaryDirectory(prefix="edged-") as folder:
            match what:
                case "memory":
                    memory(Path(folder), asked.speech, asked.minutes or 60)
                case "outage":
                    outage(Path(folder), asked.speech, asked.minutes or 10)
                case _:
                    sys.exit(f"daemon-soak has memory and outage, not {what}")


if __name__ == "__main__":
    main()
